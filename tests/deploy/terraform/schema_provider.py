"""A provider that lets the real `terraform validate` and `terraform test` run without network.

It serves schemas over Terraform's plugin protocol and says yes to everything else. The values that
a provider would compute are made up by Terraform itself, for `mock_provider` in *.tftest.hcl: so no
code for plans is needed here.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
Field = tuple[int, Any]


@contextmanager
def serving(schema_file: Path) -> Iterator[dict[str, str]]:
    """The environment under which terraform takes every provider of `schema_file` from here."""
    schemas = json.loads(schema_file.read_text())["provider_schemas"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        attach = {}
        for number, (source, schema) in enumerate(schemas.items()):
            address = f"{folder}/{number}"
            server = grpc.server(
                futures.ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)]
            )
            server.add_generic_rpc_handlers((_Provider(schema),))
            server.add_insecure_port(f"unix:{address}")
            server.start()
            stack.callback(server.stop, 0)
            attach[source] = {
                "Protocol": "grpc",
                "ProtocolVersion": 5,
                "Pid": os.getpid(),
                "Test": True,
                "Addr": {"Network": "unix", "String": address},
            }
        yield {
            "TF_REATTACH_PROVIDERS": json.dumps(attach),
            "TF_CLI_CONFIG_FILE": os.devnull,
            "CHECKPOINT_DISABLE": "1",
        }


class _Provider(grpc.GenericRpcHandler):
    def __init__(self, schema: Mapping[str, Any]) -> None:
        described = _provider(schema)
        self._answers: dict[str, Callable[[bytes], bytes]] = {
            "GetSchema": lambda request: described,
            "PrepareProviderConfig": lambda request: request,
        }

    def service(self, handler_call_details: Any) -> Any:
        service, method = handler_call_details.method.rsplit("/", 1)
        if service != "/tfplugin5.Provider":
            return None
        answer = self._answers.get(method, lambda request: b"")
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(request))


def _provider(schema: Mapping[str, Any]) -> bytes:
    def one(described: Mapping[str, Any]) -> bytes:
        return _message((2, _block(described["block"])))

    def table(kind: str) -> list[bytes]:
        return [_message((1, name), (2, one(s))) for name, s in schema.get(kind, {}).items()]

    return _message(
        (1, one(schema["provider"])),
        (2, table("resource_schemas")),
        (3, table("data_source_schemas")),
    )


def _block(block: Mapping[str, Any]) -> bytes:
    attributes = [
        _message(
            (1, name),
            (2, json.dumps(one["type"])),
            (4, one.get("required")),
            (5, one.get("optional")),
            (6, one.get("computed")),
            (7, one.get("sensitive")),
            (10, one.get("write_only")),
        )
        for name, one in block.get("attributes", {}).items()
    ]
    nested = [
        _message(
            (1, name),
            (2, _block(one["block"])),
            (3, NESTING[one["nesting_mode"]]),
            (4, one.get("min_items")),
            (5, one.get("max_items")),
        )
        for name, one in block.get("block_types", {}).items()
    ]
    return _message((2, attributes), (3, nested))


def _message(*fields: Field) -> bytes:
    """A protobuf message of numbers and values; a list repeats its field."""
    out = b""
    for number, value in fields:
        if value in (None, False, 0):
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += _varint(number << 3) + _varint(one)
            else:
                data = one.encode() if isinstance(one, str) else one
                out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])
