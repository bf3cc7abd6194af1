"""The process of a container: how it is made, what happens when it ends, and how it is found again.

`Supervisor` works under a container's `lock`, which its callers hold; what clients may ask for is in `lifecycle`. What
a start makes is undone in reverse when a later step fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Protocol

from pyboxd import locations
from pyboxd.engine import restart, signals, waiting
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.model import ContainerConfig, HostConfig, Record, Status
from pyboxd.engine.preparation import Preparation, directory_of, run_directory_of, running_ids
from pyboxd.engine.trees import remove_tree
from pyboxd.errors import NotFound, PyboxdError, SystemFailure
from pyboxd.runtime.client import Process
from pyboxd.runtime.failure import StartFailure
from pyboxd.runtime.spec import ContainerSpec, Exit

log = logging.getLogger(__name__)
KILL_PATIENCE = 10.0  # seconds for the kernel to end what was killed
BURIAL_PATIENCE = 5.0  # seconds for the files of removed containers to be gone; the next start removes the rest
SIGKILL = 9
_NANO = 10**9


class Processes(Protocol):
    """The part of the runtime that is needed here."""

    async def create(self, spec: ContainerSpec) -> Process: ...
    async def recover(self, run_dir: str) -> Process | Exit: ...


class Companion(Protocol):
    """Something that goes along with a running container (its health check, its execs)."""

    def started(self, container: Container) -> None: ...
    def ended(self, container: Container) -> None: ...


class Supervisor:
    """Makes processes and works up their ends.

    `detach` takes a container's network away, `release` is called with a record that was removed (its volumes), and
    `collect` in the background when the container is gone for good (its image may have stayed only for it).
    """

    def __init__(
        self,
        containers: Containers,
        events: Events,
        runtime: Processes,
        preparation: Preparation,
        detach: Callable[[Record], Awaitable[None]],
        release: Callable[[Record], Awaitable[None]],
        collect: Callable[[], Awaitable[None]],
        companions: tuple[Companion, ...] = (),
    ) -> None:
        self._containers = containers
        self._events = events
        self._runtime = runtime
        self._preparation = preparation
        self._detach = detach
        self._release = release
        self._collect = collect
        self._companions = companions
        self._tasks: set[asyncio.Task[None]] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._closing = False

    # start

    async def launch(self, container: Container, restarts: int) -> None:
        """Make the process. On a failure the container is as it was, with the error recorded."""
        record = container.record
        container.stopping = False
        try:
            async with AsyncExitStack() as undo:
                spec = await self._preparation.prepare(record, undo)
                process = await self._runtime.create(spec)
                undo.push_async_callback(self._abandon, process)
                await self._attach_pending(container, process)
                await process.start()
                self._set_running(container, process, restart_count=restarts)
                undo.pop_all()
        except OSError as error:
            failure = SystemFailure(f"failed to start container {record.id}: {error}")
            await self._start_failed(container, failure)
            raise failure from error
        except PyboxdError as error:
            await self._start_failed(container, error)
            raise
        self._events.container(container.record, "start")
        self._supervise(container, process)

    def _set_running(self, container: Container, process: Process, **changes: int) -> None:
        self._containers.set_state(
            container,
            status=Status.RUNNING,
            pid=process.pid,
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=time.time_ns(),
            manually_stopped=False,
            health=None,
            **changes,
        )

    async def _abandon(self, process: Process) -> None:
        if process.started:
            await process.kill_all()
        await process.close()

    async def _attach_pending(self, container: Container, process: Process) -> None:
        """Give the clients that attached before there was a process their attachments: no output is missed."""
        for pending in container.pending:
            attachment = await process.attach(pending.stdin, pending.stdout, pending.stderr)
            if pending.attachment.done():
                await attachment.close()
            else:
                pending.attachment.set_result(attachment)
        container.pending.clear()

    async def _start_failed(self, container: Container, error: PyboxdError) -> None:
        code = error.exit_code if isinstance(error, StartFailure) else 128
        self._let_go(container)
        self._containers.set_state(container, exit_code=code, error=str(error), pid=0)
        if container.state.status == Status.RESTARTING:
            self._containers.set_state(container, status=Status.EXITED, finished_at=time.time_ns())
        waiting.tell(container, waiting.NOT_RUNNING, waiting.NEXT_EXIT)
        if container.record.host.auto_remove:
            await self.remove_locked(container)

    def _let_go(self, container: Container) -> None:
        for pending in container.pending:
            if not pending.attachment.done():
                pending.attachment.set_result(None)
        container.pending.clear()

    def _supervise(self, container: Container, process: Process) -> None:
        container.process = process
        for companion in self._companions:
            companion.started(container)
        self._spawn(self._follow(container, process))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a container's supervision failed", exc_info=task.exception())

    # the end of a process

    async def _follow(self, container: Container, process: Process) -> None:
        ended = await process.wait()
        async with container.lock:
            if container.process is process:
                await self._ended(container, ended)
                await process.close()

    async def _ended(self, container: Container, ended: Exit) -> None:
        """Work up the end of a container's process: state, events, waiters, then what comes next."""
        container.process = None
        self._let_go(container)
        for companion in self._companions:
            companion.ended(container)
        try:
            await self._detach(container.record)
        except PyboxdError:
            log.exception("the network of container %s could not be taken away", container.record.short_id)
        state = container.state
        finished = int(ended.finished_at * _NANO)
        again = not container.stopping and not self._closing and self._restarts(container, ended.code)
        self._containers.set_state(
            container,
            status=Status.RESTARTING if again else Status.EXITED,
            pid=0,
            exit_code=ended.code,
            oom_killed=ended.oom_killed,
            finished_at=finished,
        )
        remove_tree(run_directory_of(container.id))  # what is still there after a crash was not worked up
        if ended.oom_killed:
            self._events.container(container.record, "oom")
        run_time = max(0, finished - state.started_at)
        self._events.container(container.record, "die", exitCode=str(ended.code), execDuration=str(run_time // _NANO))
        if again:
            waiting.tell(container, waiting.NEXT_EXIT, waiting.NOT_RUNNING)  # so does Docker: it did stop
            container.restart_delay = restart.delay(container.restart_delay, run_time / _NANO)
            container.restarting = self._spawn(self._restart_later(container))
            return
        waiting.tell(container, waiting.NEXT_EXIT, waiting.NOT_RUNNING)
        container.changed.set()
        container.changed = asyncio.Event()
        if container.record.host.auto_remove and not container.keep:
            await self.remove_locked(container)

    def _restarts(self, container: Container, code: int) -> bool:
        state = container.state
        policy = container.record.host.restart_policy
        return restart.wanted(policy, code, state.restart_count, state.manually_stopped)

    async def _restart_later(self, container: Container) -> None:
        await asyncio.sleep(container.restart_delay)
        async with container.lock:
            if container.restarting is not asyncio.current_task():
                return
            container.restarting = None
            try:
                await self.launch(container, restarts=container.state.restart_count + 1)
            except PyboxdError as error:
                log.warning("container %s could not be restarted: %s", container.record.short_id, error)

    def cancel_restart(self, container: Container) -> bool:
        """Forget a restart that is due; whether there was one."""
        task, container.restarting = container.restarting, None
        if task is not None:
            task.cancel()
        return task is not None

    # signals and removal

    async def signal(self, container: Container, signum: int) -> None:
        """Send a signal; a paused container is let go on, as it could not end otherwise."""
        process = container.process
        if process is None:
            raise NotFound(f"container {container.id} is not running")
        await process.signal(signum)
        self._events.container(container.record, "kill", signal=str(signum))
        if container.state.status == Status.PAUSED:
            await process.unpause()
            self._containers.set_state(container, status=Status.RUNNING)

    async def kill_and_wait(self, container: Container) -> None:
        """End it whatever it does. SystemFailure when even that does not help."""
        gone = container.changed
        process = container.process
        if process is None:
            return
        container.stopping = True
        self._events.container(container.record, "kill", signal=str(SIGKILL))
        await process.kill_all()
        try:
            await asyncio.wait_for(gone.wait(), KILL_PATIENCE)
        except TimeoutError:
            raise SystemFailure(
                f"cannot kill container: {container.name}: tried to kill container, but did not receive an exit event"
            ) from None

    async def remove_locked(self, container: Container, volumes: bool = True) -> None:
        """Forget a container that does not run; its files go in the background, out of the way at once."""
        if container.gone:
            return
        container.gone = container.removing = True
        self._let_go(container)
        record = container.record
        self._containers.remove(container)
        grave = f"{locations.TEMPORARY}/{record.id}"
        with suppress(FileNotFoundError):
            os.rename(directory_of(record.id), grave)
        burial = self._spawn(self._bury(grave, run_directory_of(record.id)))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)
        if volumes:
            await self._release(record)
        self._events.container(record, "destroy")
        waiting.tell(container, *waiting.CONDITIONS)
        container.changed.set()

    async def _bury(self, *directories: str) -> None:
        for directory in directories:
            try:
                await asyncio.to_thread(remove_tree, directory)
            except OSError as error:  # an upper directory that is busy for a moment; the next start empties it
                log.warning("%s could not be removed: %s", directory, error)
        await self._collect()

    # engine start and stop

    async def recover(self) -> None:
        """After a start of the engine: find what still runs, record what ended meanwhile, apply restart policies."""
        known = {container.id for container in self._containers}
        await asyncio.gather(*(self._end_stray(name) for name in running_ids() if name not in known))
        for container in self._containers:
            async with container.lock:
                await self._recover(container)
        due = [container for container in self._containers if self._due_at_boot(container)]
        for container in due:
            self._containers.set_state(container, status=Status.RESTARTING)
            container.restarting = self._spawn(self._restart_later(container))

    async def _end_stray(self, container_id: str) -> None:
        """End the step of a build that an earlier engine was in the middle of: nobody waits for it any more."""
        run_directory = run_directory_of(container_id)
        with suppress(NotFound, TimeoutError):
            found = await self._runtime.recover(run_directory)
            if not isinstance(found, Exit):
                if found.started:
                    await found.kill_all()
                    await asyncio.wait_for(found.wait(), KILL_PATIENCE)
                await found.close()
        await self._detach(Record(container_id, "", 0, "", "", "linux", ContainerConfig(), HostConfig()))
        await asyncio.to_thread(remove_tree, run_directory)

    def _due_at_boot(self, container: Container) -> bool:
        state = container.state
        if state.running or not state.started_at:
            return False
        return self._restarts(container, state.exit_code)

    async def _recover(self, container: Container) -> None:
        state = container.state
        if state.running or os.path.isdir(run_directory_of(container.id)):
            ended = await self._find(container)
            if ended is not None:
                await self._ended(container, ended)
            return
        await self._detach(container.record)  # the engine may have died between a start's first step and its second
        if container.record.host.auto_remove and state.status == Status.EXITED:
            await self.remove_locked(container)

    async def _find(self, container: Container) -> Exit | None:
        """Take over the process of an earlier engine; how it ended when there is none to take over."""
        state = container.state
        lost = Exit(255, False, time.time())
        try:
            found = await self._runtime.recover(run_directory_of(container.id))
        except NotFound:  # the machine went down under it
            waited = state.status == Status.RESTARTING
            return Exit(state.exit_code, state.oom_killed, state.finished_at / _NANO) if waited else lost
        if isinstance(found, Exit):
            return found
        if not found.started:  # the engine died in the middle of a start
            await found.close()
            return lost
        if state.status not in (Status.RUNNING, Status.PAUSED) or state.pid != found.pid:
            self._set_running(container, found)
        self._supervise(container, found)
        return None

    async def close(self, timeout: float) -> None:
        """Stop all containers before the machine goes down; policies bring them back at the next start."""
        self._closing = True
        for container in self._containers:
            if self.cancel_restart(container):
                self._containers.set_state(container, status=Status.EXITED)
        running = [container for container in self._containers if container.process is not None]
        await asyncio.gather(*(self._shut_down(container, timeout) for container in running))
        if self._burials:  # a directory that is open would keep the data disk from being unmounted
            await asyncio.wait(self._burials, timeout=BURIAL_PATIENCE)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _shut_down(self, container: Container, timeout: float) -> None:
        own = container.record.config.stop_timeout
        gone = container.changed
        try:
            await self.signal(container, signals.parse(container.record.config.stop_signal or "SIGTERM"))
            await asyncio.wait_for(gone.wait(), timeout if own is None else min(timeout, own))
        except (TimeoutError, NotFound):
            with suppress(PyboxdError):
                await self.kill_and_wait(container)
