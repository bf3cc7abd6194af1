"""States of containers: what start, stop, the end of a process, policies and removal do. The runtime is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from pyboxd.database import Database
from pyboxd.engine import waiting
from pyboxd.engine.containers import Container, Containers, PendingAttach
from pyboxd.engine.events import Event, Events
from pyboxd.engine.lifecycle import Lifecycle
from pyboxd.engine.model import ContainerConfig, HostConfig, Record, RestartPolicy, State, Status
from pyboxd.engine.preparation import Preparation
from pyboxd.engine.store import Store
from pyboxd.engine.supervision import Processes, Supervisor
from pyboxd.errors import Conflict, InvalidArgument, NotFound, NotModified, SystemFailure
from pyboxd.frozen import replace
from pyboxd.runtime.failure import StartFailure
from pyboxd.runtime.spec import ContainerSpec, Exit, RootFilesystem

Scenario = Callable[["Lab"], Coroutine[Any, Any, None]]


class FakeAttachment:
    def __init__(self) -> None:
        self.closed = False

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 1, b"hello"

    async def close(self) -> None:
        self.closed = True


class FakeProcess:
    """A process that ends when it is told to, or by a signal."""

    def __init__(self, lab: Lab, pid: int) -> None:
        self.pid = pid
        self.cgroup = "/sys/fs/cgroup/none"
        self.started = False
        self.closed = False
        self.frozen = False
        self.signals: list[int] = []
        self._lab = lab
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        if self._lab.start_failure is not None:
            raise self._lab.start_failure
        self.started = True

    def end(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(Exit(code, False, 1000.0))

    async def signal(self, signum: int) -> None:
        self.signals.append(signum)
        if signum in self._lab.deadly:
            self.end(128 + signum)

    async def kill_all(self) -> None:
        self.end(137)

    async def pause(self) -> None:
        self.frozen = True

    async def unpause(self) -> None:
        self.frozen = False

    async def attach(self, stdin: bool, stdout: bool, stderr: bool) -> FakeAttachment:
        assert not self.started
        return FakeAttachment()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        self.closed = True


class Lab:
    """A supervisor with fakes around it."""

    def __init__(self) -> None:
        self.database = Database(":memory:")
        self.deadly = {15, 9}
        self.create_failure: Exception | None = None
        self.start_failure: Exception | None = None
        self.processes: list[FakeProcess] = []
        self.undone: list[str] = []
        self.detached: list[str] = []
        self.released: list[str] = []
        self.collected: list[int] = []  # how many containers there were then
        self.found: FakeProcess | Exit | None = None
        self.open()

    def open(self) -> None:
        """Also what a new engine does over the same database."""
        self.events = Events()
        self.containers = Containers(Store(self.database))
        self.supervisor = Supervisor(
            self.containers,
            self.events,
            cast(Processes, self),
            cast(Preparation, self),
            self._detach,
            self._release,
            self._collect,
        )
        self.lifecycle = Lifecycle(self.containers, self.events, self.supervisor)

    async def _detach(self, record: Record) -> None:
        self.detached.append(record.name)

    async def _release(self, record: Record) -> None:
        self.released.append(record.name)

    async def _collect(self) -> None:
        self.collected.append(len(list(self.containers)))

    async def prepare(self, record: Record, undo: AsyncExitStack) -> ContainerSpec:
        undo.callback(self.undone.append, record.name)
        return ContainerSpec(record.id, RootFilesystem((), "", ""), record.command, run_dir="")

    async def create(self, spec: ContainerSpec) -> FakeProcess:
        if self.create_failure is not None:
            raise self.create_failure
        process = FakeProcess(self, 100 + len(self.processes))
        self.processes.append(process)
        return process

    async def recover(self, run_dir: str) -> FakeProcess | Exit:
        if self.found is None:
            raise NotFound("nothing there")
        return self.found

    def add(self, name: str = "box", **host: Any) -> Container:
        self.containers.reserve(name)
        config = ContainerConfig(image="image", cmd=("run",))
        record = Record(name.ljust(64, "0"), name, 1, "sha256:1", "image", "linux", config, HostConfig(**host))
        container = self.containers.add(record)
        self.containers.release(name)
        return container

    def actions(self) -> list[str]:
        return [event.action for event in self.past()]

    def past(self) -> list[Event]:
        return list(self.events._ring)

    @property
    def process(self) -> FakeProcess:
        return self.processes[-1]


def play(scenario: Scenario) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await scenario(Lab())

    asyncio.run(run())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def stored(lab: Lab) -> dict[str, State]:
    return {record.name: record.state for record in Store(lab.database).containers()}


def test_a_run_from_start_to_end() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        await lab.lifecycle.start(box)
        assert (box.state.status, box.state.pid) == (Status.RUNNING, 100)
        assert stored(lab)["box"].status == Status.RUNNING
        ended = waiting.watch(box, "")
        lab.process.end(3)
        assert await ended == (3, "")
        assert (box.state.status, box.state.exit_code, box.state.pid) == (Status.EXITED, 3, 0)
        assert stored(lab)["box"].exit_code == 3
        assert lab.actions() == ["start", "die"]
        assert lab.past()[-1].attributes["exitCode"] == "3"
        assert lab.detached == ["box"]
        await settle()
        assert lab.process.closed

    play(scenario)


def test_a_second_start_changes_nothing() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        await lab.lifecycle.start(box)
        with pytest.raises(NotModified):
            await lab.lifecycle.start(box)
        assert len(lab.processes) == 1

    play(scenario)


def test_a_failed_start_is_undone_and_recorded() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        lab.start_failure = StartFailure("no such program", 127)
        with pytest.raises(StartFailure):
            await lab.lifecycle.start(box)
        assert lab.undone == ["box"]
        assert lab.process.closed
        assert (box.state.status, box.state.exit_code, box.state.error) == (Status.CREATED, 127, "no such program")
        lab.start_failure = None
        await lab.lifecycle.start(box)
        assert box.state.error == ""

    play(scenario)


def test_an_oserror_in_a_start_is_a_system_failure() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        lab.start_failure = OSError(28, "No space left on device")
        with pytest.raises(SystemFailure, match="No space left"):
            await lab.lifecycle.start(box)
        assert lab.undone == ["box"]

    play(scenario)


def test_rm_removes_after_a_failed_start_and_tells_those_who_wait() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add(auto_remove=True)
        removed = waiting.watch(box, "removed")
        lab.start_failure = StartFailure("no", 126)
        with pytest.raises(StartFailure):
            await lab.lifecycle.start(box)
        assert await removed == (126, "")
        assert list(lab.containers) == []

    play(scenario)


def test_rm_removes_at_the_end_with_the_exit_status() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add(auto_remove=True)
        removed, exited = waiting.watch(box, "removed"), waiting.watch(box, "next-exit")
        await lab.lifecycle.start(box)
        lab.process.end(5)
        assert await removed == (5, "")
        assert await exited == (5, "")
        assert lab.actions() == ["start", "die", "destroy"]
        assert lab.released == ["box"]
        assert stored(lab) == {}
        await lab.supervisor.close(0)
        assert lab.collected == [0]

    play(scenario)


def test_stop_terminates_then_kills() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        await lab.lifecycle.start(box)
        await lab.lifecycle.stop(box, 5)
        assert lab.process.signals == [15]
        assert box.state.exit_code == 143
        with pytest.raises(NotModified):
            await lab.lifecycle.stop(box)
        lab.deadly = set()
        await lab.lifecycle.start(box)
        await lab.lifecycle.stop(box, 0)
        assert lab.process.signals == [15]
        assert box.state.exit_code == 137
        assert lab.actions() == ["start", "kill", "die", "stop", "start", "kill", "kill", "die", "stop"]

    play(scenario)


def test_stop_takes_the_containers_own_signal() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        lab.containers.update(box, config=replace(box.record.config, stop_signal="SIGQUIT", stop_timeout=0))
        await lab.lifecycle.start(box)
        await lab.lifecycle.stop(box)
        assert lab.process.signals == [3]

    play(scenario)


def test_kill() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        with pytest.raises(Conflict, match=r"container box0+ is not running"):
            await lab.lifecycle.kill(box)
        await lab.lifecycle.start(box)
        await lab.lifecycle.kill(box, "HUP")
        assert lab.process.signals == [1]
        assert box.state.running
        await lab.lifecycle.kill(box)
        assert box.state.exit_code == 137

    play(scenario)


def test_pause() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        with pytest.raises(Conflict, match="is not running"):
            await lab.lifecycle.pause(box)
        await lab.lifecycle.start(box)
        with pytest.raises(Conflict, match="is not paused"):
            await lab.lifecycle.unpause(box)
        await lab.lifecycle.pause(box)
        assert (box.state.status, box.state.running, lab.process.frozen) == (Status.PAUSED, True, True)
        with pytest.raises(Conflict, match="already paused"):
            await lab.lifecycle.pause(box)
        with pytest.raises(Conflict, match="cannot start a paused container"):
            await lab.lifecycle.start(box)
        await lab.lifecycle.stop(box, 5)
        assert box.state.status == Status.EXITED
        assert not lab.process.frozen

    play(scenario)


def test_a_policy_restarts_until_it_is_stopped() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add(restart_policy=RestartPolicy("always"))
        await lab.lifecycle.start(box)
        lab.process.end(1)
        await until(lambda: box.state.status == Status.RESTARTING)
        assert box.state.running
        await until(lambda: box.state.status == Status.RUNNING)
        assert box.state.restart_count == 1
        await lab.lifecycle.stop(box, 5)
        await settle()
        assert box.state.status == Status.EXITED
        assert len(lab.processes) == 2

    play(scenario)


def test_a_stop_between_two_attempts() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add(restart_policy=RestartPolicy("always"))
        await lab.lifecycle.start(box)
        box.restart_delay = 30.0
        lab.process.end(1)
        await until(lambda: box.state.status == Status.RESTARTING)
        await lab.lifecycle.stop(box)
        assert box.state.status == Status.EXITED
        assert len(lab.processes) == 1

    play(scenario)


def test_on_failure_gives_up() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add(restart_policy=RestartPolicy("on-failure", 1))
        await lab.lifecycle.start(box)
        lab.process.end(1)
        await until(lambda: len(lab.processes) == 2)
        lab.process.end(1)
        await until(lambda: box.state.status == Status.EXITED)
        assert box.state.restart_count == 1

    play(scenario)


def test_remove() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        await lab.lifecycle.start(box)
        with pytest.raises(Conflict, match='cannot remove container "/box": container is running: stop'):
            await lab.lifecycle.remove(box)
        waiters = [waiting.watch(box, condition) for condition in waiting.CONDITIONS]
        await lab.lifecycle.remove(box, force=True, volumes=True)
        assert [await waiter for waiter in waiters] == [(137, "")] * 3
        with pytest.raises(NotFound, match="No such container: box"):
            lab.containers.get("box")
        assert lab.released == ["box"]
        lab.containers.reserve("box")
        await lab.supervisor.close(0)
        assert lab.collected == [0]

    play(scenario)


def test_two_removals_at_once() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        lab.deadly = set()
        await lab.lifecycle.start(box)
        first = asyncio.create_task(lab.lifecycle.remove(box, force=True))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="removal of container box is already in progress"):
            await lab.lifecycle.remove(box, force=True)
        await first

    play(scenario)


def test_restart_does_not_remove() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add(auto_remove=True)
        await lab.lifecycle.start(box)
        await lab.lifecycle.restart(box, 5)
        assert box.state.status == Status.RUNNING
        assert len(lab.processes) == 2
        lab.process.end(0)
        await until(lambda: box.gone)

    play(scenario)


def test_rename() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        lab.add("other")
        with pytest.raises(Conflict, match='The container name "/other" is already in use by container "other'):
            lab.lifecycle.rename(box, "other")
        with pytest.raises(InvalidArgument, match="same name"):
            lab.lifecycle.rename(box, "box")
        lab.lifecycle.rename(box, "/new")
        assert lab.containers.get("new") is box
        lab.containers.reserve("box")
        assert lab.past()[-1].attributes["oldName"] == "/box"

    play(scenario)


def test_who_attached_early_misses_nothing() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        pending = PendingAttach(False, True, True, asyncio.get_running_loop().create_future())
        gone = PendingAttach(False, True, True, asyncio.get_running_loop().create_future())
        gone.attachment.cancel()
        box.pending += [pending, gone]
        await lab.lifecycle.start(box)
        attachment = await pending.attachment
        assert attachment is not None
        assert box.pending == []

    play(scenario)


def test_who_attached_early_is_told_when_nothing_starts() -> None:
    async def scenario(lab: Lab) -> None:
        box = lab.add()
        pending = PendingAttach(False, True, True, asyncio.get_running_loop().create_future())
        box.pending.append(pending)
        lab.create_failure = StartFailure("no", 127)
        with pytest.raises(StartFailure):
            await lab.lifecycle.start(box)
        assert await pending.attachment is None

    play(scenario)


class TestAnotherEngine:
    """The engine died and comes back over the same database."""

    def test_a_living_container_is_taken_over(self) -> None:
        async def scenario(lab: Lab) -> None:
            await lab.lifecycle.start(lab.add())
            lab.found = lab.process
            lab.open()
            await lab.supervisor.recover()
            box = lab.containers.get("box")
            assert (box.state.status, box.state.pid) == (Status.RUNNING, 100)
            lab.process.end(4)
            await until(lambda: box.state.exit_code == 4)

        play(scenario)

    def test_an_end_in_between_is_recorded(self) -> None:
        async def scenario(lab: Lab) -> None:
            await lab.lifecycle.start(lab.add())
            await lab.lifecycle.start(lab.add("temporary", auto_remove=True))
            lab.found = Exit(6, True, 50.0)
            lab.open()
            await lab.supervisor.recover()
            box = lab.containers.get("box")
            assert (box.state.status, box.state.exit_code, box.state.oom_killed) == (Status.EXITED, 6, True)
            assert box.state.finished_at == 50 * 10**9
            assert [container.name for container in lab.containers] == ["box"]

        play(scenario)

    def test_after_a_power_cut(self) -> None:
        async def scenario(lab: Lab) -> None:
            await lab.lifecycle.start(lab.add())
            await lab.lifecycle.start(lab.add("back", restart_policy=RestartPolicy("unless-stopped")))
            stopped = lab.add("stopped", restart_policy=RestartPolicy("unless-stopped"))
            await lab.lifecycle.start(stopped)
            await lab.lifecycle.stop(stopped)
            lab.add("never", restart_policy=RestartPolicy("always"))
            lab.open()
            await lab.supervisor.recover()
            back = lab.containers.get("back")
            await until(lambda: back.state.status == Status.RUNNING)
            states = {container.name: container.state for container in lab.containers}
            assert (states["box"].status, states["box"].exit_code) == (Status.EXITED, 255)
            assert states["stopped"].status == Status.EXITED
            assert states["never"].status == Status.CREATED

        play(scenario)

    def test_a_machine_that_stops_brings_its_containers_back(self) -> None:
        async def scenario(lab: Lab) -> None:
            await lab.lifecycle.start(lab.add("back", restart_policy=RestartPolicy("unless-stopped")))
            await lab.supervisor.close(5.0)
            assert lab.process.signals == [15]
            assert stored(lab)["back"].status == Status.EXITED
            lab.open()
            await lab.supervisor.recover()
            back = lab.containers.get("back")
            await until(lambda: back.state.status == Status.RUNNING)

        play(scenario)


class TestLookingUp:
    def test_by_id_name_and_prefix(self) -> None:
        async def scenario(lab: Lab) -> None:
            box, other = lab.add("box"), lab.add("boy")
            assert lab.containers.get(box.id) is box
            assert lab.containers.get("/boy") is other
            assert lab.containers.get("box000") is box
            with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: bo"):
                lab.containers.get("bo")
            with pytest.raises(NotFound, match="No such container: x"):
                lab.containers.get("x")

        play(scenario)


class TestWaiting:
    def test_conditions(self) -> None:
        async def scenario(lab: Lab) -> None:
            box = lab.add()
            assert await waiting.watch(box, "not-running") == (0, "")
            with pytest.raises(InvalidArgument, match='invalid condition: "soon"'):
                waiting.watch(box, "soon")
            abandoned = waiting.watch(box, "next-exit")
            abandoned.cancel()
            await settle()
            assert box.waiters == []

        play(scenario)
