"""The whole system on one machine: Google's services, the platforms, and our functions as deployed.

`terraform/topology.json` says which functions, queues and schedules there are; everything else is
settings. Firestore is reached through a wire that tests can cut, count and turn the time on; each
function has a front, as on Cloud Run, and as many instances as asked for.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.auth import jwt
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore, tasks_v2
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport
from google.protobuf.duration_pb2 import Duration

from tests.sandbox.children import Children, SandboxError, free_port
from tests.sandbox.clock import Clock
from tests.sandbox.cloud_tasks import server as cloud_tasks
from tests.sandbox.cloud_tasks.server import CloudTasksServer
from tests.sandbox.firestore import FirestoreEmulator
from tests.sandbox.firestore_proxy import FirestoreProxy
from tests.sandbox.functions import Front, FunctionProcess, build
from tests.sandbox.identity import Issuer
from tests.sandbox.platforms.server import PlatformServer
from tests.sandbox.scheduler import Scheduler, jobs_from
from tests.sandbox.storage import StorageServer, service_account_key

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = json.loads((ROOT / "terraform" / "topology.json").read_text())
LOCATION = "europe-west1"
BUCKET = "tendsocial-media"
WARM = ("publish_post", "schedule_post")  # started at once; the others at their first request
PEOPLE = ("viewer", "operator", "admin")  # the console's callers
ROLES = ("tasks", "scheduler", "backend", *PEOPLE)

OnLine = Callable[[str, Mapping[str, Any]], None]  # function, its log line


def only(functions: Iterable[str]) -> dict[str, int]:
    """`instances` that start these functions alone: the others answer 503."""
    return {name: int(name in functions) for name in TOPOLOGY["functions"]}


class Stack:
    """Start it, call it, turn its clock, break it, stop it.

    `instances` gives the number of processes per function (1). With `iam`, fronts play Cloud Run's
    IAM check and functions get tokens without signatures. `schedules`: whether Scheduler's jobs run
    by themselves. `on_line` hears every log line of the functions.
    """

    def __init__(
        self,
        *,
        instances: Mapping[str, int] | None = None,
        iam: bool = False,
        schedules: bool = True,
        on_line: OnLine | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.project = f"sandbox-{secrets.token_hex(4)}"
        self.secret = secrets.token_urlsafe(32)
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self._instances = dict(instances or {})
        self._iam = iam
        self._schedules = schedules
        self._on_line = on_line
        self._environment = dict(environment or {})
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._worker_lost = ""

        # One client: making one costs 50 ms, for TLS that nobody speaks here.
        self._http = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
        self._stack.callback(self._http.close)
        self.clock = Clock()
        self.children = Children()
        self.issuer = Issuer()
        self.emulator = FirestoreEmulator(self.children)
        self.key = service_account_key(self.email("media"), "http://127.0.0.1/unused")
        self.storage = StorageServer(accounts=[self.key])
        self.tasks = CloudTasksServer(self.clock, self.issuer)
        self.platforms = PlatformServer(self.clock)
        self.proxy = FirestoreProxy(self.clock)
        self.fronts: dict[str, Front] = {}
        self.processes: dict[str, list[FunctionProcess]] = {}

    # life

    def __enter__(self) -> Stack:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Stack:
        """Raises `SandboxError` with one sentence that says what is missing and what mends it."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        on_stop = self._stack.callback
        on_stop(self.children.stop_all)
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tendsocial-")))
        # Whatever has come to run is killed before its folder goes: it would write into it.
        on_stop(self.children.stop_all, timedelta(0))
        # The JVM and the functions take longest: they start beside each other and beside the rest.
        upstream = _Later(self.emulator.start)
        for server in (self.issuer, self.storage, self.platforms, self.tasks, self.proxy):
            server.start()
            on_stop(server.stop)
        self.storage.make_bucket(BUCKET)
        self._start_functions(folder)
        self._make_queues()
        self.proxy.connect(upstream.result())
        warm = _Later(self._warm_up)
        self._wait_for_functions()
        warm.result()
        jobs = jobs_from(
            TOPOLOGY,
            {name: front.url for name, front in self.fronts.items()},
            email=self.email("scheduler"),
            audiences={name: front.url for name, front in self.fronts.items()},
        )
        self.scheduler = Scheduler(self.clock, self.issuer, jobs)
        self.scheduler.start(automatic=self._schedules)
        on_stop(self.scheduler.stop)
        # Nothing is worth a graceful end: they are killed first, all at once.
        on_stop(self.children.stop_all, timedelta(0))

    def stop(self) -> None:
        """End everything that was started; a second call does nothing."""
        self._stack.close()

    def _make_queues(self) -> None:
        client = cloud_tasks.client(self.tasks.address)
        parent = f"projects/{self.project}/locations/{LOCATION}"
        for name, rules in TOPOLOGY["queues"].items():
            client.create_queue(parent=parent, queue=_queue(f"{parent}/queues/{name}", rules))
        self.tasks_client = client
        self._pause_queues()

    def _pause_queues(self) -> None:
        parent = f"projects/{self.project}/locations/{LOCATION}"
        for name, rules in TOPOLOGY["queues"].items():
            if rules.get("paused"):
                self.tasks_client.pause_queue(name=f"{parent}/queues/{name}")

    def _start_functions(self, folder: Path) -> None:
        for name in TOPOLOGY["functions"]:
            verify = self._admit(name) if self._iam else None
            cold = None if name in WARM else partial(self._wake, name)
            self.fronts[name] = Front([], verify=verify, cold=cold)
            self.fronts[name].start()
            self._stack.callback(self.fronts[name].stop)
        key_file = folder / "key.json"
        key_file.write_text(json.dumps(self.key))
        self._key_file = key_file
        self._folder = folder
        for name in TOPOLOGY["functions"]:
            source = build(name, folder / "functions")
            self.processes[name] = [
                self._process(name, source) for _ in range(self._instances.get(name, 1))
            ]
        for name in WARM:
            for process in self.processes[name]:
                process.start()

    def _wait_for_functions(self) -> None:
        for name in WARM:
            self._serve(name)

    def _wake(self, name: str) -> None:
        for process in self.processes[name]:
            if not process.started:
                process.move_to(free_port())
            if not process.alive:
                process.start()
        self._serve(name)

    def _serve(self, name: str) -> None:
        for process in self.processes[name]:
            process.wait_until_ready()
        self.fronts[name].backends = [process.port for process in self.processes[name]]

    def _warm_up(self) -> str:
        """The emulator's first read and first commit take a second, while its classes load."""
        db = _direct(f"{self.project}-warm-up", self.emulator.address)
        post, other = db.document("warm/up"), db.document("warm/too")
        list(db.get_all([post, other]))
        batch = db.batch()
        batch.create(post, {"open": 2, "at": firestore.SERVER_TIMESTAMP, "of": [{}]})
        written, *_ = batch.commit()
        batch = db.batch()
        batch.update(
            post,
            {"open": firestore.Increment(-1)},
            option=db.write_option(last_update_time=written.update_time),
        )
        batch.set(other, {"open": 0})
        batch.commit()
        return ""

    @property
    def everyone(self) -> list[FunctionProcess]:
        """Every instance that has been started."""
        return [one for group in self.processes.values() for one in group if one.started]

    def _process(self, name: str, source: Path) -> FunctionProcess:
        process = FunctionProcess(
            name,
            source,
            free_port(),
            self.environment(name),
            lambda line: self._hear(process, line),
            threads=TOPOLOGY["functions"][name]["concurrency"],
            children=self.children,
        )
        return process

    def environment(self, name: str) -> dict[str, str]:
        """A function's settings: Terraform's, with the sandbox's addresses."""
        urls = {f"WEBHOOK_URL_{n.upper()}": front.url for n, front in self.fronts.items()}
        signatures = {"OIDC_SIGNATURES": "removed", "IAM_STANDS_BEFORE": "true"}
        return {
            "GCP_PROJECT_ID": self.project,
            "GCP_LOCATION": LOCATION,
            "WEBHOOK_SECRET": self.secret,
            "OIDC_CERTS_URL": self.issuer.certs_url,
            "TASKS_SERVICE_ACCOUNT": self.email("tasks"),
            "BACKEND_CALLERS": self.email("backend"),
            "SCHEDULER_CALLERS": self.email("scheduler"),
            **{f"CONSOLE_{role.upper()}S": self.email(role) for role in PEOPLE},
            "TOKEN_KEYS": f"k1:{_TOKEN_KEY}",
            "MEDIA_BUCKET": BUCKET,
            "FIRESTORE_EMULATOR_HOST": self.proxy.door(name),
            "CLOUD_TASKS_EMULATOR_HOST": self.tasks.address,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self._key_file),
            "TMPDIR": str(self._folder),  # what a killed gunicorn leaves goes with it
            **self.storage.env,
            **self.platforms.settings(),
            **urls,
            **(signatures if self._iam else {}),
            **self._environment,
        }

    def lost(self) -> str:
        """Which process ended by itself, in words; empty while all are there."""
        if not self.emulator.alive:
            return "the Firestore emulator has ended by itself"
        for process in self.everyone:
            if not process.alive:
                return f"{process.name} has ended by itself"
        return self._worker_lost

    def reset(self) -> None:
        """A fresh world for the next test: no records, tasks, posts, faults; the time is now."""
        self.heal()
        self.tasks.idle(5)
        self.clock.reset()
        self.issuer.reset()
        self.tasks.reset()
        self._pause_queues()
        self.platforms.reset()
        self._wipe()
        with self._lock:
            self.lines.clear()

    def scale_to_zero(self, name: str) -> None:
        """Every instance of a function is gone; its next request starts them, and waits."""
        self.fronts[name].rest(partial(self._wake, name))
        for process in self.processes[name]:
            process.kill()

    def heal(self) -> None:
        """Take every fault away and bring every instance back."""
        self.proxy.heal()
        self.tasks.heal()
        self.platforms.heal()
        for name, group in self.processes.items():
            self.fronts[name].before.clear()
            self.fronts[name].after.clear()
            for process in group:
                if process.started and not process.alive:
                    process.start().wait_until_ready()

    def _wipe(self) -> None:
        if not self.emulator.borrowed:
            self.emulator.wipe(self.project)
            return
        for collection in self.db.collections():
            self.db.recursive_delete(collection)

    # who is who

    def email(self, role: str) -> str:
        return f"{role}@{self.project}.iam.gserviceaccount.com"

    def token(self, function: str, role: str = "backend", **wrong: Any) -> str:
        """An OIDC token of this role for this function."""
        return self.issuer.token(self.email(role), self.fronts[function].url, **wrong)

    def _admit(self, function: str) -> Callable[[str], Mapping[str, Any]]:
        invokers = {self.email(role) for role in TOPOLOGY["functions"][function]["callers"]}

        def verify(token: str) -> Mapping[str, Any]:
            url = self.fronts[function].url
            claims: Mapping[str, Any] = jwt.decode(
                token, certs=self.issuer.certificates(), audience=url
            )
            if claims["email"] not in invokers:
                raise PermissionError(claims["email"])
            return claims

        return verify

    # talking to it

    def headers(self, function: str, role: str = "backend") -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.token(function, role)}",
            "X-Webhook-Secret": self.secret,
        }

    def post(
        self, function: str, path: str, body: Any, *, role: str = "backend", **headers: str
    ) -> httpx.Response:
        url = self.fronts[function].url + path
        known = self.headers(function, role) | headers
        return self._http.post(url, json=body, headers=known)

    def get(self, function: str, path: str, role: str = "backend", **query: Any) -> httpx.Response:
        url = self.fronts[function].url + path
        return self._http.get(url, params=query, headers=self.headers(function, role))

    @property
    def db(self) -> firestore.Client:
        """The records as they lie, past the functions and the wire."""
        if not hasattr(self, "_db"):
            self._db = _direct(self.project, self.emulator.address)
        return self._db

    def record(self, collection: str, document_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.db.document(collection, document_id).get().to_dict()
        return found

    def records(self, collection: str) -> dict[str, dict[str, Any]]:
        return {seen.id: seen.to_dict() for seen in self.db.collection(collection).stream()}

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The functions' log lines so far, or those of one event."""
        with self._lock:
            lines = [line for _, line in self.lines]
        return [line for line in lines if event in (None, line.get("event"))]

    def settle(self, timeout: float = 15.0) -> None:
        """Wait until every task that is due on the sandbox's clock has been dealt with."""
        if not self.tasks.idle(timeout):
            raise SandboxError(f"The queues did not come to rest within {timeout} s.")

    def turn(self, by: timedelta) -> None:
        """Turn the clock and let what is due by then happen."""
        self.clock.turn(by)
        self.settle()

    def until(self, true: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait in real time; raises `SandboxError` when it does not come true."""
        end = time.monotonic() + timeout
        while not true():
            if time.monotonic() > end:
                raise SandboxError("What was waited for did not come.")
            time.sleep(0.02)

    def _hear(self, process: FunctionProcess, text: str) -> None:
        name = process.name
        if _WORKER_ENDED.search(text):
            self._worker_lost = f"a worker of {name} has ended by itself"
        try:
            line = json.loads(text)
        except ValueError:
            line = {"severity": "DEFAULT", "event": "output", "message": text}
        if not isinstance(line, dict):
            line = {"severity": "DEFAULT", "event": "output", "message": text}
        line["instance"] = process.instance  # Cloud Logging's `labels.instanceId`
        with self._lock:
            self.lines.append((name, line))
        if self._on_line is not None:
            self._on_line(name, line)


# What gunicorn says of a worker that it did not end itself.
_WORKER_ENDED = re.compile(r"Worker \(pid:\d+\) (was sent SIG(?!TERM)|exited with code)")
_TOKEN_KEY = base64.b64encode(secrets.token_bytes(32)).decode()


class _Later:
    """A call in a thread of its own; `result` waits for it and raises what it raised."""

    def __init__(self, call: Callable[[], str]) -> None:
        self._call = call
        self._value = ""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> str:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value


def _queue(name: str, rules: Mapping[str, Any]) -> tasks_v2.Queue:
    return tasks_v2.Queue(
        name=name,
        rate_limits=tasks_v2.RateLimits(
            max_dispatches_per_second=rules["maxDispatchesPerSecond"],
            max_concurrent_dispatches=rules["maxConcurrentDispatches"],
        ),
        retry_config=tasks_v2.RetryConfig(
            max_attempts=rules["maxAttempts"],
            min_backoff=Duration(seconds=rules["minBackoffSeconds"]),
            max_backoff=Duration(seconds=rules["maxBackoffSeconds"]),
            max_doublings=rules["maxDoublings"],
        ),
    )


def _direct(project: str, address: str) -> firestore.Client:
    """A client of the emulator itself, whatever the environment says."""
    client = firestore.Client(project=project, credentials=AnonymousCredentials())
    channel = grpc.insecure_channel(address)
    client._firestore_api_internal = FirestoreClient(
        transport=FirestoreGrpcTransport(channel=channel)
    )
    client._emulator_host = address
    return client
