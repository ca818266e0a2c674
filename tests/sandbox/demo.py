"""One post's journey to three platforms, on this machine and told as it happens: `make demo`.

A post is scheduled a few seconds ahead. Cloud Tasks calls `publish_post` three times: LinkedIn and
X take it; Instagram refuses its picture, which was never uploaded. That delivery is retried alone
with another picture. Then the records, as they lie in Firestore. Real time, real HTTP, nothing but
loopback; whatever is not as it is told ends the demo with one sentence and exit code 1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tests.sandbox.backend import ACCOUNTS, INSTAGRAM, LABELS, Backend
from tests.sandbox.program import Program, StoryError
from tests.sandbox.stack import Stack, only
from tests.sandbox.terminal import Terminal, listed, moment, short

PLAYING = ("schedule_post", "publish_post")
AHEAD = timedelta(seconds=4)
PATIENCE_SECONDS = 20.0
TEXT = "Summer hours from Monday: open until nine."


def tell(program: Program) -> int:
    terminal = Terminal()
    terminal.title("One post to LinkedIn, X and Instagram")
    terminal.say("Our functions as deployed; Google's services and the platforms stand in.")
    terminal.note("Starting Firestore, Cloud Tasks, storage, the platforms and our functions …")
    started = time.monotonic()
    news = News(terminal)
    stack = program.start(Stack(instances=only(PLAYING), schedules=False, on_line=news.hear))
    seconds = time.monotonic() - started
    terminal.say(f"Firestore, Cloud Tasks, storage, {listed(PLAYING)}: up in {seconds:.1f} s.")
    Demo(stack, terminal, news).tell()
    return 0


class News:
    """What the functions' log lines say of the deliveries, printed as it comes."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.settled: list[Mapping[str, Any]] = []

    def hear(self, function: str, line: Mapping[str, Any]) -> None:
        match line.get("event"):
            case "publish.begun":
                attempt = f"attempt {line['attempt']}"
                if line["generation"] > 1:
                    attempt += f" of generation {line['generation']}"
                late = f"{line['latenessMs']} ms after its time"
                self._tell(line, "dim", f"{attempt} begins, {late}")
            case "publish.settled":
                self._tell(line, _style(str(line["status"])), _outcome(line))
                self.settled.append(line)
            case "request.failed":
                self._terminal.say(f"  {function}: {line.get('message')}")

    def _tell(self, line: Mapping[str, Any], style: str, words: str) -> None:
        at = self._terminal.paint(moment(datetime.now().astimezone()), "dim")
        label = f"{LABELS[line['platform']]:<9}"
        self._terminal.say(f"  {at}  {label}  {self._terminal.paint(words, style)}")


def _outcome(line: Mapping[str, Any]) -> str:
    if line["status"] == "success":
        return f"published in {line['durationMs']} ms: {line['remoteUrl']}"
    word = "refused for good" if line["status"] == "failed" else line["status"]
    return f"{word}: {line.get('code')}"


def _style(status: str) -> str:
    return {"success": "green", "failed": "red"}.get(status, "yellow")


class Demo:
    """The story, and what must hold for it to be true."""

    def __init__(self, stack: Stack, terminal: Terminal, news: News) -> None:
        self._stack = stack
        self._terminal = terminal
        self._news = news
        self._backend = Backend(stack)

    def tell(self) -> None:
        self._terminal.title("The backend connects its accounts and schedules a post")
        self._connect()
        post_id = self._schedule()

        self._terminal.title("Cloud Tasks calls publish_post, once for each delivery")
        self._wait(3)
        self._check_calls(3)
        self._check_status(post_id, "2 of 3 platforms published")
        self._check_posts(linkedin=1, twitter=1, instagram=0)

        self._terminal.title("Instagram alone is retried, with a picture that is there")
        self._backend.retry(post_id, INSTAGRAM, self._backend.picture("garden.jpg"))
        self._wait(4)
        self._check_calls(4)
        self._check_status(post_id, "3 of 3 platforms published")
        self._check_posts(linkedin=1, twitter=1, instagram=1)

        self._terminal.title("What lies in Firestore now")
        self._show_records(post_id)
        self._terminal.say()
        self._terminal.say("One post each, as told. `make up` keeps all this running for your own.")

    def _connect(self) -> None:
        for account in ACCOUNTS:
            self._backend.join(account)
            self._backend.connect(account)
        names = listed(account.id for account in ACCOUNTS)
        self._terminal.say(f"  connected  {names}")

    def _schedule(self) -> str:
        """All get one picture; then Instagram another one, registered but never uploaded."""
        picture = self._backend.picture("terrace.jpg")
        square = self._backend.picture("terrace-square.jpg", uploaded=False)
        due = self._stack.clock.now() + AHEAD
        post_id = self._backend.schedule(ACCOUNTS, due, TEXT, picture, "summer-hours")
        self._terminal.say(f'  scheduled  "{TEXT}" with {picture}.jpg')
        self._terminal.say(
            f"             post {short(post_id)} to {len(ACCOUNTS)} accounts, due {moment(due)}, "
            f"in {AHEAD.seconds} s"
        )
        self._backend.edit(post_id, INSTAGRAM, square)
        self._terminal.say(f"  edited     Instagram gets {square}.jpg, which nobody uploaded")
        return post_id

    def _wait(self, deliveries: int) -> None:
        patience = AHEAD.total_seconds() + PATIENCE_SECONDS
        end = time.monotonic() + patience
        while len(self._news.settled) < deliveries:
            if time.monotonic() > end:
                told = f"{len(self._news.settled)} of {deliveries} attempts have settled"
                raise StoryError(f"{told} after {patience:.0f} s.")
            time.sleep(0.02)
        self._stack.settle()

    def _check_calls(self, calls: int) -> None:
        answers = [attempt.status for attempt in self._stack.tasks.attempts]
        if answers != [200] * calls:
            raise StoryError(f"Cloud Tasks was to be answered 200 {calls} times, not {answers}.")

    def _check_status(self, post_id: str, sentence: str) -> None:
        shown = self._backend.status(post_id)
        self._terminal.say(f"  status        {self._terminal.paint(shown['message'], 'bold')}")
        if shown["errorMessage"]:
            platform, _, reason = shown["errorMessage"].partition(": ")
            self._terminal.say(f"                {LABELS[platform]} says: {reason}")
        if shown["message"] != sentence:
            raise StoryError(f"The status was to say {sentence!r}, not {shown['message']!r}.")

    def _check_posts(self, **wanted: int) -> None:
        there = {name: len(self._stack.platforms.posts(name)) for name in wanted}
        if there != wanted:
            raise StoryError(f"The platforms were to hold {wanted} posts, not {there}.")

    def _show_records(self, post_id: str) -> None:
        posts = self._show("scheduledPosts", "status", "open", "scheduledAt", "latestAt")
        logs = self._show(
            "publishLogs",
            "platform",
            "status",
            "attempts",
            "generation",
            "fencingToken",
            "remoteId",
        )
        letters = self._show("deadLetters", "platform", "generation", "reason", "status")
        accounts = self._show("socialAccounts", "platform", "status", "sealedToken")

        remote_ids = {log["platform"]: log["remoteId"] for log in logs.values()}
        on_platforms = {post.platform: post.id for post in self._stack.platforms.posts()}
        tokens = [account.access_token for account in ACCOUNTS]
        told = {
            "the post is published": posts[post_id]["status"] == "published",
            "each delivery has its platform's id": remote_ids == on_platforms,
            "its one dead letter was redriven": [
                letter["status"] for letter in letters.values()
            ] == ["redriven"],
            "tokens are sealed": not any(token in str(accounts) for token in tokens),
        }  # fmt: skip
        for what, holds in told.items():
            if not holds:
                raise StoryError(f"The records were to show that {what}, and do not.")

    def _show(self, collection: str, *fields: str) -> dict[str, dict[str, Any]]:
        """The telling fields of each record."""
        records = self._stack.records(collection)
        self._terminal.say()
        self._terminal.say(f"  {self._terminal.paint(collection, 'bold')}")
        rows = [
            {"id": short(name, 14), **{field: _shown(record[field]) for field in fields}}
            for name, record in sorted(records.items())
        ]
        self._terminal.table(rows)
        return records


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone().strftime("%d %b %H:%M:%S")
    if isinstance(value, list):
        return ", ".join(attempt["outcome"] for attempt in value)
    text = str(value)
    return f"{text[:12]}… (sealed, {len(text)} characters)" if text.startswith("k1.") else text
