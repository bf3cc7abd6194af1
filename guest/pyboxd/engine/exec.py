"""Execs: more processes in running containers. Kept until their container ends or is removed."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from typing import Protocol

from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.model import Status
from pyboxd.engine.preparation import run_directory_of
from pyboxd.engine.specs import ExecConfig, exec_spec
from pyboxd.engine.trees import remove_tree
from pyboxd.errors import Conflict, InvalidArgument, NotFound, PyboxdError
from pyboxd.runtime.client import Attachment, Process
from pyboxd.runtime.failure import StartFailure
from pyboxd.runtime.spec import ExecSpec

log = logging.getLogger(__name__)
KEPT = 64  # ended execs of one container that can still be inspected


class ExecRuntime(Protocol):
    """The part of the runtime that is needed here."""

    async def exec(self, spec: ExecSpec) -> Process: ...


@dataclass
class Exec:
    """One exec. `exit_code` is None until it has ended."""

    id: str
    container: Container
    config: ExecConfig
    process: Process | None = None
    pid: int = 0
    started: bool = False
    exit_code: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        return self.process is not None and self.exit_code is None


class Execs:
    """All execs."""

    def __init__(self, containers: Containers, runtime: ExecRuntime, events: Events) -> None:
        self._containers = containers
        self._runtime = runtime
        self._events = events
        self._execs: dict[str, Exec] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, container: Container, config: ExecConfig) -> Exec:
        """POST /containers/{id}/exec. Conflict unless the container runs."""
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        self._check_running(container)
        made = Exec(secrets.token_hex(32), container, config)
        self._execs[made.id] = made
        self._forget_oldest(container)
        self._event(made, f"exec_create: {' '.join(config.cmd)}")
        return made

    def get(self, exec_id: str) -> Exec:
        """NotFound in Docker's words."""
        found = self._execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def of(self, container: Container) -> list[str]:
        """Ids of a container's running execs."""
        return [found.id for found in self._execs.values() if found.container is container and found.running]

    def _check_running(self, container: Container) -> None:
        if container.process is None:
            raise Conflict(f"container {container.id} is not running")
        if container.state.status == Status.PAUSED:
            raise Conflict(f"Container {container.name} is paused, unpause the container before exec")

    def check_startable(self, made: Exec) -> None:
        """Conflict when it was started before, or its container does not run."""
        if made.started:
            raise Conflict(f"Error: Exec command {made.id} has already run")
        self._check_running(made.container)

    async def start(self, made: Exec, attached: bool) -> Attachment | None:
        """Start it; the attachment to its streams, if one is wanted. StartFailure, Conflict."""
        self.check_startable(made)
        made.started = True
        container, config = made.container, made.config
        assert container.process is not None
        run_dir = f"{run_directory_of(container.id)}/exec-{made.id[:16]}"
        spec = exec_spec(container.record, config, made.id, run_dir, container.process.cgroup)
        attachment = None
        process = None
        self._event(made, f"exec_start: {' '.join(config.cmd)}")
        try:
            process = await self._runtime.exec(spec)
            if attached:
                output = config.attach_stdout or config.tty, config.attach_stderr and not config.tty
                attachment = await self._attach(process, config.attach_stdin, *output)
            await process.start()
        except BaseException as error:  # a cancelled call, too: the end of its connection makes the monitor give up
            made.exit_code = error.exit_code if isinstance(error, StartFailure) else 128
            made.ended.set()
            if process is not None:
                await process.close()
            raise
        made.process, made.pid = process, process.pid
        task = asyncio.get_running_loop().create_task(self._follow(made, process, run_dir))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return attachment

    async def _attach(self, process: Process, stdin: bool, stdout: bool, stderr: bool) -> Attachment:
        try:
            return await process.attach(stdin, stdout, stderr)
        except NotFound:
            await process.made()  # says why it could not be made, if that is the reason
            raise

    async def _follow(self, made: Exec, process: Process, run_dir: str) -> None:
        try:
            made.exit_code = (await process.wait()).code
        except PyboxdError as error:
            log.warning("exec %s was lost: %s", made.id[:12], error)
            made.exit_code = 137
        made.ended.set()
        await process.close()
        remove_tree(run_dir)
        self._event(made, "exec_die", exitCode=str(made.exit_code))

    async def resize(self, made: Exec, rows: int, columns: int) -> None:
        """POST /exec/{id}/resize. Conflict when it does not run."""
        if made.process is None or not made.running:
            raise Conflict(f"exec process {made.id} is not running")
        await made.process.resize(rows, columns)

    def _event(self, made: Exec, action: str, **more: str) -> None:
        self._events.container(made.container.record, action, execID=made.id, **more)

    # as a companion of containers

    def started(self, container: Container) -> None:
        """Nothing runs in a container that has just started."""

    def ended(self, container: Container) -> None:
        """The container's end ended all of them; clients may still ask how."""
        self._forget_oldest(container)

    def _forget_oldest(self, container: Container) -> None:
        done = [key for key, made in self._execs.items() if made.container is container and made.ended.is_set()]
        for key in done[:-KEPT]:
            del self._execs[key]

    def forget(self, container: Container) -> None:
        """The container was removed."""
        for key in [key for key, made in self._execs.items() if made.container is container]:
            del self._execs[key]
