"""One life of a machine: from QEMU's start to its end. `boot.py` has the way to the guest's first word."""

from __future__ import annotations

import asyncio
import logging
import os

from pybox import hostos
from pybox.errors import PyboxError
from pybox.forward.ports import Ports
from pybox.hostagent import configuration
from pybox.hostagent.api import ApiServer
from pybox.hostagent.boot import Boot, Plan, from_state
from pybox.hostagent.clock import keep_time
from pybox.hostagent.guest import Guest
from pybox.hostagent.pool import Pool
from pybox.hostagent.vm import VmFailure
from pybox.machine.accelerators import Candidate
from pybox.machine.golden import GoldenState
from pybox.model import ForwardedPort, PhaseCallback
from pybox.qemu.command import Channels, EngineMachine
from pybox.qemu.monitor import Monitor

log = logging.getLogger(__name__)
_CONFIGURE = 200.0  # seconds; longer than the guest gets for an answer
_API = 120.0  # seconds from there to the engine's API
_STOP_SPARE = 30.0  # seconds beyond what containers get, to unmount
_SSH_PORT = 22  # in the guest
_POWER_OFF = 15.0  # seconds from the guest's last word to QEMU's end


class MachineRun:
    """One QEMU and the guest in it: `start`, then `wait` or `stop`, and `close` at last, whatever happened."""

    def __init__(self, plan: Plan, candidate: Candidate, progress: PhaseCallback, began: float, is_second: bool) -> None:
        self.is_second = is_second  # the first has ended by itself
        self.ssh_port: int | None = None  # of 127.0.0.1
        self._plan = plan
        self._candidate = candidate
        self._boot = Boot(plan, candidate, progress, began, self._configuration)
        self._api: ApiServer | None = None
        self._pool = Pool(self._clients_wait)
        self._clock: asyncio.Task[None] | None = None

    @property
    def qemu_pid(self) -> int | None:
        return None if self._boot.vm is None else self._boot.vm.pid

    def ports(self) -> tuple[ForwardedPort, ...]:
        """Return the published ports."""
        return () if self._boot.ports is None else self._boot.ports.live()

    # -- the start ----------------------------------------------------------------------------------

    async def start(self, state: GoldenState | None) -> None:
        """Boot, or go on from a state; configure; open the API.

        Raises MachineError with all that was seen; NoLife when the accelerator is at fault.
        """

        def machine(channels: Channels) -> EngineMachine:
            booted = self._plan.machine(self._candidate, channels)
            return booted if state is None else from_state(booted, state)

        boot = self._boot
        await self._pool.open()
        await boot.start(machine, state)
        assert boot.guest is not None and boot.monitor is not None
        await boot.phase("engine", boot.guest.configured.wait(), _CONFIGURE)
        await boot.phase("api", self._open_api(boot.guest, boot.monitor), _API)
        self._clock = asyncio.create_task(keep_time(boot.guest.set_clock))

    def _configuration(self) -> dict[str, object]:
        plan = self._plan
        return configuration.configuration(
            plan.files.name, plan.settings, plan.keys, plan.shares.shares, plan.certificates, os.environ, self._pool
        )

    def _clients_wait(self, count: int) -> None:
        if self._boot.guest is not None:
            self._boot.guest.clients_wait(count)

    async def _open_api(self, guest: Guest, monitor: Monitor) -> None:
        await guest.ready.wait()
        await self._pool.prove()
        self._api = ApiServer(self._pool)
        await self._api.open(self._plan.files.api_socket)
        if self._plan.settings.ssh:
            # A table of its own: a guest that boots anew loses its published ports, but not this.
            self.ssh_port = (await Ports(monitor).publish("tcp", "127.0.0.1", 0, _SSH_PORT)).host_port

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
        if self._api is not None:
            await self._api.close()
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

    async def close(self) -> None:
        """End everything that still runs, and remove the sockets."""
        if self._api is not None:
            await self._api.close()
        self._pool.close()
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
        await self._boot.close()
        files = self._plan.files
        files.processes.unlink(missing_ok=True)
        if hostos.current().passes_sockets:
            for path in files.sockets.glob("*.sock"):
                if path != files.agent_socket:
                    path.unlink(missing_ok=True)
