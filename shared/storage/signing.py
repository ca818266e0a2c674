"""Who signs URLs: a key file's own key, or IAM where the function runs without one."""

from __future__ import annotations

import functools
from typing import Any

SIGN_SECONDS = 5.0


def signing_credentials() -> Any:
    """A key file's own key, or IAM's signature where the function runs without one: that costs a
    round trip per URL, and `roles/iam.serviceAccountTokenCreator` for the account on itself."""
    import google.auth
    import google.auth.credentials
    import google.auth.iam
    import google.auth.transport.requests
    from google.oauth2 import service_account

    found: Any
    found, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    if isinstance(found, google.auth.credentials.Signing):
        return found
    request = google.auth.transport.requests.Request()
    found.refresh(request)  # its e-mail is only "default" before
    email = found.service_account_email
    signer = google.auth.iam.Signer(functools.partial(request, timeout=SIGN_SECONDS), found, email)
    return service_account.Credentials(
        signer=signer, service_account_email=email, token_uri="https://oauth2.googleapis.com/token"
    )
