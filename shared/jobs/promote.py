"""Tasks for what lay beyond the queue's horizon when it was scheduled."""

from __future__ import annotations

import time
from typing import Any

from shared.jobs.publish import tell_failed
from shared.runtime import Runtime

BATCH = 200


def run(rt: Runtime, ends_at: float) -> dict[str, Any]:
    """First the task, then the note that it exists: dying in between makes it twice under one
    name, which is once."""
    promoted = failed = 0
    seen: set[str] = set()
    while time.monotonic() < ends_at:
        logs = [log for log in rt.store.deliveries.to_promote(BATCH) if log.id not in seen]
        if not logs:
            break
        seen |= {log.id for log in logs}
        failures = rt.queue.wake_all([log.wake() for log in logs])
        tell_failed(failures, rt)
        not_made = {failure.task.id for failure in failures}
        for log in logs:
            if log.wake().task_id not in not_made:
                rt.store.deliveries.promoted(log)
                promoted += 1
        failed += len(failures)
    rt.log.event("promote.done", promoted=promoted, failed=failed)
    return {"success": True, "promoted": promoted, "failed": failed}
