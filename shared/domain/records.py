"""The two bases of all that is kept: camelCase outside, frozen, aware instants only."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

SCHEMA_VERSION = 1

Instant = AwareDatetime


class Value(BaseModel):
    """A part of a record. Fields that a newer release has written are let pass unread."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        defer_build=True,
    )

    def document(self) -> dict[str, Any]:
        """As Firestore keeps it: camelCase names, instants as timestamps."""
        return self.model_dump(by_alias=True, mode="python")


class Record(Value):
    """A whole document."""

    schema_version: int = SCHEMA_VERSION
