"""Blocking work beside the event loop: a thread per job, streams between the two, and a clean end on cancellation.

A cancelled request must not leave a thread that still writes files: `run_blocking` tells the job to stop through its
`Stop` and returns only when the thread has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from pyboxd.errors import PyboxdError

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_HIGH = 4 * 1024 * 1024  # bytes waiting for the thread before the source has to wait
_LOW = 1024 * 1024


class Stopped(Exception):
    """The job was asked to stop."""


class Stop:
    """Asks a job to end; `on_stop` registers what wakes it (closing a socket, for example)."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []

    def set(self) -> None:
        with self._lock:
            self._stopped.set()
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def check(self) -> None:
        """Raise Stopped if the job is to end."""
        if self._stopped.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until `set`; raises Stopped then."""
        self._stopped.wait(seconds)
        self.check()

    def on_stop(self, wake: Callable[[], None]) -> None:
        """Call `wake` at `set`, from another thread; at once if it was set before."""
        with self._lock:
            if not self._stopped.is_set():
                self._wakers.append(wake)
                return
        wake()


async def run_blocking(job: Callable[[Stop], _Result], stop: Stop | None = None) -> _Result:
    """Run `job` in a thread and wait for it. Cancellation sets `stop` and still waits for the end."""
    token = stop or Stop()
    ended: Future[_Result] = Future()

    def run() -> None:
        try:
            result = job(token)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            ended.set_exception(error)
        else:
            ended.set_result(result)

    # Not the loop's own pool: jobs that wait for a slow registry would keep everybody else's from running.
    threading.Thread(target=run, name="image-job", daemon=True).start()
    waiting = asyncio.wrap_future(ended)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        token.set()
        while not waiting.done():
            with contextlib.suppress(asyncio.CancelledError):  # a second one must not leave the thread alone either
                await asyncio.wait([waiting])
        error = waiting.exception()
        if error is not None and not isinstance(error, (Stopped, OSError, PyboxdError)):
            log.error("a job that was told to stop ended with a bug", exc_info=error)
        raise


@contextlib.contextmanager
def first_failure(what: str) -> Iterator[None]:
    """Around a group of tasks: its first failure is raised. The others say the same, or ended because of it; those that
    are bugs are logged, as bugs in `what`."""
    try:
        yield
    except ExceptionGroup as failures:
        first, *others = failures.exceptions
        for error in others:
            if not isinstance(error, (Stopped, OSError, PyboxdError)):
                log.error("a bug in %s", what, exc_info=error)
        raise first from None


async def consume(source: AsyncIterator[bytes], job: Callable[[Iterator[bytes]], _Result]) -> _Result:
    """Run `job` in a thread over the chunks of `source`, which is read on the loop at the same time.

    When the job ends early, the source is not read to its end.
    """
    feed = _Feed()
    stop = Stop()
    stop.on_stop(feed.abort)
    pump = asyncio.ensure_future(feed.pump(source))
    try:
        return await run_blocking(lambda _: job(feed.chunks()), stop)
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


class _Feed:
    """Chunks from the loop to a thread, with a bound on what waits between them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._room = asyncio.Event()

    async def pump(self, source: AsyncIterator[bytes]) -> None:
        try:
            async for chunk in source:
                if self._put(chunk):
                    await self._room.wait()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again in the thread that reads
            self._finish(error)
        else:
            self._finish(None)

    def abort(self) -> None:
        self._finish(Stopped())

    def chunks(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._chunks and not self._ended:
                    self._changed.wait()
                if self._error is not None:
                    raise self._error
                if not self._chunks:
                    return
                chunk = self._chunks.popleft()
                was_full = self._held >= _LOW
                self._held -= len(chunk)
                drained = was_full and self._held < _LOW
            if drained:
                self._loop.call_soon_threadsafe(self._room.set)
            yield chunk

    def _put(self, chunk: bytes) -> bool:
        """True if the source has to wait for `_room`."""
        if not chunk:
            return False
        with self._changed:
            self._chunks.append(chunk)
            self._held += len(chunk)
            self._changed.notify()
            full = self._held >= _HIGH
            if full:
                self._room.clear()
            return full

    def _finish(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended = True
            self._error = self._error or error
            self._changed.notify()
