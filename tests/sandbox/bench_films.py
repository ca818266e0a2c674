"""What the largest files cost that pass through us: one in one body, one in pieces.

The budget is what the function's memory rises by. Requests of ours and reads of the bucket are
counted; seconds are this machine's, where bucket and platform are as near as they can be.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from shared.platforms.slack import Slack
from shared.platforms.twitter import Twitter
from tests.sandbox.figures import Figure, forget_peak, peak_mib, resident_mib
from tests.sandbox.films import MEGABYTE, film
from tests.sandbox.stack import BUCKET
from tests.world import World

RISES_BY_MIB = 64
PATIENCE = 600.0
VIDEO = "video/mp4"
LARGEST = {"slack": Slack.limits.media_types[VIDEO], "twitter": Twitter.limits.media_types[VIDEO]}
SENT = {"slack": "in one body", "twitter": "in pieces"}


def figures(world: World, note: Callable[[str], None]) -> Iterator[Figure]:
    for platform, size_bytes in LARGEST.items():
        what = f"{size_bytes // MEGABYTE:,} MB {SENT[platform]}"
        note(f"Sending {what} …")
        yield from sent(world, platform, size_bytes, what)


def sent(world: World, platform: str, size_bytes: int, what: str) -> Iterator[Figure]:
    """One film from the bucket to a platform; it arrives whole, or this ends."""
    stack = world.stack
    [process] = stack.processes["publish_post"]
    account = world.account(platform)
    with tempfile.TemporaryDirectory() as folder:
        digest = film(Path(folder) / "film.mp4", size_bytes)
        stored = stack.storage.put_file(BUCKET, platform, Path(folder) / "film.mp4", VIDEO)
        assert stored.hashes  # made now: it takes seconds
        about = {"contentType": VIDEO, "sizeBytes": size_bytes}
        world.media(platform, f"gs://{BUCKET}/{platform}", **about)
        reads = stack.storage.faults.arm(lambda _: None, times=None)
        forget_peak(process)
        before, started = resident_mib(process), time.monotonic()
        post_id = world.schedule(account, mediaAssetIds=[platform])
        while world.status(post_id)["status"] != "published":
            stack.settle(PATIENCE)
            stack.clock.turn(timedelta(seconds=2))
            assert time.monotonic() < started + PATIENCE, world.status(post_id)
        seconds, rise = time.monotonic() - started, peak_mib(process) - before
        stack.storage.faults.clear()
    [post] = stack.platforms.posts(platform)
    assert post.media[0].sha256 == digest
    attempts = world.delivery(post_id, account)["attempts"]

    yield Figure(f"{what}: MiB more in memory", rise, RISES_BY_MIB)
    yield Figure(f"{what}: requests of ours", len(attempts))
    yield Figure(f"{what}: requests to the bucket", reads.hits)
    yield Figure(f"{what}: seconds", seconds)
