"""How long things may take. Each bound lies inside the next one:

    platform call 20 s < request 45 s < function and lease 60 s < dispatch deadline 75 s

so that nobody takes over an attempt that may still act, and Cloud Tasks does not give up on one
that is alive. The last two stand in `terraform/topology.json`; a test holds them against these.
"""

from __future__ import annotations

from datetime import timedelta

REQUEST = timedelta(seconds=45)
LEASE = timedelta(seconds=60)
SEND_WITHIN = timedelta(seconds=20)  # of the committing mark; later the attempt must not send
EARLY = timedelta(seconds=2)  # a task this much ahead of its time is on time
HORIZON = timedelta(days=28)  # Cloud Tasks takes 30 days; the rest is slack for `promote`
LATEST_AFTER = timedelta(hours=24)  # default of `latestAt`
SWEEP_GRACE = timedelta(minutes=2)  # doubles with each hop that the sweep makes
SWEEP_HOPS = 5
BACKLOG = timedelta(minutes=2)  # what is later than this is one of many, and keeps its distance
PAUSE_LOOK = timedelta(minutes=5)  # how soon the sweep sees that a pause was taken away
MARKER_KEPT = timedelta(days=30)
EVIDENCE_SLACK = timedelta(seconds=60)  # platforms' clocks against ours
