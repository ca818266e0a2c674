"""Settings that cannot be used are refused in one sentence that names them."""

from __future__ import annotations

import pytest

from shared import config
from shared.config import SettingsError

SECRET = "x" * 32


def load(**settings: str) -> config.Environment:
    return config.load({"GCP_PROJECT_ID": "p1", **settings})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"GCP_PROJECT_ID": ""}, "GCP_PROJECT_ID"),
        ({"WEBHOOK_SECRET": "x" * 31}, "WEBHOOK_SECRET needs 32 characters or more"),
        (
            {"WEBHOOK_SECRET": SECRET, "WEBHOOK_SECRET_PREVIOUS": "short"},
            "WEBHOOK_SECRET needs 32 characters or more",
        ),
        ({"AUTH_MODE": "secret"}, "AUTH_MODE=secret needs WEBHOOK_SECRET"),
        ({"AUTH_MODE": "none"}, "AUTH_MODE"),
        ({"OIDC_SIGNATURES": "removed"}, "OIDC_SIGNATURES=removed needs IAM_STANDS_BEFORE=true"),
        (
            {"OIDC_SIGNATURES": "removed", "IAM_STANDS_BEFORE": "false"},
            "OIDC_SIGNATURES=removed needs IAM_STANDS_BEFORE=true",
        ),
        ({"OIDC_SIGNATURES": "ignored"}, "OIDC_SIGNATURES"),
        ({"IAM_STANDS_BEFORE": "maybe"}, "IAM_STANDS_BEFORE"),
    ],
)
def test_an_environment_that_is_not_safe_is_refused(settings: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(**settings)


def test_what_is_refused_is_never_quoted() -> None:
    with pytest.raises(SettingsError) as refused:
        load(WEBHOOK_SECRET="hunter2", AUTH_MODE="hunter3")

    assert "hunter" not in str(refused.value)


def test_oidc_with_verified_signatures_is_what_holds_by_itself() -> None:
    settings = load().settings

    assert (settings.auth_mode, settings.signatures) == ("oidc", "verified")
    assert settings.secrets == ()


def test_signatures_may_be_removed_where_iam_stands_before() -> None:
    settings = load(OIDC_SIGNATURES="removed", IAM_STANDS_BEFORE="true").settings

    assert settings.signatures == "removed"


def test_two_secrets_are_valid_during_a_rotation() -> None:
    settings = load(WEBHOOK_SECRET=SECRET, WEBHOOK_SECRET_PREVIOUS="y" * 32).settings

    assert settings.secrets == (SECRET, "y" * 32)


def test_an_empty_variable_is_not_set() -> None:
    settings = load(WEBHOOK_SECRET="", AUTH_MODE="").settings

    assert (settings.webhook_secret, settings.auth_mode) == (None, "oidc")


def test_callers_have_the_roles_that_the_settings_give_them() -> None:
    settings = load(
        TASKS_SERVICE_ACCOUNT="t@p1",
        BACKEND_CALLERS="b1@p1, b2@p1,",
        SCHEDULER_CALLERS="s@p1",
    ).settings

    assert settings.callers() == {
        "t@p1": "tasks",
        "s@p1": "scheduler",
        "b1@p1": "backend",
        "b2@p1": "backend",
    }


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "https://europe-west1-p1.cloudfunctions.net/publish-post"),
        ({"GCP_LOCATION": "us-east1"}, "https://us-east1-p1.cloudfunctions.net/publish-post"),
        ({"WEBHOOK_URL": "https://jobs.example/"}, "https://jobs.example/publish-post"),
        (
            {"WEBHOOK_URL": "https://a.example", "WEBHOOK_URL_PUBLISH_POST": "https://b.example/"},
            "https://b.example",
        ),
    ],
)
def test_a_functions_address_follows_one_rule(settings: dict[str, str], url: str) -> None:
    assert load(**settings).url("publish_post") == url
