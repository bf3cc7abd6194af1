"""One life of a machine: from QEMU's start to its end. `boot.py` has the way to the guest's first word."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from pybox import hostos
from pybox.errors import PyboxError
from pybox.hostagent import configuration
from pybox.hostagent.boot import RESTORE, Beginning, Boot
from pybox.hostagent.launch import Launched
from pybox.hostagent.plan import Plan, from_state, from_suspended
from pybox.hostagent.pool import Line, Pool
from pybox.hostagent.vm import VmFailure
from pybox.machine import suspended
from pybox.machine.accelerators import Candidate
from pybox.machine.golden import GoldenState
from pybox.machine.suspended import Place, Suspended, SuspendedStore
from pybox.model import ForwardedPort, PhaseCallback
from pybox.qemu.command import Channels, EngineMachine

if TYPE_CHECKING:
    from pybox.hostagent.guest import Guest
    from pybox.qemu.monitor import Monitor

log = logging.getLogger(__name__)
_CONFIGURE = 200.0  # seconds; longer than the guest gets for an answer
_API = 120.0  # seconds from there to the engine's API
_STOP_SPARE = 30.0  # seconds beyond what containers get, to unmount
_SSH_PORT = 22  # in the guest
_POWER_OFF = 15.0  # seconds from the guest's last word to QEMU's end
_FOLDERS = 30.0  # seconds
_LEAST_PATIENCE = 60.0  # seconds to save or load RAM, …
_SLOWEST = 10.0  # …and MiB a second beyond that


class MachineRun:
    """One QEMU and the guest in it: `start`, then `wait` or `stop`, and `close` at last, whatever happened."""

    def __init__(
        self,
        plan: Plan,
        candidate: Candidate,
        progress: PhaseCallback,
        began: float,
        *,
        is_second: bool,
        launched: Launched | None = None,
    ) -> None:
        self.is_second = is_second  # the first has ended by itself
        self.ssh_port: int | None = None  # of 127.0.0.1
        self._plan = plan
        self._candidate = candidate
        self._boot = Boot(plan, candidate, progress, began, self._configuration, launched)
        self._pool = Pool(self._clients_wait)
        self._clock: asyncio.Task[None] | None = None

    @property
    def qemu_pid(self) -> int | None:
        return None if self._boot.vm is None else self._boot.vm.pid

    def memory_used(self) -> int:
        """Return the bytes of this computer's memory that the machine takes, all its processes counted."""
        pids = (os.getpid(), self.qemu_pid, self._boot.shares.pid)
        return sum(hostos.current().memory_of(pid) for pid in pids if pid is not None)

    def ports(self) -> tuple[ForwardedPort, ...]:
        """Return the published ports."""
        return () if self._boot.ports is None else self._boot.ports.live()

    # -- the start ----------------------------------------------------------------------------------

    async def start(self, state: GoldenState | None) -> None:
        """Boot, or go on from a state; configure; wait for the API.

        Raises MachineError with all that was seen; NoLife when the accelerator is at fault.
        """

        if state is None:
            await self._start(lambda machine: machine, None)
        else:
            beginning = Beginning(state.devices, has_memory=False, patience=RESTORE)
            await self._start(lambda machine: from_state(machine, state), beginning)

    async def resume(self, found: Suspended, store: SuspendedStore) -> None:
        """Go on where the machine was suspended; configure; wait for the API.

        Raises MachineError with all that was seen. What is in the store then can still be resumed.
        """

        async def take() -> None:
            await asyncio.to_thread(store.take, found)

        beginning = Beginning(found.place.stream, has_memory=True, patience=self._patience(), take=take)
        await self._start(from_suspended, beginning)

    async def _start(self, change: Callable[[EngineMachine], EngineMachine], beginning: Beginning | None) -> None:
        def machine(channels: Channels) -> EngineMachine:
            return change(self._plan.machine(self._candidate, channels))

        boot = self._boot
        await self._pool.open()
        await boot.start(machine, beginning)
        assert boot.guest is not None and boot.monitor is not None
        if beginning is not None and beginning.has_memory:
            await boot.phase("folders", boot.join_folders(), _FOLDERS)
        await boot.phase("engine", boot.guest.configured.wait(), _CONFIGURE)
        await boot.phase("api", self._prove_api(boot.guest, boot.monitor), _API)
        self._keep_time(boot.guest)

    def _keep_time(self, guest: Guest) -> None:
        from pybox.hostagent.clock import keep_time

        self._clock = asyncio.create_task(keep_time(guest.set_clock))

    def _patience(self) -> float:
        return _LEAST_PATIENCE + self._plan.memory_mib / _SLOWEST

    def _configuration(self) -> dict[str, object]:
        plan = self._plan
        return configuration.configuration(
            plan.files.name, plan.settings, plan.keys, plan.shares, plan.certificates, os.environ, self._pool
        )

    def _clients_wait(self, count: int) -> None:
        if self._boot.guest is not None:
            self._boot.guest.clients_wait(count)

    async def _prove_api(self, guest: Guest, monitor: Monitor) -> None:
        await guest.ready.wait()
        await self._pool.prove()
        if self._plan.settings.ssh:
            # A table of its own: a guest that boots anew loses its published ports, but not this.
            from pybox.forward.ports import Ports

            self.ssh_port = (await Ports(monitor).publish("tcp", "127.0.0.1", 0, _SSH_PORT)).host_port

    # -- the life -----------------------------------------------------------------------------------

    async def take(self) -> Line:
        """Return a connection to the engine. Raises OSError when there is none."""
        return await self._pool.take()

    async def is_busy(self) -> bool:
        """Say whether something goes on in the guest that only the guest knows."""
        assert self._boot.guest is not None
        return await self._boot.guest.is_busy()

    # -- the end ------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait for QEMU's end."""
        assert self._boot.vm is not None
        await self._boot.vm.wait()

    def ending(self) -> VmFailure | None:
        """Return what was seen of the end, None when the guest has powered off by itself."""
        return self._boot.ending()

    async def stop(self, timeout: float) -> None:
        """Power off: containers get `timeout` seconds to end; with 0, or a guest that does not, QEMU is ended."""
        vm, guest = self._boot.vm, self._boot.guest
        if vm is None or vm.status is not None:
            return
        if timeout > 0 and guest is not None and guest.configured.is_set():
            try:
                await guest.stop(timeout)
                await asyncio.wait_for(guest.stopped.wait(), timeout + _STOP_SPARE)
                await asyncio.wait_for(vm.wait(), _POWER_OFF)
            except (PyboxError, TimeoutError) as error:
                log.error("the guest does not power off (%s); QEMU is ended", error or "no answer in time")
        await self.close()

    async def suspend(self, store: SuspendedStore, parts: Mapping[str, str]) -> None:
        """Save the machine's memory, which needs `parts` to go on, and end QEMU.

        Raises MachineError or OSError; the guest goes on then, if QEMU lives.
        """
        guest, monitor = self._boot.guest, self._boot.monitor
        assert guest is not None and monitor is not None
        mark = _Marks()
        draft = await asyncio.to_thread(store.draft)
        mark("draft")
        await guest.sync()
        mark("synced")
        # Nobody talks to the guest while its memory is read: what came in then could be in a part that is read already.
        await self._boot.shares.leave()
        await self._stop_clock()
        mark("quiet")
        try:
            record = await self._save(monitor, draft, parts)
            mark("saved")
        except (PyboxError, OSError):
            with suppress(PyboxError):  # QEMU is gone, and that is told by its end
                await monitor.resume()
                await self._boot.join_folders()
            self._keep_time(guest)
            await asyncio.to_thread(store.clean)
            raise
        await self.close()
        mark("ended")
        await asyncio.to_thread(store.publish, draft, record)
        mark("kept")

    async def _save(self, monitor: Monitor, draft: Place, parts: Mapping[str, str]) -> suspended.Record:
        from pybox.hostagent import statefile

        plan, files = self._plan, self._plan.files
        await statefile.save(monitor, files.sockets, draft.stream, memory=True, patience=self._patience())
        record = await asyncio.to_thread(
            suspended.record,
            parts,
            self._candidate.accelerator,
            plan.memory_mib,
            plan.cpus,
            plan.shares,
            files.data_disk,
            draft.stream,
        )
        await asyncio.to_thread(draft.write, record)
        if plan.shares:
            with suppress(FileNotFoundError):  # then files in use will be stale
                files.share_nodes.replace(draft.nodes)
        return record

    async def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)

    async def close(self) -> None:
        """End everything that still runs, and remove the sockets."""
        self._pool.close()
        await self._stop_clock()
        await self._boot.close()
        files = self._plan.files
        files.processes.unlink(missing_ok=True)
        if hostos.current().passes_sockets:
            for path in files.sockets.glob("*.sock"):
                if path not in (files.agent_socket, files.api_socket):
                    path.unlink(missing_ok=True)


class _Marks:
    """Tells the log how long each step of something took."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, name: str) -> None:
        now = time.monotonic()
        log.info("%s in %.3f s", name, now - self._last)
        self._last = now
