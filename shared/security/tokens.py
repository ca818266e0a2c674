"""Platform tokens, sealed at rest: AES-256-GCM under a key from Secret Manager.

A sealed token is bound to its account: moved to another one it does not open. Several keys may be
given while a key is rotated; the first seals, all open.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.domain.accounts import Tokens

NONCE_BYTES = 12


class UnsealError(Exception):
    """No key that we have opens it: `TOKEN_KEYS` lacks the one it was sealed with."""


class Vault:
    def __init__(self, keys: dict[str, bytes]) -> None:
        """`keys` by id, 32 bytes each, the sealing one first."""
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._sealing = next(iter(keys))

    def seal(self, tokens: Tokens, account_id: str) -> str:
        plain = json.dumps(
            {
                "accessToken": tokens.access_token,
                "refreshToken": tokens.refresh_token,
                "expiresAt": tokens.expires_at.isoformat() if tokens.expires_at else None,
            }
        )
        nonce = secrets.token_bytes(NONCE_BYTES)
        box = self._keys[self._sealing].encrypt(nonce, plain.encode(), account_id.encode())
        return f"{self._sealing}.{base64.urlsafe_b64encode(nonce + box).decode()}"

    def open(self, sealed: str, account_id: str) -> Tokens:
        name, _, box = sealed.partition(".")
        try:
            raw = base64.urlsafe_b64decode(box)
            nonce, sealed_bytes = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
            plain = json.loads(self._keys[name].decrypt(nonce, sealed_bytes, account_id.encode()))
        except (KeyError, InvalidTag, ValueError, binascii.Error) as error:
            raise UnsealError(f"key {name!r} does not open the token") from error
        expires_at = plain["expiresAt"]
        return Tokens(
            access_token=plain["accessToken"],
            refresh_token=plain["refreshToken"],
            expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
        )


def parse_keys(text: str) -> dict[str, bytes]:
    """`id:base64,id:base64`, the sealing key first. Raises `ValueError` with what is wrong."""
    keys = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, encoded = part.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not colon or not name or "." in name or len(key) != 32:
            raise ValueError("each key is id:base64 of 32 bytes, such as k1:…=")
        keys[name] = key
    if not keys:
        raise ValueError("at least one key is needed")
    return keys
