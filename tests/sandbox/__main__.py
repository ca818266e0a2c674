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
    known = {
        name: stories.add_parser(name, help=does, description=f"{does[:1].upper()}{does[1:]}.")
        for name, does in STORIES.items()
    }
    sizes = known["bench"].add_argument_group("at size")
    long = "films of 1 GB, 1,000 accounts synced, 10,000 rows in and out instead (10 min)"
    sizes.add_argument("--long", action="store_true", help=long)
    sizes.add_argument("--accounts", type=int, help="so many accounts, of 10 posts each")
    sizes.add_argument("--rows", type=int, help="so many rows (a million takes hours)")
    given = parser.parse_args()
    module, options = f"tests.sandbox.{given.story}", {}
    if given.story == "bench":
        options = {name: n for name in ("accounts", "rows") if (n := getattr(given, name))}
        module = "tests.sandbox.bench_long" if given.long or options else module
    # Loaded in the story's thread: it takes a second, and Ctrl-C must end that like anything else.
    Program(given.story).run(lambda program: import_module(module).tell(program, **options))


if __name__ == "__main__":
    main()
