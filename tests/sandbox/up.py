"""The whole system until Ctrl-C, to try things by hand: `make up`.

Accounts are connected, two posts lie ahead and a third one has just failed on Instagram, so that
each curl line works as it is printed. What the functions log is told one line an event. A function
that ends by itself is started again, as Cloud Run does; without Firestore there is nothing left.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.sandbox.backend import ACCOUNTS, COMPANY, INSTAGRAM, TWITTER, USER, Backend, asset
from tests.sandbox.program import Program, StoryError
from tests.sandbox.stack import Stack
from tests.sandbox.terminal import Terminal, moment, short

TOKEN_LASTS = timedelta(hours=12)
LOOKS_EVERY_SECONDS = 0.2
# Their own lines say more than that of the request.
QUIET_WHEN_SERVED = ("publish_post", "maintain")


def tell(program: Program) -> int:
    terminal = Terminal()
    log = Log(terminal)
    terminal.note("Starting Firestore, Cloud Tasks, storage, the platforms and our functions …")
    stack = program.start(Stack(on_line=log.hear), watch=False)
    posts = Posts(stack)
    Banner(stack, terminal).show(posts)
    log.open()
    keep_up(stack, terminal)
    return 0


def keep_up(stack: Stack, terminal: Terminal) -> None:
    while stack.emulator.alive:
        for process in stack.everyone:
            if not process.alive:
                terminal.say(f"{process.name} has ended by itself; starting it again.")
                process.start().wait_until_ready()
        time.sleep(LOOKS_EVERY_SECONDS)
    raise StoryError("The Firestore emulator has ended by itself, and every record with it.")


class Posts:
    """What there is from the start."""

    def __init__(self, stack: Stack) -> None:
        backend = Backend(stack)
        for account in ACCOUNTS:
            backend.join(account)
            backend.connect(account)
        picture = backend.picture("terrace.jpg")
        missing = backend.picture("not-uploaded.jpg", uploaded=False)
        self.tomorrow = stack.clock.now().replace(microsecond=0) + timedelta(days=1)
        for_tomorrow = (self.tomorrow, "See you tomorrow.", picture)
        self.to_move = backend.schedule(ACCOUNTS, *for_tomorrow, "to-move")
        self.to_cancel = backend.schedule(ACCOUNTS, *for_tomorrow, "to-cancel")
        soon = stack.clock.now() + timedelta(seconds=1)
        self.failing = backend.schedule([INSTAGRAM], soon, "A picture?", missing, "failing")


class Banner:
    """Addresses, credentials, and what to paste."""

    def __init__(self, stack: Stack, terminal: Terminal) -> None:
        self._stack = stack
        self._terminal = terminal
        self._url = stack.fronts["schedule_post"].url
        self._token = stack.token("schedule_post", expires_in=TOKEN_LASTS)
        self._config = _curl_config(self._token, stack.secret)

    def show(self, posts: Posts) -> None:
        say, title = self._terminal.say, self._terminal.title
        title("Up, until Ctrl-C; nothing is kept")
        for name, front in sorted(self._stack.fronts.items()):
            say(f"  {name:<14} {front.url}")
        say(f"  {'Firestore':<14} {self._stack.emulator.address}, project {self._stack.project}")
        title("The backend's headers for schedule_post")
        until = datetime.now().astimezone() + TOKEN_LASTS
        say(f"  Authorization: Bearer {self._token}")
        say(f"  X-Webhook-Secret: {self._stack.secret}")
        say(f"The token is good until {until:%H:%M}. curl reads both from {self._config}")
        for about, line in self._lines(posts):
            title(about)
            say(line)
        title("Log")

    def _lines(self, posts: Posts) -> list[tuple[str, str]]:
        order = {
            "companyId": COMPANY,
            "userId": USER,
            "content": "Hello from my terminal",
            "mediaAssetIds": ["terrace"],
            "scheduledAt": "@now",
            "idempotencyKey": "post-@id",
            "platforms": [account.target for account in ACCOUNTS],
        }
        later = (posts.tomorrow + timedelta(days=1)).isoformat()
        cancelled = {"companyId": COMPANY, "postId": posts.to_cancel}
        moved = {"companyId": COMPANY, "postId": posts.to_move, "scheduledAt": later}
        again = {**INSTAGRAM.target, "mediaAssetIds": ["terrace"]}
        retried = {"companyId": COMPANY, "postId": posts.failing, **again}
        status = f"/status?companyId={COMPANY}&postId={posts.failing}"
        return [
            ("Connect an account", self._curl("/accounts/connect", TWITTER.connection)),
            ("Register a picture that lies in the bucket", self._curl("/media", asset("terrace"))),
            ("Schedule a post, due at once", self._curl("/schedule", order)),
            ("The status of a post that Instagram has just refused", self._curl(status)),
            ("Retry it with a picture that is there", self._curl("/retry", retried)),
            ("Reschedule one of tomorrow's posts", self._curl("/reschedule", moved)),
            ("Cancel the other one", self._curl("/cancel", cancelled)),
        ]

    def _curl(self, path: str, body: Mapping[str, Any] | None = None) -> str:
        """Good for sh, bash and zsh. `@now` and `@id` are filled in when the line is run."""
        line = f"curl -K '{self._config}' '{self._url}{path}'"
        if body is None:
            return line
        text = json.dumps(body, separators=(",", ":"))
        text = text.replace("@now", "'$(date -u +%Y-%m-%dT%H:%M:%SZ)'")
        return f"{line} -d '{text.replace('@id', chr(39) + '$(date +%s)' + chr(39))}'"


def _curl_config(token: str, secret: str) -> Path:
    """A file for `curl -K`, readable by its owner alone."""
    file = Path(tempfile.gettempdir()) / "backend.curl"
    headers = (f"Authorization: Bearer {token}", f"X-Webhook-Secret: {secret}")
    lines = [f'header = "{header}"' for header in (*headers, "Content-Type: application/json")]
    lines += ["silent", "show-error", 'write-out = "\\n"']
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as out:
        out.write("\n".join(lines) + "\n")
    return file


class Log:
    """The functions' log lines for a person: time, function, event, ids, outcome."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._open = False

    def open(self) -> None:
        self._open = True

    def hear(self, function: str, line: Mapping[str, Any]) -> None:
        event = str(line.get("event"))
        served = event == "request.served" and line["httpStatus"] < 400
        if not self._open or (served and function in QUIET_WHEN_SERVED):
            return
        paint = self._terminal.paint
        at = paint(moment(datetime.now().astimezone()), "dim")
        words = paint(_outcome(event, line), _style(line))
        self._terminal.say(f"{at}  {function:<13}  {event:<21}  {_ids(line):<32}  {words}")
        for traced in str(line.get("stack_trace", "")).splitlines():
            self._terminal.say(f"    {traced}")


def _ids(line: Mapping[str, Any]) -> str:
    ids = [short(str(line["postId"]))] if "postId" in line else []
    ids += [str(line[name]) for name in ("accountId", "mediaAssetId") if name in line]
    return "  ".join(ids)


def _style(line: Mapping[str, Any]) -> str:
    if line.get("status") == "success":
        return "green"
    return {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}.get(str(line["severity"]), "")


def _outcome(event: str, line: Mapping[str, Any]) -> str:
    if event == "output" or event.startswith("request."):
        took = f"in {line['durationMs']} ms" if "durationMs" in line else ""
        return " ".join(filter(None, (str(line["message"]), took, line.get("code"))))
    if event == "publish.begun":
        return f"attempt {line['attempt']}, {line['latenessMs']} ms after its time"
    known = ("status", "action", "code", "remoteUrl", "nextRetryAt", "dueAt")
    words = [str(line[name]) for name in known if line.get(name) is not None]
    counts = ("woken", "ended", "finished", "skipped", "promoted", "failed", "deliveries")
    words += [f"{line[name]} {name}" for name in counts if isinstance(line.get(name), int)]
    said = str(line.get("message", ""))
    return " ".join(words) or (said if said != event else "")
