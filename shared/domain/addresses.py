"""Addresses that somebody else named: connected to only where they are public.

A name is resolved once, and the connection goes to what was looked at: the next answer of the name
server could be another one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any


def public_one(found: Iterable[tuple[Any, ...]]) -> str | None:
    """The first address of what `socket.getaddrinfo` found; None unless all of them are public."""
    addresses = [str(entry[4][0]) for entry in found]
    if not all(ipaddress.ip_address(address).is_global for address in addresses):
        return None
    return next(iter(addresses), None)
