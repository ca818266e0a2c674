"""What every body has in common, and the publish task's two forms. The backend's requests stand
apart: a publishing function never loads them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)
from pydantic.alias_generators import to_camel

TEXT_CHARS = 100_000


def _document_id(value: str) -> str:
    """What Firestore takes as a document's id."""
    if "/" in value or value in (".", "..") or (value[:2] == "__" == value[-2:]):
        raise ValueError("must not hold a slash, be . or .., or look like __this__")
    return value


Id = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_document_id),
]
Key = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=TEXT_CHARS)]


class Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True
    )

    @field_validator("*", mode="after")
    @classmethod
    def _valid_text(cls, value: Any) -> Any:
        """Half of a surrogate pair is no text: neither Firestore nor a platform would take it."""
        if isinstance(value, str):
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
