"""Sources of bind mounts: from a path of the user's system to one in the guest, looked at without ever hanging.

Shared folders are answered for by a process on the user's system. When that does not answer, a system call waits in
the kernel for as long as it takes, so none is made on the event loop: each has a thread, and the thread is left behind
when it takes too long.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from pyboxd import locations
from pyboxd.engine.model import MountPoint
from pyboxd.errors import InvalidArgument, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
PATIENCE = 10.0  # seconds
MOST_WAITING = 16  # threads that wait for a folder server which does not answer


class HostPaths(Protocol):
    """From a path as the user's system writes it to the one in the guest. May block."""

    def to_guest(self, path: str) -> str:
        """InvalidArgument when the path is not shared with the machine."""
        ...


class Binds:
    """Finds sources."""

    def __init__(self, paths: HostPaths, patience: float = PATIENCE) -> None:
        self._paths = paths
        self._patience = patience
        self._waiting = 0

    async def check(self, point: MountPoint) -> None:
        """At a container's creation: InvalidArgument when the source is not shared, or is not there and must be."""
        await self._in_time(lambda: self._find(point, make=False), point.source)

    async def source(self, point: MountPoint) -> tuple[str, bool]:
        """At a start: the guest's path, and whether it is a directory. What `-v` names and the user's system has not
        is made as one. InvalidArgument."""
        return await self._in_time(lambda: self._find(point, make=True), point.source)

    def _find(self, point: MountPoint, make: bool) -> tuple[str, bool]:
        source = self._paths.to_guest(point.source)
        if os.path.lexists(source):
            return source, os.path.isdir(source)
        if not point.create_source or not source.startswith(f"{locations.SHARES}/"):
            raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {point.source}')
        if make:
            try:
                os.makedirs(source)
            except OSError as error:
                raise InvalidArgument(
                    f"error while creating mount source path '{point.source}': mkdir {point.source}: "
                    f"{os.strerror(error.errno or 0).lower()}"
                ) from error
        return source, True

    async def _in_time(self, work: Callable[[], T], path: str) -> T:
        """The outcome of `work`, done in a thread. Unavailable when that takes too long."""
        failure = Unavailable(f"the shared folder of {path} does not answer; `pybox restart` starts its server again")
        if self._waiting >= MOST_WAITING:
            raise failure
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: Exception | None) -> None:
            self._waiting -= 1
            if done.done():  # nobody waits any more
                if error is not None:
                    log.warning("the shared folder of %s answered too late", path, exc_info=error)
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            try:
                result, error = work(), None
            except Exception as caught:  # noqa: BLE001 - raised again where it is awaited
                result, error = None, caught
            loop.call_soon_threadsafe(finish, result, error)

        self._waiting += 1
        threading.Thread(target=run, name="folder", daemon=True).start()
        try:
            return await asyncio.wait_for(done, self._patience)
        except TimeoutError:
            raise failure from None
