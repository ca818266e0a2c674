"""A video passes through the function in pieces: over as many requests as it takes, and without
staying in its memory."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from pathlib import Path

from tests.sandbox.functions import FunctionProcess
from tests.sandbox.stack import BUCKET
from tests.world import World

MEGABYTE = 1024 * 1024
FILM_BYTES = 80 * MEGABYTE
RISES_BY_BYTES = 64 * MEGABYTE


def test_a_large_video_arrives_whole_and_the_functions_memory_stays(
    world: World,
) -> None:
    account = world.account("linkedin")
    film = b"\x00\x00\x00\x18ftypisom".ljust(FILM_BYTES, b".")
    world.stack.storage.put(BUCKET, "film.mp4", film, "video/mp4")
    about = {"contentType": "video/mp4", "sizeBytes": FILM_BYTES}
    world.media("film", f"gs://{BUCKET}/film.mp4", **about)
    instances = world.stack.processes["publish_post"]
    before = [memory(instance, "VmRSS") for instance in instances]

    post_id = world.schedule(account, mediaAssetIds=["film"])
    while world.status(post_id)["status"] != "published":
        world.stack.settle(60)
        world.stack.clock.turn(timedelta(seconds=2))
    peaks = [memory(instance, "VmHWM") for instance in instances]

    (post,) = world.stack.platforms.posts("linkedin")
    assert post.media[0].sha256 == hashlib.sha256(film).hexdigest()
    assert all(peak - rss < RISES_BY_BYTES for peak, rss in zip(peaks, before, strict=True))
    assert world.delivery(post_id, account)["attemptsSpent"] == 1


def memory(instance: FunctionProcess, field: str) -> int:
    """Of the instance's worker, in bytes: VmRSS now, VmHWM at its most."""
    status = Path(f"/proc/{instance.worker()}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
