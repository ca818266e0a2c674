"""What `make chaos` runs: `python -m tests.chaos points`, and `storm`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from tests.sandbox.program import Program

CAMPAIGNS = {  # its module, which has `add_options` and `tell`, and what it does
    "points": (
        "tests.chaos.points_run",
        "break a delivery at every effect on its way, alone and in pairs; exit 1 on a finding",
    ),
    "storm": (
        "tests.chaos.storm_run",
        "send thousands of posts while everything around them breaks; exit 1 on a finding",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Break the whole system on this machine, let it recover by itself, and judge "
        "its promises by what the platforms hold.",
    )
    campaigns = parser.add_subparsers(dest="campaign", required=True, metavar=" | ".join(CAMPAIGNS))
    for name, (module, does) in CAMPAIGNS.items():
        about = campaigns.add_parser(name, help=does, description=f"{does[:1].upper()}{does[1:]}.")
        if name in sys.argv[1:2]:  # the others take a second each to load
            import_module(module).add_options(about)
    options = parser.parse_args()
    tell = import_module(CAMPAIGNS[options.campaign][0]).tell
    Program(options.campaign).run(lambda program: tell(program, options))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # while it loads; `Program` hears it from then on
        sys.exit(130)
