"""What the product's backend does in tests: connect accounts, schedule posts, look at them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx

from shared.store.documents import Batch
from tests.sandbox.stack import BUCKET, Stack

COMPANY = "acme"
COMMIT_RECORDS = 400
# A 1x1 JPEG's worth of bytes; what matters is that it is fetched and counted, not how it looks.
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb004300" + "08" * 64 + "ffd9")


@dataclass(frozen=True)
class Account:
    """A connected account; `id` is the product's, `user_id` the platform's."""

    id: str
    platform: str
    user_id: str
    access_token: str
    refresh_token: str

    @property
    def target(self) -> dict[str, Any]:
        return {"platform": self.platform, "accountId": self.id}


class World:
    """The backend's side of one test's world."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._numbers = itertools.count(1)

    # accounts and media

    def account(self, platform: str, *, user_id: str | None = None, **more: Any) -> Account:
        """Known to the platform, and connected."""
        number = next(self._numbers)
        account = Account(
            id=f"{platform}-{number}",
            platform=platform,
            user_id=user_id or self.stack.platforms.dialect(platform).user_id.format(number),
            access_token=f"{platform}-access-{number}",
            refresh_token=f"{platform}-refresh-{number}",
        )
        self.stack.platforms.add_account(
            platform, account.user_id, account.access_token, account.refresh_token
        )
        answer = self.connect(account, **more)
        assert answer.status_code == 200, answer.text
        return account

    def connect(self, account: Account, **more: Any) -> httpx.Response:
        body = {
            "companyId": COMPANY,
            "accountId": account.id,
            "platform": account.platform,
            "platformUserId": account.user_id,
            "accessToken": account.access_token,
            "refreshToken": account.refresh_token,
        }
        return self.call("/accounts/connect", {**body, **more})

    def image(self, name: str = "picture.jpg", **more: Any) -> str:
        """A JPEG in the bucket, registered; its asset id."""
        asset_id = f"asset-{next(self._numbers)}"
        self.stack.storage.put(BUCKET, name, JPEG, "image/jpeg")
        self.media(asset_id, f"gs://{BUCKET}/{name}", **more)
        return asset_id

    def missing_image(self) -> str:
        """An asset whose object is not in the bucket."""
        asset_id = f"asset-{next(self._numbers)}"
        self.media(asset_id, f"gs://{BUCKET}/{asset_id}-is-not-there.jpg")
        return asset_id

    def media(self, asset_id: str, uri: str, **more: Any) -> None:
        body = {
            "companyId": COMPANY,
            "mediaAssetId": asset_id,
            "uri": uri,
            "contentType": "image/jpeg",
            "sizeBytes": len(JPEG),
        }
        answer = self.call("/media", body | more)
        assert answer.status_code == 200, answer.text

    # posts

    def call(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """A change through `schedule_post`, as the backend."""
        return self.stack.post("schedule_post", path, body)

    def order(
        self,
        accounts: Sequence[Account],
        *,
        after: timedelta | datetime = timedelta(0),
        **more: Any,
    ) -> dict[str, Any]:
        """The body of a schedule request, due `after` now on the sandbox's clock."""
        at = after if isinstance(after, datetime) else self.stack.clock.now() + after
        return {
            "companyId": COMPANY,
            "userId": "user-1",
            "content": "Hello from Acme",
            "scheduledAt": at.isoformat(),
            "idempotencyKey": f"key-{next(self._numbers)}",
            "platforms": [account.target for account in accounts],
            **more,
        }

    def schedule(self, *accounts: Account, **more: Any) -> str:
        """Schedule a post that is accepted; its id."""
        answer = self.call("/schedule", self.order(accounts, **more))
        assert answer.status_code == 201, answer.text
        post_id: str = answer.json()["postId"]
        return post_id

    def status(self, post_id: str) -> dict[str, Any]:
        answer = self.stack.get("schedule_post", "/status", companyId=COMPANY, postId=post_id)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def delivery(self, post_id: str, account: Account) -> dict[str, Any]:
        """One delivery as the status route shows it."""
        shown = self.status(post_id)["deliveries"]
        return next(one for one in shown if one["accountId"] == account.id)

    def command(self, path: str, post_id: str, **more: Any) -> httpx.Response:
        return self.call(path, {"companyId": COMPANY, "postId": post_id, **more})

    def retry(self, post_id: str, account: Account, **more: Any) -> httpx.Response:
        return self.command("/retry", post_id, **account.target, **more)

    # records as they lie, many at once

    def put(self, collection: str, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Have these stand there whole, by their ids, past the function that would write them."""
        db, known = self.stack.db, list(records.items())
        for begin in range(0, len(known), COMMIT_RECORDS):
            batch = Batch(db)
            for name, record in known[begin : begin + COMMIT_RECORDS]:
                batch.add(db.document(collection, name), record, create=False)
            batch.commit()

    # time and tasks

    def run_until(
        self, true: Callable[[], bool], *, step: timedelta = timedelta(seconds=30), turns: int = 40
    ) -> None:
        """Turn the clock step by step until it comes true."""
        for _ in range(turns):
            self.stack.settle()
            if true():
                return
            self.stack.clock.turn(step)
        raise AssertionError(f"not true after {turns} turns of {step}")

    def sweep(self) -> dict[str, Any]:
        return self._maintain("/sweep")

    def promote(self) -> dict[str, Any]:
        return self._maintain("/promote")

    def refresh(self) -> dict[str, Any]:
        return self._maintain("/refresh")

    def _maintain(self, path: str) -> dict[str, Any]:
        answer = self.stack.post("maintain", path, {}, role="scheduler")
        assert answer.status_code == 200, answer.text
        done: dict[str, Any] = answer.json()
        return done

    def task(self, post_id: str, account: Account, **more: Any) -> dict[str, Any]:
        """The body of a publish task for a delivery, as Cloud Tasks would bring it."""
        return {
            "scheduledPostId": post_id,
            "platform": account.platform,
            "accountId": account.id,
            "idempotencyKey": f"publish-{post_id}-{account.platform}",
            **more,
        }

    def deliver(self, post_id: str, account: Account, **more: Any) -> httpx.Response:
        """Bring a publish task by hand, past the queue."""
        return self.stack.post(
            "publish_post", "/", self.task(post_id, account, **more), role="tasks"
        )

    def letters(self, **where: Any) -> list[dict[str, Any]]:
        """The dead letters with these fields."""
        return [
            letter
            for letter in self.stack.records("deadLetters").values()
            if all(letter.get(name) == value for name, value in where.items())
        ]
