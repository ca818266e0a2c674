import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from google.auth import exceptions, jwt
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from tests.sandbox.identity import Issuer, account_id, remove_signature

TASKS = "tasks@demo.iam.gserviceaccount.com"
AUDIENCE = "https://publish-post.example"


@pytest.fixture(scope="module")
def shared_issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(shared_issuer: Issuer) -> Iterator[Issuer]:
    yield shared_issuer
    shared_issuer.certs_down = False


def verify(issuer: Issuer, token: str, audience: str = AUDIENCE) -> dict[str, Any]:
    return dict(id_token.verify_token(token, Request(), audience, certs_url=issuer.certs_url))


def test_a_token_carries_the_claims_of_a_google_service_account(issuer: Issuer):
    claims = verify(issuer, issuer.token(TASKS, AUDIENCE))

    assert claims["iss"] == "https://accounts.google.com"
    assert claims["aud"] == AUDIENCE
    assert claims["email"] == TASKS
    assert claims["email_verified"] is True
    assert claims["sub"] == claims["azp"] == account_id(TASKS)
    assert claims["sub"].isdigit()
    assert len(claims["sub"]) == 21
    assert claims["exp"] - claims["iat"] == 3600


def test_the_header_names_a_published_key(issuer: Issuer):
    header = jwt.decode_header(issuer.token(TASKS, AUDIENCE))

    assert header["alg"] == "RS256"
    assert header["kid"] in issuer.certificates()


def test_the_certificates_may_be_cached_for_an_hour(issuer: Issuer):
    reply = httpx.get(issuer.certs_url)

    assert reply.json() == issuer.certificates()
    assert reply.headers["cache-control"] == "public, max-age=3600"
    assert all(pem.startswith("-----BEGIN CERTIFICATE-----") for pem in reply.json().values())


def test_every_fetch_of_the_certificates_is_counted(issuer: Issuer):
    before = issuer.fetches
    token = issuer.token(TASKS, AUDIENCE)

    verify(issuer, token)
    verify(issuer, token)

    assert issuer.fetches == before + 2


def test_after_a_rotation_old_and_new_tokens_are_good(issuer: Issuer):
    old = issuer.token(TASKS, AUDIENCE)

    new_key = issuer.rotate()
    new = issuer.token(TASKS, AUDIENCE)

    assert jwt.decode_header(new)["kid"] == new_key != jwt.decode_header(old)["kid"]
    assert verify(issuer, old)["email"] == verify(issuer, new)["email"] == TASKS


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"forged": True}, exceptions.MalformedError),
        ({"expires_in": timedelta(minutes=-5)}, exceptions.InvalidValue),
        ({"issued_at": datetime.now(UTC) + timedelta(hours=1)}, exceptions.InvalidValue),
        ({"audience": "https://elsewhere.example"}, exceptions.InvalidValue),
    ],
)
def test_a_wrong_token_is_refused_by_googles_verifier(issuer: Issuer, wrong: dict, error: type):
    token = issuer.token(**({"email": TASKS, "audience": AUDIENCE} | wrong))

    with pytest.raises(error):
        verify(issuer, token)


def test_another_issuer_is_refused_where_the_issuer_is_checked(issuer: Issuer, monkeypatch: Any):
    monkeypatch.setattr(id_token, "_GOOGLE_OAUTH2_CERTS_URL", issuer.certs_url)
    token = issuer.token(TASKS, AUDIENCE, issuer="https://issuer.example")

    with pytest.raises(exceptions.GoogleAuthError, match="Wrong issuer"):
        id_token.verify_oauth2_token(token, Request(), AUDIENCE)


def test_a_removed_signature_leaves_the_claims_readable(issuer: Issuer):
    token = remove_signature(issuer.token(TASKS, AUDIENCE))

    assert token.endswith(".SIGNATURE_REMOVED_BY_GOOGLE")
    with pytest.raises(exceptions.MalformedError):
        verify(issuer, token)


def test_claims_can_be_added_changed_and_left_out(issuer: Issuer):
    token = issuer.token(TASKS, AUDIENCE, email_verified=False, hd="example.com", azp=None)

    claims = verify(issuer, token)

    assert claims["email_verified"] is False
    assert claims["hd"] == "example.com"
    assert "azp" not in claims


def test_the_key_server_can_be_down(issuer: Issuer):
    issuer.certs_down = True

    with pytest.raises(exceptions.TransportError):
        verify(issuer, issuer.token(TASKS, AUDIENCE))


def test_nothing_stays_after_a_stop():
    before = set(threading.enumerate())
    issuer = Issuer().start()
    url = issuer.certs_url

    issuer.stop()

    assert set(threading.enumerate()) <= before
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
