"""Addresses that somebody else named: connected to only where they are public.

A name is resolved once, and the connection goes to what was looked at: the next answer of the name
server could be another one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Admits = Callable[[Address], bool]


def is_public(address: Address) -> bool:
    return address.is_global


def admitted(found: Iterable[tuple[Any, ...]], admits: Admits = is_public) -> str | None:
    """The first address of what `socket.getaddrinfo` found; None unless all of them are let in."""
    addresses = [str(entry[4][0]) for entry in found]
    if not all(admits(ipaddress.ip_address(address)) for address in addresses):
        return None
    return next(iter(addresses), None)
