"""Which of the addresses that a name leads to is connected to."""

from __future__ import annotations

import socket

import pytest

from shared.domain.addresses import admitted


def test_the_first_of_public_addresses_is_taken() -> None:
    assert admitted(found("93.184.215.14", "2606:2800:21f:cb07::1")) == "93.184.215.14"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.9", "100.64.0.1", "0.0.0.0", "::1"],
)
def test_one_address_that_is_not_public_spoils_them_all(address: str) -> None:
    assert admitted(found("93.184.215.14", address)) is None


def test_without_addresses_there_is_none() -> None:
    assert admitted(found()) is None


def found(*addresses: str) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in addresses]
