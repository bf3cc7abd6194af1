"""The hostagent: decides how one machine is run, keeps it running, and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable
from dataclasses import replace

from pybox import hostos
from pybox.errors import MachineError, PyboxError
from pybox.hostagent import configuration, golden
from pybox.hostagent.boot import NoLife, Plan
from pybox.hostagent.desk import Desk
from pybox.hostagent.run import MachineRun
from pybox.hostagent.shares import ShareServer, can_serve
from pybox.hostos.interface import native_arch
from pybox.machine import disks, keys
from pybox.machine.accelerators import Candidate, VerdictBook, choose
from pybox.machine.files import MachineFiles, StartRequest
from pybox.machine.golden import GoldenState, GoldenStore
from pybox.machine.image import GuestImage
from pybox.machine.status import MachineStatus
from pybox.model import MachineState, Phase, Verdict
from pybox.qemu import probe

log = logging.getLogger(__name__)
_RESTART_AFTER = 600.0  # seconds of life that earn a machine which ended by itself another start
_CPUS_AT_MOST = 4
_MEMORY_MIB = (2048, 8192)  # least and most of a default machine


def default_memory_mib(total: int) -> int:
    """Return a machine's memory on a host with `total` MiB: a quarter, between 2 and 8 GiB."""
    least, most = _MEMORY_MIB
    return max(least, min(most, total // 4))


def default_cpus(total: int) -> int:
    """Return a machine's CPUs on a host with `total`: half, at most 4."""
    return max(1, min(_CPUS_AT_MOST, total // 2))


class HostAgent:
    """One machine's keeper. The caller holds the machine's lock and has ended what an earlier one left."""

    def __init__(self, files: MachineFiles, request: StartRequest) -> None:
        self._files = files
        self._request = request
        self._began = time.monotonic()
        self._started_at = time.time()
        self._book = VerdictBook(files.paths.accelerators_file)
        self._store = GoldenStore(files.paths.golden_dir)
        self._storing: asyncio.Task[None] | None = None
        self._last_error = ""
        self._plan: Plan | None = None
        self._candidate: Candidate | None = None
        self._run: MachineRun | None = None
        self.desk = Desk(self.status)

    async def keep(self) -> MachineError | None:
        """Start the machine and keep it until it stops. Returns why it failed, None when it was stopped."""
        try:
            if await self._until_stop_order(self._start()):
                return MachineError("the start was broken off", "The machine was stopped while it started.")
            while True:
                await self.desk.become(MachineState.RUNNING)
                assert self._run is not None
                running_since = time.monotonic()
                if await self._until_stop_order(self._run.wait()):
                    return None
                failure = self._run.ending()
                if failure is None:
                    log.info("the guest has powered off")
                    return None
                log.error("%s\n%s", failure, failure.details)
                self._last_error = failure.brief
                if time.monotonic() - running_since < _RESTART_AFTER and self._run.is_second:
                    return failure
                await self.desk.become(MachineState.STARTING)
                await self._run.close()
                if await self._until_stop_order(self._start(second=True)):
                    return None
        except PyboxError as error:
            log.error("%s\n%s", error, error.details)
            return MachineError(error.brief, error.details, error.resolution)
        finally:
            await self._end()

    async def _until_stop_order(self, work: Awaitable[object]) -> bool:
        """Wait for `work`; True when a stop order came first, and `work` was given up."""
        task = asyncio.ensure_future(work)
        await asyncio.wait((task, self.desk.stop_order), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return False
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True

    async def _end(self) -> None:
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)
        if self._run is None:
            return
        if self.desk.stop_order.done():
            await self.desk.become(MachineState.STOPPING)
            await self._run.stop(self.desk.stop_order.result())
        await self._run.close()

    # -- the start ----------------------------------------------------------------------------------

    async def _start(self, second: bool = False) -> None:
        """Start the machine under the first accelerator that works. Raises PyboxError."""
        self._began = time.monotonic()
        self._plan, candidates = self._prepare()
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

    async def _started_from(self, plan: Plan, candidate: Candidate, state: GoldenState, second: bool) -> bool:
        """Start from a state; False when that failed, and the state is gone."""
        try:
            await self._run_from(plan, candidate, state, second)
        except MachineError as error:
            log.warning("no start from the golden state: %s\n%s", error, error.details)
            self._store.discard(state, error.brief)
            return False
        return True

    async def _run_from(self, plan: Plan, candidate: Candidate, state: GoldenState | None, second: bool) -> None:
        self._run = MachineRun(plan, candidate, self._phase, self._began, is_second=second)
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

    def _prepare(self) -> tuple[Plan, list[Candidate]]:
        """Look at everything that a start needs, and make what is missing. Raises PyboxError."""
        host = hostos.current()
        settings = self._request.settings
        image = GuestImage.open(self._request.image)
        qemu = probe.find(image.arch, settings.qemu, self._files.paths.qemu_file)
        candidates = choose(host, qemu, image.arch, native_arch(), settings.accelerator, self._book)
        disks.ensure(qemu, self._files.data_disk, settings.disk_size)
        folders = configuration.shares(settings, host) if can_serve() else []
        plan = Plan(
            files=self._files,
            settings=settings,
            image=image,
            keys=keys.ensure(self._files.keys),
            qemu=qemu,
            memory_mib=settings.memory_mib or default_memory_mib(host.total_memory_mib()),
            cpus=settings.cpus or default_cpus(os.cpu_count() or 1),
            certificates=configuration.certificates(settings, host),
            shares=ShareServer(folders, self._files.share_config, self._files.share_log),
        )
        return plan, candidates

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
        known = MachineStatus(
            name=self._files.name,
            state=state,
            api_socket=self._files.api_socket,
            pid=os.getpid(),
            started_at=self._started_at,
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
            shares=plan.shares.shares,
            accelerator=self._candidate.accelerator if self._candidate else None,
            qemu_pid=self._run.qemu_pid if self._run else None,
            ssh_port=self._run.ssh_port if self._run else None,
            ports=self._run.ports() if self._run else (),
        )
