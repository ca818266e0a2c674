"""An asyncio event loop in a thread of its own, for the servers of the sandbox that send.

A loop rather than a pool of threads: a request in flight can be cancelled, so stopping takes
no longer than closing the sockets.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

LONGEST_NAP_SECONDS = 3600.0


class Loop:
    """Runs one main coroutine until stopped, with a bell that wakes whoever naps in the loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._bell = asyncio.Event()

    @property
    def running(self) -> bool:
        return self._loop is not None

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the thread; returns once the loop takes orders."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(main, ready)), name=self._name, daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Cancel everything in the loop and wait for the thread to end."""
        with self._guard:
            loop, main, self._loop = self._loop, self._main, None
        if loop is not None and main is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself meanwhile
                loop.call_soon_threadsafe(main.cancel)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def ring(self) -> None:
        """Wake every napper; from any thread, and harmless when stopped."""
        with self._guard, contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._strike)

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Run a coroutine in the loop, from another thread."""
        with self._guard:
            if self._loop is None:
                coroutine.close()
                raise RuntimeError(f"{self._name} is not started")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def nap(self, seconds: float | None) -> None:
        """Sleep until the bell rings, at most `seconds` (None: as long as it takes).

        No ring is lost between looking at the world and napping, as long as nothing is awaited
        in between: the bell is struck in the loop's own thread.
        """
        limit = LONGEST_NAP_SECONDS if seconds is None else min(seconds, LONGEST_NAP_SECONDS)
        if limit <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._bell.wait()

    async def _live(
        self, main: Callable[[], Coroutine[Any, Any, None]], ready: threading.Event
    ) -> None:
        self._bell = asyncio.Event()
        self._main = asyncio.create_task(main())
        with self._guard:
            self._loop = asyncio.get_running_loop()
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._main
        with self._guard:
            self._loop = None

    def _strike(self) -> None:
        struck, self._bell = self._bell, asyncio.Event()
        struck.set()
