"""What every body has in common, and the publish task's two forms. The backend's requests stand
apart: a publishing function never loads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)
from pydantic.alias_generators import to_camel

from shared.domain import keys

TEXT_CHARS = 100_000
OPTION_LEVELS = 10
LARGEST = 2**63 - 1  # Firestore's integers


def _document_id(value: str) -> str:
    """What Firestore takes as a document's id."""
    if not keys.is_document_id(value):
        raise ValueError("must not hold a slash, be . or .., or look like __this__")
    return value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """No platform nests its options deeper; Firestore takes twenty levels, Python some hundreds."""
    level: list[Any] = [value]
    for _ in range(OPTION_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"is nested deeper than {OPTION_LEVELS} levels")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Id = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_document_id),
]
Options = Annotated[dict[str, Any], AfterValidator(_shallow)]
Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=TEXT_CHARS)]


class Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True
    )

    @property
    def fingerprint(self) -> str:
        """Equal for requests that ask for the same, however they are written. A field that a newer
        release knows changes nothing for those who do not use it."""
        return keys.fingerprint(self.model_dump(mode="json", exclude_defaults=True))

    @field_validator("*", mode="after")
    @classmethod
    def _valid_text(cls, value: Any) -> Any:
        """Half of a surrogate pair is no text, and NUL stands in none: neither Firestore nor a
        platform would take the one, and nobody means the other."""
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError("holds a NUL character")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("is not valid Unicode text") from None
        return value


class DeliveryTask(Body):
    """One delivery. `content` and `mediaAssetIds` are accepted and not trusted: the stored
    delivery is the truth."""

    scheduled_post_id: Id
    platform: Id
    account_id: Id
    generation: int | None = Field(default=None, ge=1)
    idempotency_key: Key
    content: Text | None = None
    media_asset_ids: tuple[Id, ...] | None = None


class PostTask(Body):
    """A whole post, fanned out into its deliveries."""

    post_id: Id
    idempotency_key: Key


class Nothing(Body):
    """A scheduled call: its body says nothing that matters."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)
