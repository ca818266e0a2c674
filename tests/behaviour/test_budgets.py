"""What a post costs at the wire does not grow with what has been posted before. `make bench` shows
the same at 100,000 records; what one delivery costs stands in `test_once_only.py`."""

from __future__ import annotations

from datetime import timedelta

from tests.sandbox.bench import counted, deliver, grow
from tests.sandbox.firestore_proxy import Counts
from tests.world import World


def test_scheduling_to_three_costs_two_round_trips_and_a_task_for_each(world: World) -> None:
    accounts = [world.account("twitter"), world.account("linkedin"), world.account("twitter")]

    spent = counted(
        world.stack, "schedule_post", lambda: world.schedule(*accounts, after=timedelta(hours=1))
    )

    assert dict(spent.calls) == {"BatchGetDocuments": 1, "Commit": 1}
    assert len(world.stack.tasks.tasks("publish-twitter")) == 2
    assert len(world.stack.tasks.tasks("publish-linkedin")) == 1


def test_a_post_costs_the_same_when_history_has_grown_a_hundredfold(world: World) -> None:
    world.schedule(world.account("linkedin"), after=timedelta(days=1))

    costs = []
    for records in (30, 3000):
        grow(world.stack, records)
        costs.append(what_one_post_costs(world, f"Among {records}"))

    assert costs[0] == costs[1]
    scheduling, publishing, again = costs[0]
    assert (scheduling.documents_read, scheduling.documents_written) == (2, 3)
    assert (publishing.documents_read, publishing.documents_written) == (4, 5)
    assert (again.documents_read, again.documents_written) == (3, 0)


def what_one_post_costs(world: World, content: str) -> tuple[Counts, Counts, Counts]:
    """To schedule, to publish to its one account, and to be told of that again."""
    account = world.account("linkedin")
    world.stack.tasks.faults.lose_task()
    posts: list[str] = []
    return (
        counted(
            world.stack,
            "schedule_post",
            lambda: posts.append(world.schedule(account, content=content)),
        ),
        counted(world.stack, "publish_post", lambda: deliver(world, posts[0], account)),
        counted(world.stack, "publish_post", lambda: deliver(world, posts[0], account)),
    )
