"""Files in and out, as the product's backend asks for them in tests."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
import httpx

from shared.jobs.bulk import PARTS
from tests.sandbox.children import free_port
from tests.sandbox.firestore_proxy import FirestoreCall, Refused
from tests.sandbox.functions import Armed, FunctionProcess
from tests.sandbox.stack import BUCKET
from tests.sandbox.storage import StorageCall
from tests.world import COMPANY, Account, World

LEASE = timedelta(seconds=61)


class Bulk:
    """The backend's side of imports and exports."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stack = world.stack
        self._numbers = itertools.count(1)
        self.look("none")  # the function starts at its first request

    # asking

    def ask(self, type: str, data: Mapping[str, Any], **more: Any) -> httpx.Response:
        body = {
            "type": type,
            "companyId": COMPANY,
            "idempotencyKey": f"bulk-{next(self._numbers)}",
            "data": data,
        }
        answer = self.stack.post("bulk", "/api/jobs/bulk", body | more)
        if answer.status_code == 503:  # as a backend does: the same again, under the same key
            answer = self.stack.post("bulk", "/api/jobs/bulk", body | more)
        return answer

    def begin_import(self, content: str, **data: Any) -> str:
        return self._begun(
            self.ask("BULK_IMPORT", {"userId": "user-1", "content": content, **data})
        )

    def begin_import_of(self, name: str, **data: Any) -> str:
        uri = f"gs://{BUCKET}/{name}"
        return self._begun(self.ask("BULK_IMPORT", {"userId": "user-1", "uri": uri, **data}))

    def begin_export(self, **data: Any) -> str:
        return self._begun(self.ask("BULK_EXPORT", data))

    def _begun(self, answer: httpx.Response) -> str:
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["jobId"]
        return job_id

    def import_(self, content: str, **data: Any) -> dict[str, Any]:
        return self.ended(self.begin_import(content, **data))

    def import_of(self, name: str, content: bytes, **data: Any) -> dict[str, Any]:
        self.stack.storage.put(BUCKET, name, content, "text/csv")
        return self.ended(self.begin_import_of(name, **data))

    def export(self, **data: Any) -> dict[str, Any]:
        return self.ended(self.begin_export(**data))

    # looking

    def look(self, job_id: str, company_id: str = COMPANY) -> httpx.Response:
        return self.stack.get("bulk", "/jobs", companyId=company_id, jobId=job_id)

    def job(self, job_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.look(job_id).json()
        return shown

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it has come to its end without any turn of the clock."""
        self.stack.settle()
        job = self.job(job_id)
        assert job["state"] not in ("queued", "running"), job
        return job

    def cancel(self, job_id: str, company_id: str = COMPANY) -> httpx.Response:
        return self.stack.post("bulk", "/cancel", {"companyId": company_id, "jobId": job_id})

    def text(self, job: Mapping[str, Any]) -> str:
        """The job's file, by its link."""
        answer = httpx.get(job["file"]["url"])
        assert answer.status_code == 200, answer.text
        return answer.content.decode()

    def rows(self, job: Mapping[str, Any]) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(job))))

    def calendar(self) -> dict[str, dict[str, Any]]:
        """What is scheduled: every post, without what tells one run from another."""
        posts = self.stack.records("scheduledPosts")
        return {name: _comparable(post) for name, post in posts.items()}

    def deliveries(self) -> dict[str, tuple[Any, ...]]:
        logs = self.stack.records("publishLogs")
        return {
            name: (log["content"], log["status"], log["generation"], log["hop"])
            for name, log in logs.items()
        }

    def published(self) -> int:
        posts = self.stack.platforms.posts
        return len(posts("linkedin")) + len(posts("twitter"))

    def tasks(self) -> int:
        """Publish tasks that wait."""
        names = ("publish-linkedin", "publish-twitter")
        return sum(len(self.stack.tasks.tasks(name)) for name in names)

    # breaking

    def kill_at_commit(self, number: int, *, landed: bool) -> Armed[FirestoreCall]:
        """SIGKILL the worker at its `number`-th commit from now; `landed`: just after Firestore has
        taken it, else just before."""
        counted = itertools.count(1)
        [process] = self.stack.processes["bulk"]

        def kill(call: FirestoreCall) -> None:
            if next(counted) == number:
                os.kill(process.worker(), signal.SIGKILL)
                if not landed:
                    raise Refused(grpc.StatusCode.UNAVAILABLE, "sandbox: the caller is dead")

        return self.stack.proxy.on_call(kill, "Commit", when=_of_a_job, after=landed)

    def kill_at_write(self, number: int) -> Armed[StorageCall]:
        """SIGKILL the worker when the bucket has taken its `number`-th part from now."""
        counted = itertools.count(1)
        [process] = self.stack.processes["bulk"]

        def kill(call: StorageCall) -> None:
            if next(counted) == number:
                os.kill(process.worker(), signal.SIGKILL)

        return self.stack.storage.faults.arm(kill, when=_writes_a_part, times=None)

    @contextmanager
    def another_instance(self, **environment: str) -> Iterator[FunctionProcess]:
        """One more process of the function, with a door of its own."""
        stack = self.stack
        [usual] = stack.processes["bulk"]
        process = FunctionProcess(
            "bulk",
            usual._source,
            free_port(),
            stack.environment("bulk") | environment,
            lambda line: stack._hear("bulk", line),
            threads=4,
            children=stack.children,
        )
        process.start().wait_until_ready()
        try:
            yield process
        finally:
            stack.fronts["bulk"].backends = [usual.port]
            process.kill()

    def recovered(self, job_id: str) -> dict[str, Any]:
        """The job once its tasks were delivered again, as often as it takes."""
        self.world.run_until(
            lambda: self.job(job_id)["state"] not in ("queued", "running"), step=LEASE
        )
        return self.job(job_id)


def _writes_a_part(call: StorageCall) -> bool:
    return (
        call.method == "POST" and f"{PARTS}/" in f"{call.query.get('name', '')}{call.body[:500]!r}"
    )


def _of_a_job(request: Any) -> bool:
    return any("/bulkJobs/" in write.update.name for write in request.writes)


def _comparable(post: Mapping[str, Any]) -> dict[str, Any]:
    apart = {"createdAt", "updatedAt", "traceparent"}
    return {name: value for name, value in post.items() if name not in apart}


def sheet(rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> str:
    """Rows as a CSV file, with every column that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, delimiter=delimiter, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def planned(
    world: World, *accounts: Account, count: int, days: int = 3, text: Callable[[int], str] = str
) -> list[dict[str, Any]]:
    """Rows for posts an hour apart."""
    start = world.stack.clock.now().replace(minute=0, second=0, microsecond=0)
    return [
        {
            "key": f"k{n}",
            "scheduledAt": (start + timedelta(days=days, hours=n)).strftime("%Y-%m-%d %H:%M"),
            "timezone": "UTC",
            "content": f"Post {text(n)}",
            "platforms": ", ".join(f"{one.platform}:{one.id}" for one in accounts),
        }
        for n in range(count)
    ]
