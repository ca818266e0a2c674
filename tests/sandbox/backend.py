"""The product's backend, as `demo` and `up` play it: one company with an account on each platform.

The accounts exist on the platforms from the start; connecting them is the backend's call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from tests.sandbox.program import StoryError
from tests.sandbox.stack import BUCKET, Stack

COMPANY, USER = "acme", "user-1"
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb004300" + "08" * 64 + "ffd9")
LABELS = {"linkedin": "LinkedIn", "twitter": "X", "instagram": "Instagram"}


@dataclass(frozen=True)
class Account:
    """`id` is the product's, `user_id` the platform's."""

    platform: str
    id: str
    user_id: str
    access_token: str
    refresh_token: str

    @property
    def target(self) -> dict[str, str]:
        return {"platform": self.platform, "accountId": self.id}

    @property
    def connection(self) -> dict[str, str]:
        return {
            "companyId": COMPANY,
            "accountId": self.id,
            "platform": self.platform,
            "platformUserId": self.user_id,
            "accessToken": self.access_token,
            "refreshToken": self.refresh_token,
        }


ACCOUNTS = (
    Account("linkedin", "acme-linkedin", "urn:li:organization:2414183", "li-access", "li-refresh"),
    Account("twitter", "acme-x", "1467825923", "x-access", "x-refresh"),
    Account("instagram", "acme-instagram", "17841400000000001", "ig-access", "ig-refresh"),
)
LINKEDIN, TWITTER, INSTAGRAM = ACCOUNTS


class Backend:
    """Calls `schedule_post` as the backend's service account; what is refused is a `StoryError`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def join(self, account: Account) -> None:
        """An account on the platform, with its tokens."""
        self._stack.platforms.add_account(
            account.platform, account.user_id, account.access_token, account.refresh_token
        )

    def connect(self, account: Account) -> None:
        self.call("/accounts/connect", account.connection)

    def picture(self, name: str, *, uploaded: bool = True) -> str:
        """A JPEG registered as a media asset; its id. Not `uploaded`: the bucket lacks it."""
        if uploaded:
            self._stack.storage.put(BUCKET, name, JPEG, "image/jpeg")
        asset_id = name.removesuffix(".jpg")
        self.call("/media", asset(asset_id))
        return asset_id

    def schedule(
        self, accounts: Sequence[Account], at: datetime, content: str, media: str, key: str
    ) -> str:
        """The post's id."""
        order = {
            "companyId": COMPANY,
            "userId": USER,
            "content": content,
            "mediaAssetIds": [media],
            "scheduledAt": at.isoformat(),
            "idempotencyKey": key,
            "platforms": [account.target for account in accounts],
        }
        return str(self.call("/schedule", order)["postId"])

    def edit(self, post_id: str, account: Account, media: str) -> None:
        """Other media for this account's delivery alone."""
        wanted = {"deliveries": [account.target], "mediaAssetIds": [media]}
        self.call("/edit", {"companyId": COMPANY, "postId": post_id, **wanted})

    def retry(self, post_id: str, account: Account, media: str) -> None:
        wanted = {**account.target, "mediaAssetIds": [media]}
        self.call("/retry", {"companyId": COMPANY, "postId": post_id, **wanted})

    def status(self, post_id: str) -> dict[str, Any]:
        query = {"companyId": COMPANY, "postId": post_id}
        return self._read("/status", self._stack.get("schedule_post", "/status", **query))

    def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._read(path, self._stack.post("schedule_post", path, body))

    def _read(self, path: str, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise StoryError(f"schedule_post{path} answered {answer.status_code}: {answer.text}")
        told: dict[str, Any] = answer.json()
        return told


def asset(asset_id: str) -> dict[str, Any]:
    """The registration of `<asset id>.jpg` in the product's bucket."""
    return {
        "companyId": COMPANY,
        "mediaAssetId": asset_id,
        "uri": f"gs://{BUCKET}/{asset_id}.jpg",
        "contentType": "image/jpeg",
        "sizeBytes": len(JPEG),
    }
