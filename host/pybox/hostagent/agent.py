"""The hostagent: decides how one machine is run, keeps it running, and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable
from enum import Enum, auto
from typing import Any

from pybox import hostos
from pybox.errors import MachineError, PyboxError
from pybox.frozen import replace
from pybox.hostagent import golden
from pybox.hostagent.api import ApiServer
from pybox.hostagent.boot import NoLife
from pybox.hostagent.desk import Desk
from pybox.hostagent.headstart import HeadStart
from pybox.hostagent.launch import Launched
from pybox.hostagent.plan import Plan
from pybox.hostagent.pool import Line
from pybox.hostagent.preparation import prepare, prepare_resume
from pybox.hostagent.run import MachineRun
from pybox.machine import disks
from pybox.machine.accelerators import Candidate, VerdictBook
from pybox.machine.files import MachineFiles, StartRequest
from pybox.machine.golden import GoldenState, GoldenStore
from pybox.machine.status import MachineStatus
from pybox.machine.suspended import WAY_OUT, CannotResume, Suspended, SuspendedStore
from pybox.model import MachineState, Phase, Verdict

log = logging.getLogger(__name__)
_IDLE_STOP = 10.0  # seconds that the end of an idle machine may take what little runs
_RESTART_AFTER = 600.0  # seconds of life that earn a machine which ended by itself another start


class _Next(Enum):
    """What ended a wait."""

    WORK = auto()  # what was waited for
    STOP = auto()
    SUSPEND = auto()
    IDLE = auto()


class HostAgent:
    """One machine's keeper. The caller holds the machine's lock and has ended what an earlier one left.

    `head_start` is a QEMU that it has started already, and ends at last whatever becomes of it here.
    """

    def __init__(self, files: MachineFiles, request: StartRequest, head_start: HeadStart | None) -> None:
        self._files = files
        self._request = request
        self._head_start = head_start
        self._began = time.monotonic()
        self._started_at = time.time()
        self._book = VerdictBook(files.paths.accelerators_file)
        self._store = GoldenStore(files.paths.golden_dir)
        self._suspended = SuspendedStore(files)
        self._storing: asyncio.Task[None] | None = None
        self._last_error = ""
        self._plan: Plan | None = None
        self._candidate: Candidate | None = None
        self._run: MachineRun | None = None
        self._api = ApiServer(self._line)
        self._up = asyncio.Event()  # the engine can be reached
        self.desk = Desk(self.status)

    async def keep(self) -> MachineError | None:
        """Start the machine and keep it until it stops. Returns why it failed, None when it was stopped."""
        again, has_run = False, False
        try:
            while True:
                if await self._until_order(self._start(again)) is _Next.STOP:
                    text = "The machine was stopped while it started."
                    return None if has_run else MachineError("the start was broken off", text)
                assert self._run is not None
                has_run, running_since = True, time.monotonic()
                match await self._live(self._run):
                    case _Next.STOP | _Next.SUSPEND:
                        return None
                    case _Next.IDLE:
                        if await self._sleep() is _Next.STOP:
                            return None
                        again = False
                        continue
                failure = self._run.ending()
                if failure is None:
                    log.info("the guest has powered off")
                    return None
                log.error("%s\n%s", failure, failure.details)
                self._last_error = failure.brief
                if time.monotonic() - running_since < _RESTART_AFTER and self._run.is_second:
                    return failure
                self._up.clear()
                await self.desk.become(MachineState.STARTING)
                await self._run.close()
                again = True
        except PyboxError as error:
            log.error("%s\n%s", error, error.details)
            return MachineError(error.brief, error.details, error.resolution)
        finally:
            await self._end()

    async def _until_order(self, work: Awaitable[object], *others: tuple[_Next, Awaitable[object]]) -> _Next:
        """Wait for `work`, for one of the others, or for a stop order; then the rest is given up."""
        watched = {asyncio.ensure_future(work): _Next.WORK}
        watched |= {asyncio.ensure_future(other): name for name, other in others}
        waited: list[asyncio.Future[Any]] = [*watched, self.desk.stop_order]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        done = [task for task in watched if task.done()]
        for task in watched:
            task.cancel()
        await asyncio.gather(*watched, return_exceptions=True)
        if not done:
            return _Next.STOP
        done[0].result()
        return watched[done[0]]

    async def _live(self, run: MachineRun) -> _Next:
        """Let a machine that has started run. Returns when it has ended (WORK, STOP), is suspended or idle and off."""
        from pybox.hostagent.idle import wait_until_idle

        idle = self._request.settings.idle
        while True:
            await self._api.open(self._files.api_socket)
            self._up.set()
            await self.desk.become(MachineState.RUNNING)
            others: list[tuple[_Next, Awaitable[object]]] = [(_Next.SUSPEND, _told(self.desk.suspend_order))]
            if idle is not None:
                others.append((_Next.IDLE, wait_until_idle(idle.seconds, self._api, run.is_busy)))
            match await self._until_order(run.wait(), *others):
                case _Next.SUSPEND:
                    if await self._suspend(run):
                        return _Next.SUSPEND
                case _Next.IDLE:
                    log.info("nobody has used the machine for some time: %s", idle)
                    if idle is None or not idle.suspends:
                        await self._switch_off(run)
                        return _Next.IDLE
                    if await self._suspend(run):
                        return _Next.IDLE
                case ended:
                    return ended

    def _close_door(self) -> None:
        """Let clients that come from now on wait; each of them is somebody who wants the machine."""
        self._up.clear()
        self.desk.wanted.clear()

    async def _suspend(self, run: MachineRun) -> bool:
        """Suspend the machine; False when that failed, and it runs on."""
        self._close_door()
        await self.desk.become(MachineState.SUSPENDING)
        began = time.monotonic()
        assert self._plan is not None and self._candidate is not None
        try:
            if not golden.can_have_state(self._candidate, hostos.current().passes_sockets):
                raise MachineError("machines of this kind cannot be suspended", f"accelerator {self._candidate.accelerator}")
            await run.suspend(self._suspended, golden.parts(self._plan, self._candidate))
        except (PyboxError, OSError) as error:
            failure = _as_failure("the machine was not suspended", error)
            log.error("%s\n%s", failure, failure.details)
            await self.desk.tried_to_suspend(failure)
            return False
        log.info("suspended in %.3f s", time.monotonic() - began)
        self._run = None
        await self._api.cut()
        await self.desk.tried_to_suspend(None)
        return True

    async def _switch_off(self, run: MachineRun) -> None:
        """Stop the machine, as it is idle."""
        self._close_door()
        await self.desk.become(MachineState.STOPPING)
        await run.stop(_IDLE_STOP)
        self._run = None
        await self._api.cut()
        await self.desk.become(MachineState.ASLEEP)

    async def _sleep(self) -> _Next:
        """Wait, with the machine off, until somebody wants it (WORK) or it shall stay off (STOP)."""
        found = await self._until_order(self.desk.wanted.wait())
        if found is _Next.WORK:
            log.info("somebody wants the machine")
            await self.desk.become(MachineState.STARTING)
        return found

    async def _line(self) -> Line:
        """Return a connection to the engine, for which a machine that is off is woken. Raises OSError."""
        while True:
            if not self._up.is_set():
                self.desk.wanted.set()
                await self._up.wait()
            run = self._run
            assert run is not None
            try:
                return await run.take()
            except ConnectionAbortedError:  # the machine went off just now
                if self._up.is_set() and run is self._run:
                    raise

    async def _end(self) -> None:
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)
        await self._api.close()
        if self._run is None:
            return
        if self.desk.stop_order.done():
            await self.desk.become(MachineState.STOPPING)
            await self._run.stop(self.desk.stop_order.result())
        await self._run.close()

    # -- the start ----------------------------------------------------------------------------------

    async def _start(self, second: bool = False) -> None:
        """Resume the machine, or start it under the first accelerator that works. Raises PyboxError."""
        self._began, self._started_at = time.monotonic(), time.time()
        self._suspended.clean()
        head_start, self._head_start = self._head_start, None
        if head_start is not None and await self._started_ahead(head_start):
            return
        if (found := self._suspended.find()) is not None:
            await self._resume(found)
            return
        self._plan, candidates = prepare(self._files, self._request, self._book)
        for candidate in candidates:
            self._candidate = candidate
            log.info("start with %s", candidate)
            try:
                await self._start_with(self._plan, candidate, second)
            except NoLife as error:
                log.warning("%s does not work here: %s\n%s", candidate.accelerator, error, error.details)
                self._remember(candidate, works=False, reason=error.brief)
            except MachineError as error:
                if candidate.proved:
                    raise
                log.warning("no start with %s: %s\n%s", candidate.accelerator, error, error.details)
            else:
                self._remember(candidate, works=True, reason="")
                return
        raise MachineError(
            "no accelerator of this host runs the guest",
            "\n".join(f"{verdict.accelerator}: {verdict.reason}" for verdict in self._verdicts()),
            "pybox config set accelerator tcg",
        )

    async def _started_ahead(self, head: HeadStart) -> bool:
        """Go on with a QEMU that was started already; False when that failed, and the golden state is gone."""
        self._began, self._plan, self._candidate = head.began, head.plan, head.candidate
        if not await self._started_from(head.plan, head.candidate, head.state, False, head.launched):
            return False
        self._remember(head.candidate, works=True, reason="")
        self._storing = asyncio.create_task(self._verify(head.state))
        return True

    async def _resume(self, found: Suspended) -> None:
        """Go on where the machine was suspended. Raises PyboxError; a machine that has a memory never boots instead."""
        self._plan, self._candidate = prepare_resume(self._files, self._request, found.record)
        self._suspended.check(found, golden.parts(self._plan, self._candidate))
        log.info("resume with %s", self._candidate)
        self._run = MachineRun(self._plan, self._candidate, self._phase, self._began, is_second=False)
        try:
            await self._run.resume(found, self._suspended)
        except MachineError as error:
            await self._run.close()
            if self._suspended.exists():
                raise CannotResume(f"{self._files.name} was not resumed: {error}", error.details, WAY_OUT) from None
            raise MachineError(
                f"{error}, after it was resumed", error.details, "Its saved memory is used up. Boot it: pybox start"
            ) from None
        await asyncio.to_thread(self._suspended.clean)

    async def _start_with(self, plan: Plan, candidate: Candidate, second: bool) -> None:
        """Start from the golden state, made now if there is none yet; if that goes wrong, boot cold."""
        state = None
        if plan.settings.golden_state and golden.can_have_state(candidate, hostos.current().passes_sockets):
            key = golden.key(plan, candidate)
            state = self._store.find(key)
            made = state is None and not self._store.is_refused(key)
            if state is not None and await self._started_from(plan, candidate, state, second):
                self._storing = asyncio.create_task(self._verify(state))
                return
            if (made or state is not None) and (state := await self._make_state(plan, candidate)) is not None:
                if await self._started_from(plan, candidate, state, second):
                    self._storing = asyncio.create_task(self._publish(state))
                    return
                self._store.refuse(key, "a machine did not start from the state that was just made")
        await self._run_from(plan, candidate, None, second)

    async def _make_state(self, plan: Plan, candidate: Candidate) -> GoldenState | None:
        """Boot a machine that becomes a state; None when that cannot be, and the machine has to boot for itself."""
        try:
            return await golden.make(plan, candidate, self._store, self._phase, self._began)
        except NoLife:
            raise
        except (MachineError, OSError) as error:
            log.warning("no golden state: %s\n%s", error, error.details if isinstance(error, MachineError) else "")
            return None

    async def _started_from(
        self, plan: Plan, candidate: Candidate, state: GoldenState, second: bool, launched: Launched | None = None
    ) -> bool:
        """Start from a state; False when that failed, and the state is gone."""
        try:
            await self._run_from(plan, candidate, state, second, launched)
        except MachineError as error:
            log.warning("no start from the golden state: %s\n%s", error, error.details)
            self._store.discard(state, error.brief)
            return False
        return True

    async def _run_from(
        self,
        plan: Plan,
        candidate: Candidate,
        state: GoldenState | None,
        second: bool,
        launched: Launched | None = None,
    ) -> None:
        self._run = MachineRun(plan, candidate, self._phase, self._began, is_second=second, launched=launched)
        try:
            await self._run.start(state)
        except MachineError:
            await self._run.close()
            raise

    async def _publish(self, state: GoldenState) -> None:
        """Make a new state durable while the machine runs from it already."""
        try:
            await asyncio.to_thread(self._store.publish, state)
        except OSError as error:  # a full disk, say: the next start boots cold
            self._store.discard(state, str(error))

    async def _verify(self, state: GoldenState) -> None:
        if not await asyncio.to_thread(self._store.verify_in_time, state):
            self._last_error = "the saved state that this machine started from is damaged: pybox restart"

    def _phase(self, phase: Phase) -> None:
        log.info("phase %s after %.3f s", phase.name, phase.seconds)
        self.desk.phase(phase)

    def _remember(self, candidate: Candidate, works: bool, reason: str) -> None:
        assert self._plan is not None
        verdict = Verdict(candidate.accelerator, works, reason)
        self._book.remember(self._plan.qemu, self._plan.image.arch, verdict)

    def _verdicts(self) -> tuple[Verdict, ...]:
        if self._plan is None:
            return ()
        return tuple(self._book.verdicts(self._plan.qemu, self._plan.image.arch).values())

    # -- what can be said ---------------------------------------------------------------------------

    def status(self, state: MachineState) -> MachineStatus:
        """Return the machine's status in a state that the desk knows."""
        plan, disk = self._plan, self._files.data_disk
        suspended_at, saved_size = self._suspended.facts() if state is MachineState.SUSPENDED else (None, 0)
        known = MachineStatus(
            name=self._files.name,
            state=state,
            api_socket=self._files.api_socket,
            pid=os.getpid(),
            started_at=None if state in (MachineState.SUSPENDED, MachineState.ASLEEP) else self._started_at,
            suspended_at=suspended_at,
            saved_size=saved_size,
            idle=str(self._request.settings.idle or ""),
            last_error=self._last_error,
            verdicts=self._verdicts(),
            disk_size=disks.virtual_size(disk) if disk.exists() else None,
            disk_used=disks.used_size(disk),
        )
        if plan is None:
            return known
        return replace(
            known,
            memory_mib=plan.memory_mib,
            cpus=plan.cpus,
            arch=plan.image.arch,
            image_id=plan.image.id,
            qemu=f"{plan.qemu.program} {plan.qemu.version_text}",
            shares=plan.shares,
            accelerator=self._candidate.accelerator if self._candidate else None,
            qemu_pid=self._run.qemu_pid if self._run else None,
            memory_used=self._run.memory_used() if self._run else 0,
            ssh_port=self._run.ssh_port if self._run else None,
            ports=self._run.ports() if self._run else (),
        )


async def _told(order: asyncio.Future[None]) -> None:
    await asyncio.shield(order)  # giving up the wait does not give up the order


def _as_failure(brief: str, error: Exception) -> MachineError:
    if isinstance(error, PyboxError):
        return MachineError(f"{brief}: {error.brief}", error.details, error.resolution)
    return MachineError(f"{brief}: {error.strerror or error}" if isinstance(error, OSError) else brief, str(error))
