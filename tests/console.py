"""What an operator does in tests: look, act, and read the audit log."""

from __future__ import annotations

from typing import Any

import httpx

from tests.sandbox.stack import Stack
from tests.world import Account, World


class Console:
    def __init__(self, world: World) -> None:
        self.world = world
        self.stack: Stack = world.stack

    def look(self, path: str, role: str = "viewer", **query: Any) -> dict[str, Any]:
        answer = self.stack.get("console", path, role, **query)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def act(self, path: str, body: dict[str, Any], role: str = "operator") -> httpx.Response:
        return self.stack.post("console", path, body, role=role)

    def done(self, path: str, body: dict[str, Any], role: str = "operator") -> dict[str, Any]:
        answer = self.act(path, body, role)
        assert answer.status_code in (200, 202), answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def audit(self, *fields: str) -> list[tuple[Any, ...]]:
        """These fields of each entry, in the order of what was done."""
        entries = sorted(self.stack.records("auditLog").values(), key=lambda entry: entry["at"])
        return [tuple(entry.get(name) for name in fields) for entry in entries]

    # what goes wrong

    def refused(self, *accounts: Account, **more: Any) -> str:
        """A post that its platforms refuse for good: a dead letter for each account."""
        for account in accounts:
            self._spoil(account)
        post_id = self.world.schedule(*accounts, **more)
        self.stack.settle()
        return post_id

    def _spoil(self, account: Account) -> None:
        self.stack.platforms.misbehave(
            account.platform,
            "create post",
            "refuse",
            times=1,
            status=403,
            body={"detail": "You are not permitted to perform this action.", "status": 403},
            when=lambda received: received.token == account.access_token,
        )

    def letter_of(self, post_id: str, account: Account) -> str:
        """The id of a delivery's dead letter."""
        found = [
            name
            for name, letter in self.stack.records("deadLetters").items()
            if (letter["postId"], letter["accountId"]) == (post_id, account.id)
        ]
        assert len(found) == 1, found
        return found[0]

    def unknown(self, account: Account, kind: Any = "error_before") -> str:
        """A post whose outcome nobody knows."""
        self.stack.platforms.misbehave(account.platform, "create post", kind, status=502)
        post_id = self.world.schedule(account)
        self.stack.settle()
        return post_id
