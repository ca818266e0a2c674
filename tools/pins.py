"""Write the pinned requirement files from `pyproject.toml`: `make pins`.

`requirements.txt` runs everything on one machine, `requirements-dev.txt` adds what tests and
checks need, and each function gets a file with its own packages alone. Versions that the root
file pins are the ones the functions get: what is tested is what is deployed. The first line of
each file carries the digest of what it was made from, so that a stale file is noticed offline.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"  # the oldest version that is deployed


def wanted(target: str) -> dict[str, list[str]]:
    """What `target` (`all`, `dev` or a function's name) asks for, as `pyproject.toml` says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {"dependencies": project["project"]["dependencies"]}
    extras = project["project"]["optional-dependencies"]
    asked |= extras if target in ("all", "dev") else {target: extras[target]}
    groups = project["dependency-groups"]
    if target in ("all", "dev"):
        asked["sandbox"] = groups["sandbox"]
    if target == "dev":
        asked["dev"] = groups["dev"]
    return asked


def digest(target: str) -> str:
    return hashlib.sha256(json.dumps(wanted(target), sort_keys=True).encode()).hexdigest()[:16]


def files() -> dict[str, Path]:
    """Where each target's pins lie."""
    places = {"all": ROOT / "requirements.txt", "dev": ROOT / "requirements-dev.txt"}
    for folder in sorted((ROOT / "functions").iterdir()):
        if (folder / "main.py").exists():
            places[folder.name] = folder / "requirements.txt"
    return places


def header(target: str) -> str:
    made = f"Made from pyproject.toml ({digest(target)}) by `make pins`"
    return f"# {made}: edit that file, not this.\n"


def compile_pins(target: str, constraints: Path | None, *, upgrade: bool) -> str:
    requirements = "\n".join(line for lines in wanted(target).values() for line in lines)
    command = ["uv", "pip", "compile", "-", "--universal", "--python-version", PYTHON]
    command += ["--no-header", "--no-emit-index-url", "--no-annotate", "--quiet"]
    if constraints is not None and constraints.exists() and not (upgrade and target == "all"):
        command += ["--constraint", str(constraints)]
    done = subprocess.run(
        [sys.executable, "-m", *command], input=requirements, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"The pins of {target} were not made: {done.stderr.strip()}")
    return header(target) + done.stdout


def main() -> None:
    upgrade = "--upgrade" in sys.argv[1:]
    places = files()
    for target, place in places.items():
        place.write_text(compile_pins(target, places["all"], upgrade=upgrade))
        print(f"{place.relative_to(ROOT)}: {len(place.read_text().splitlines()) - 1} packages")


if __name__ == "__main__":
    main()
