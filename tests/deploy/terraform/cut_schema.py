"""Cut a provider schema file to the types that `terraform/` uses, without descriptions.

    python -m tests.deploy.terraform.cut_schema FULL-SCHEMA.json

FULL-SCHEMA is in the format of `terraform providers schema -json`. Needed again when `terraform/`
begins to use another type, or moves to other providers.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TERRAFORM = HERE.parents[2] / "terraform"
CUT = HERE / "provider-schema.json"
KINDS = {"resource": "resource_schemas", "data": "data_source_schemas"}


def used_types(folder: Path = TERRAFORM) -> dict[str, set[str]]:
    """The types of resources and data sources that the files name."""
    text = "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))
    return {
        key: set(re.findall(rf'^{word} "(\w+)"', text, re.MULTILINE)) for word, key in KINDS.items()
    }


def cut(full: dict[str, Any], used: dict[str, set[str]]) -> dict[str, Any]:
    """The providers that have a used type, each with those types alone."""
    kept: dict[str, Any] = {}
    for source, provider in full["provider_schemas"].items():
        types = {
            key: {
                name: plain(one) for name, one in provider.get(key, {}).items() if name in used[key]
            }
            for key in KINDS.values()
        }
        if any(types.values()):
            kept[source] = {"provider": plain(provider["provider"]), **types}
    versions = full["x_provider_versions"]
    return {
        "format_version": full["format_version"],
        "provider_schemas": kept,
        "x_provider_versions": {source: versions[source] for source in kept},
    }


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without its prose. An attribute may itself be called `description`: it stays."""
    return {"version": schema.get("version", 0), "block": _block(schema["block"])}


def _block(block: dict[str, Any]) -> dict[str, Any]:
    attributes = {
        name: {key: value for key, value in one.items() if not key.startswith("description")}
        for name, one in block.get("attributes", {}).items()
    }
    nested = {
        name: {**one, "block": _block(one["block"])}
        for name, one in block.get("block_types", {}).items()
    }
    return {"attributes": attributes, "block_types": nested}


if __name__ == "__main__":
    schema = cut(json.loads(Path(sys.argv[1]).read_text()), used_types())
    CUT.write_text(json.dumps(schema, indent=None, separators=(",", ":"), sort_keys=True) + "\n")
