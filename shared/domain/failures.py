"""Every way in which something fails, as a type.

JobError                      raised by jobs and store, answered by `edge`
├── NotFoundError             404
├── ConflictError             409  same key with another payload, or a state that forbids it
├── RefusedError              422  one problem per field or target
├── BadRequestError           400  the body is not what the route takes
└── UnavailableError          503  store or queue did not answer; nothing is half done
PlatformError                 raised by adapters and the driver, caught once by the job
├── PermanentError            refused, and would be again
│   └── DuplicateError        refused because the platform holds this very post already
├── TransientError            not accepted; repeating is safe
│   └── ThrottledError        not accepted, come back later; spends no attempt
├── AuthExpiredError          the token was refused
└── OutcomeUnknownError       the committing call left and no readable answer came
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

MESSAGE_CHARS = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request: where, a stable code, a sentence for a person."""

    field: str
    code: str
    message: str


class JobError(Exception):
    """A request that is answered with an error; `message` says what to do next."""

    def __init__(self, message: str, *, code: str = "error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class NotFoundError(JobError):
    pass


class ConflictError(JobError):
    def __init__(
        self, message: str, *, code: str = "conflict", details: dict[str, object] | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.details = details or {}


class UnavailableError(JobError):
    pass


class RefusedError(JobError):
    """A request that is well formed and cannot be done: every reason at once."""

    def __init__(self, problems: list[Problem], message: str | None = None) -> None:
        super().__init__(message or problems[0].message, code=problems[0].code)
        self.problems = problems


class BadRequestError(RefusedError):
    """A body that is not what the route takes."""


class PlatformError(Exception):
    """A platform's answer, or its absence, that is not a success.

    `code` is stable and ours or the platform's own; `message` is the platform's sentence, capped.
    Neither ever holds a token or the post's text.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        self.message = message[:MESSAGE_CHARS]
        self.code = code
        self.status = status
        self.request_id = request_id
        super().__init__(f"{code}: {self.message}")


class PermanentError(PlatformError):
    """`absent`: this answer also proves that an earlier, unanswered call created nothing."""

    absent = False

    def but_absent(self) -> PermanentError:
        self.absent = True
        return self


class DuplicateError(PermanentError):
    """The platform refuses a copy and names the post that it holds already."""

    def __init__(
        self,
        message: str,
        *,
        remote_id: str,
        remote_url: str | None = None,
        published_at: datetime | None = None,
        code: str = "duplicate",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, request_id=request_id)
        self.remote_id = remote_id
        self.remote_url = remote_url
        self.published_at = published_at


class TransientError(PlatformError):
    pass


class ThrottledError(TransientError):
    """Come back at `until` (an instant, or a wait from now); None when the platform does not say.

    `scope` tells whose limit it is: the account's, or the whole app's on that platform.
    """

    def __init__(
        self,
        message: str,
        *,
        until: datetime | timedelta | None = None,
        scope: Literal["account", "platform"] = "account",
        code: str = "throttled",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, request_id=request_id)
        self.until = until
        self.scope = scope


class AuthExpiredError(PlatformError):
    pass


class OutcomeUnknownError(PlatformError):
    pass
