"""Settings: the environment, read once, with one sentence for everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SECRET_CHARS = 32  # at the least


class SettingsError(Exception):
    """The environment is not usable; the message names each setting and what it takes."""


class Settings(BaseModel):
    """By the names that the environment has. Emulator hosts, where set, replace Google's own."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    project: str = Field(alias="GCP_PROJECT_ID", min_length=1)
    location: str = Field(alias="GCP_LOCATION", default="europe-west1")
    database: str = Field(alias="FIRESTORE_DATABASE", default="(default)")
    default_queue: str = Field(alias="GCP_TASKS_QUEUE", default="default")
    tasks_host: str | None = Field(alias="CLOUD_TASKS_EMULATOR_HOST", default=None)
    webhook_url: str | None = Field(alias="WEBHOOK_URL", default=None)
    webhook_secret: str | None = Field(alias="WEBHOOK_SECRET", default=None)
    webhook_secret_previous: str | None = Field(alias="WEBHOOK_SECRET_PREVIOUS", default=None)
    auth_mode: Literal["oidc", "secret"] = Field(alias="AUTH_MODE", default="oidc")
    signatures: Literal["verified", "removed"] = Field(alias="OIDC_SIGNATURES", default="verified")
    iam_stands_before: bool = Field(alias="IAM_STANDS_BEFORE", default=False)
    certs_url: str = Field(
        alias="OIDC_CERTS_URL", default="https://www.googleapis.com/oauth2/v1/certs"
    )
    tasks_account: str = Field(alias="TASKS_SERVICE_ACCOUNT", default="")
    backend_callers: str = Field(alias="BACKEND_CALLERS", default="")
    scheduler_callers: str = Field(alias="SCHEDULER_CALLERS", default="")
    console_viewers: str = Field(alias="CONSOLE_VIEWERS", default="")
    console_operators: str = Field(alias="CONSOLE_OPERATORS", default="")
    console_admins: str = Field(alias="CONSOLE_ADMINS", default="")
    alert_webhook_url: str | None = Field(alias="ALERT_WEBHOOK_URL", default=None)
    alert_webhook_secret: str | None = Field(alias="ALERT_WEBHOOK_SECRET", default=None)
    token_keys: str = Field(alias="TOKEN_KEYS", default="")
    media_bucket: str | None = Field(alias="MEDIA_BUCKET", default=None)

    bulk_bucket: str | None = Field(alias="BULK_BUCKET", default=None)
    bulk_seconds: float = Field(alias="BULK_SECONDS", default=30, gt=0)

    @model_validator(mode="after")
    def _safe(self) -> Settings:
        for secret in (self.webhook_secret, self.webhook_secret_previous):
            if secret is not None and len(secret) < SECRET_CHARS:
                raise ValueError(f"WEBHOOK_SECRET needs {SECRET_CHARS} characters or more")
        if self.alert_webhook_secret and len(self.alert_webhook_secret) < SECRET_CHARS:
            raise ValueError(f"ALERT_WEBHOOK_SECRET needs {SECRET_CHARS} characters or more")
        if self.auth_mode == "secret" and not self.webhook_secret:
            raise ValueError("AUTH_MODE=secret needs WEBHOOK_SECRET")
        if self.signatures == "removed" and not self.iam_stands_before:
            raise ValueError(
                "OIDC_SIGNATURES=removed needs IAM_STANDS_BEFORE=true: without Cloud Run's IAM "
                "check before it, a function would believe any token"
            )
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """The webhook secrets that are valid now; two during a rotation."""
        return tuple(s for s in (self.webhook_secret, self.webhook_secret_previous) if s)

    def callers(self) -> dict[str, str]:
        """Roles by e-mail; whoever is named twice has the later one."""
        roles = {self.tasks_account: "tasks"} if self.tasks_account else {}
        for role, emails in (
            ("scheduler", self.scheduler_callers),
            ("viewer", self.console_viewers),
            ("operator", self.console_operators),
            ("admin", self.console_admins),
            ("backend", self.backend_callers),
        ):
            roles |= {email.strip(): role for email in emails.split(",") if email.strip()}
        return roles


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings, and what is looked up by a name that code decides."""

    settings: Settings
    variables: Mapping[str, str]

    def url(self, function: str) -> str:
        """A function's address and the audience of its tokens: by one rule of project, region and
        name, so that no function has to be deployed before another one's setting is known."""
        own = self.variables.get(f"WEBHOOK_URL_{function.upper()}")
        if own:
            return own.rstrip("/")
        settings = self.settings
        base = (
            settings.webhook_url
            or f"https://{settings.location}-{settings.project}.cloudfunctions.net"
        )
        return f"{base.rstrip('/')}/{function.replace('_', '-')}"

    def app(self, platform: str, setting: str) -> str | None:
        """A platform's own setting, such as `TWITTER_CLIENT_ID`; None when it is not set."""
        return self.variables.get(f"{platform.upper()}_{setting}") or None


def load(variables: Mapping[str, str] | None = None) -> Environment:
    """Raises `SettingsError`. Empty variables count as not set."""
    given = {k: v for k, v in (variables or os.environ).items() if v != ""}
    try:
        return Environment(Settings.model_validate(given), given)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("; ".join(faults)) from None
