"""A video passes through the function without staying in its memory: in pieces, over as many
requests as it takes, or as the stream that it is; and it is one version of its file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.sandbox.figures import forget_peak, peak_mib, resident_mib
from tests.sandbox.films import MEGABYTE, film
from tests.sandbox.platforms.values import Answer, Received
from tests.sandbox.stack import BUCKET
from tests.world import World

FILM_BYTES = 47 * MEGABYTE  # Bluesky takes no more
RISES_BY_MIB = 44  # 20 of it by loading what reads the bucket
SERVERS = {"bluesky": {"server": "pds.example"}}


def shoot(world: World, path: Path, size_bytes: int, take: int = 1) -> str:
    """A film in the bucket, there registered as `film`; its SHA-256."""
    digest = film(path, size_bytes, take)
    world.stack.storage.put_file(BUCKET, "film.mp4", path, "video/mp4")
    return digest


def register(world: World, size_bytes: int) -> str:
    about = {"contentType": "video/mp4", "sizeBytes": size_bytes}
    world.media("film", f"gs://{BUCKET}/film.mp4", **about)
    return "film"


@pytest.mark.parametrize(
    "platform",
    [
        pytest.param("linkedin", id="in pieces"),
        pytest.param("slack", id="as a body"),
        pytest.param("bluesky", id="as a blob"),
        pytest.param("telegram", id="in a form"),
    ],
)
def test_a_large_video_arrives_whole_and_the_functions_memory_stays(
    world: World, tmp_path: Path, platform: str
) -> None:
    digest = shoot(world, tmp_path / "film.mp4", FILM_BYTES)
    account = world.account(platform, **SERVERS.get(platform, {}))
    asset = register(world, FILM_BYTES)
    instances = world.stack.processes["publish_post"]
    for instance in instances:
        forget_peak(instance)
    before = [resident_mib(instance) for instance in instances]

    post_id = world.schedule(account, mediaAssetIds=[asset])
    world.run_until(
        lambda: world.status(post_id)["status"] == "published", step=timedelta(seconds=2)
    )
    after = [peak_mib(instance) for instance in instances]

    (post,) = world.stack.platforms.posts(platform)
    assert post.media[0].sha256 == digest
    assert max(most - least for most, least in zip(after, before, strict=True)) < RISES_BY_MIB
    assert world.delivery(post_id, account)["attemptsSpent"] == 1


@pytest.mark.parametrize("platform", ["linkedin", "twitter", "slack"])
def test_a_video_that_is_replaced_while_it_is_sent_is_never_posted(
    world: World, tmp_path: Path, platform: str
) -> None:
    account, platforms = world.account(platform), world.stack.platforms
    shoot(world, tmp_path / "one.mp4", 9 * MEGABYTE)
    asset = register(world, 9 * MEGABYTE)

    def replaced(received: Received, answer: Answer) -> None:
        shoot(world, tmp_path / "two.mp4", 9 * MEGABYTE, take=2)

    platforms.misbehave(platform, "begin upload", "hook", hook=replaced)

    post_id = world.schedule(account, mediaAssetIds=[asset])
    world.stack.settle(60)

    delivery = world.delivery(post_id, account)
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "media_changed")
    assert platforms.posts(platform) == []
    assert len(world.letters()) == 1


def test_a_video_that_is_replaced_between_two_requests_is_never_posted(
    world: World, tmp_path: Path
) -> None:
    account, platforms = world.account("twitter"), world.stack.platforms
    shoot(world, tmp_path / "one.mp4", 9 * MEGABYTE)
    platforms.misbehave(
        "twitter", "upload", "throttle", seconds=60, when=lambda got: b"\r\n\r\n1\r\n" in got.body
    )
    post_id = world.schedule(account, mediaAssetIds=[register(world, 9 * MEGABYTE)])
    world.stack.settle(60)
    waiting = world.delivery(post_id, account)["status"]

    shoot(world, tmp_path / "two.mp4", 9 * MEGABYTE, take=2)
    world.stack.turn(timedelta(seconds=61))

    delivery = world.delivery(post_id, account)
    assert waiting == "waiting"
    assert (delivery["status"], delivery["errorCode"]) == ("failed", "media_changed")
    assert len(platforms.calls("twitter", "begin upload")) == 1
    assert platforms.posts("twitter") == []
