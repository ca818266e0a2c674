"""What `make cost` says, against what is deployed and what the README quotes."""

from __future__ import annotations

import re
from datetime import date

import pytest

from tests.sandbox.stack import ROOT, TOPOLOGY
from tools import cost


def test_the_readme_quotes_what_the_command_says() -> None:
    readme = (ROOT / "README.md").read_text()

    quoted = re.search(r"```text\n(USD by list prices.*?)\n```", readme, re.DOTALL)

    assert quoted is not None
    assert quoted[1] == cost.told()


def test_every_schedule_has_its_story_and_every_price_its_source_and_date() -> None:
    stories = cost.read("operations.json")["stories"]
    prices = cost.read("prices.json")["prices"]

    assert {name for name in stories if name.startswith("idle ")} == {
        f"idle {name}" for name in TOPOLOGY["schedules"]
    }
    for price in prices.values():
        assert price["source"].startswith("https://cloud.google.com/")
        assert date.fromisoformat(price["read"])


@pytest.mark.parametrize(
    ("cron", "times"), [("* * * * *", 43_200), ("0 */6 * * *", 120), ("20 0-3 * * *", 120)]
)
def test_a_schedule_fires_as_often_as_its_cron_says(cron: str, times: int) -> None:
    assert cost.slots(cron) == times


def test_what_a_month_has_free_is_not_to_be_paid() -> None:
    [within, beyond] = cost.lines({"schedulerJobs": 3, "secretVersions": 8})

    assert (within.listed, within.left) == (pytest.approx(0.3), 0)
    assert (beyond.listed, beyond.left) == (pytest.approx(0.48), pytest.approx(0.12))
