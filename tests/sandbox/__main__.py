"""What `make demo`, `make up` and `make bench` run: `python -m tests.sandbox demo`, and so on."""

from __future__ import annotations

import argparse
from importlib import import_module

from tests.sandbox.program import Program

STORIES = {
    "demo": "schedule one post to three platforms, see it published, and end (15 s)",
    "up": "the same system until Ctrl-C, with curl lines to paste and a log to read",
    "bench": "count what a post costs against the budgets; exit 1 if one is broken (60 s)",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sandbox",
        description="The whole system on this machine: our functions as they are deployed, "
        "Google's services and the platforms standing in, nothing but loopback.",
    )
    stories = parser.add_subparsers(dest="story", required=True, metavar="demo | up | bench")
    for name, does in STORIES.items():
        stories.add_parser(name, help=does, description=f"{does[:1].upper()}{does[1:]}.")
    name = parser.parse_args().story
    # Loaded in the story's thread: it takes a second, and Ctrl-C must end that like anything else.
    Program(name).run(lambda program: import_module(f"tests.sandbox.{name}").tell(program))


if __name__ == "__main__":
    main()
