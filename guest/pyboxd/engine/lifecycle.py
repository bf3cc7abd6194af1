"""What clients may do with a container, and in which state.

    created ──start──▶ running ──exit──▶ exited ──start──▶ running …
                        │  ▲  └─policy─▶ restarting ─────▶ running
                     pause │ unpause
                        ▼  │
                       paused                       any ──remove──▶ (gone)

A container's `lock` is held while its process is made, while its end is worked up, and while it is removed; a stop
waits for the end without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyboxd.engine import names, signals, waiting
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.model import Status
from pyboxd.engine.supervision import SIGKILL, Supervisor
from pyboxd.errors import Conflict, InvalidArgument, NotFound, NotModified
from pyboxd.runtime.client import Process

STOP_TIMEOUT = 10  # seconds, when neither the client nor the container says otherwise
_MARKED = "container is marked for removal and cannot be started"


class Lifecycle:
    """Docker's verbs."""

    def __init__(self, containers: Containers, events: Events, supervisor: Supervisor) -> None:
        self._containers = containers
        self._events = events
        self._supervisor = supervisor

    async def start(self, container: Container) -> None:
        """POST …/start. NotModified when it runs; Conflict when it is paused or being removed; StartFailure and others."""
        async with container.lock:
            if container.removing:
                raise Conflict(_MARKED)
            if container.process is not None:
                if container.state.status == Status.PAUSED:
                    raise Conflict("cannot start a paused container, try unpause instead")
                raise NotModified()
            self._supervisor.cancel_restart(container)
            container.restart_delay = 0.0
            await self._supervisor.launch(container, restarts=0)

    async def stop(self, container: Container, timeout: int | None = None, signal: str = "") -> None:
        """POST …/stop. NotModified when it does not run. A `timeout` of -1 waits for ever."""
        if not container.state.running:
            raise NotModified()
        signum = signals.parse(signal or container.record.config.stop_signal or "SIGTERM")
        await self._stop(container, timeout, signum)
        self._events.container(container.record, "stop")

    async def _stop(self, container: Container, timeout: int | None, signum: int) -> None:
        if timeout is None:
            timeout = container.record.config.stop_timeout
        if timeout is None:
            timeout = STOP_TIMEOUT
        self._containers.set_state(container, manually_stopped=True)
        if await self._end_restarting(container):
            return
        container.stopping = True
        gone = container.changed
        if container.process is None:  # it has just ended; wait until that is worked up
            async with container.lock:
                return
        with suppress(NotFound):
            await self._supervisor.signal(container, signum)
        try:
            await asyncio.wait_for(gone.wait(), None if timeout < 0 else timeout)
        except TimeoutError:
            await self._supervisor.kill_and_wait(container)

    async def _end_restarting(self, container: Container) -> bool:
        """Stop a container that waits for its restart; whether it did."""
        async with container.lock:
            if container.process is not None or not self._supervisor.cancel_restart(container):
                return False
            self._containers.set_state(container, status=Status.EXITED)
            waiting.tell(container, waiting.NOT_RUNNING)
            return True

    async def kill(self, container: Container, signal: str = "") -> None:
        """POST …/kill. Conflict when it does not run."""
        signum = signals.parse(signal or "SIGKILL")
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        self._containers.set_state(container, manually_stopped=True)
        if await self._end_restarting(container):
            return
        if signum == SIGKILL:
            await self._supervisor.kill_and_wait(container)
            return
        if signum == signals.parse(container.record.config.stop_signal or "SIGTERM"):
            container.stopping = True
        try:
            await self._supervisor.signal(container, signum)
        except NotFound:
            raise Conflict(f"container {container.id} is not running") from None

    async def restart(self, container: Container, timeout: int | None = None, signal: str = "") -> None:
        """POST …/restart: stop if it runs, then start."""
        container.keep = True  # `--rm` is about the end of its work, not about this
        try:
            with suppress(NotModified):
                await self.stop(container, timeout, signal)
            with suppress(NotModified):
                await self.start(container)
        finally:
            container.keep = False
        self._events.container(container.record, "restart")

    async def pause(self, container: Container) -> None:
        """POST …/pause. Conflict unless it runs."""
        async with container.lock:
            process = self._running(container)
            if container.state.status == Status.PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            with self._still_there(container):
                await process.pause()
            self._containers.set_state(container, status=Status.PAUSED)
        self._events.container(container.record, "pause")

    async def unpause(self, container: Container) -> None:
        """POST …/unpause. Conflict unless it is paused."""
        async with container.lock:
            if container.state.status != Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            with self._still_there(container):
                await self._running(container).unpause()
            self._containers.set_state(container, status=Status.RUNNING)
        self._events.container(container.record, "unpause")

    @contextmanager
    def _still_there(self, container: Container) -> Iterator[None]:
        """A cgroup that is gone belongs to a process whose end is about to be worked up."""
        try:
            yield
        except FileNotFoundError:
            raise Conflict(f"container {container.id} is not running") from None

    def _running(self, container: Container) -> Process:
        """The process. Conflict in Docker's words when there is none."""
        if container.process is None:
            if container.state.status == Status.RESTARTING:
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            raise Conflict(f"container {container.id} is not running")
        return container.process

    async def remove(self, container: Container, force: bool = False, volumes: bool = False) -> None:
        """DELETE /containers/{id}. Conflict when it runs and is not to be killed, or is being removed already."""
        if container.removing:
            raise Conflict(f"removal of container {container.name} is already in progress")
        status = container.state.status
        if container.state.running and not force:
            advice = "stop the container before removing or force remove"
            if status == Status.PAUSED:
                advice = "unpause and then stop the container before removing or force remove"
            raise Conflict(f'cannot remove container "/{container.name}": container is {status}: {advice}')
        container.removing = True
        try:
            await self._end_restarting(container)
            container.keep = True
            while True:
                await self._supervisor.kill_and_wait(container)
                async with container.lock:
                    if container.process is None:  # no start was under way
                        await self._supervisor.remove_locked(container, volumes)
                        return
        finally:
            container.removing = container.gone
            container.keep = False

    def rename(self, container: Container, name: str) -> None:
        """POST …/rename. InvalidArgument, Conflict."""
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        bare = names.check(name)
        old = container.name
        if bare == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            self._containers.reserve(bare)
        except Conflict as error:
            raise Conflict(f"Error when allocating new name: {error}") from None
        try:
            self._containers.update(container, name=bare)
        finally:
            self._containers.release(bare)
        self._events.container(container.record, "rename", oldName=f"/{old}")
