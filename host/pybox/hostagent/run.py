"""One life of a machine: from QEMU's start to its end. The guest's part of it is `guest.py`'s."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pybox import hostos, process
from pybox.errors import MachineError, PyboxError
from pybox.forward.ports import Ports
from pybox.hostagent import configuration
from pybox.hostagent.api import ApiServer, Engine
from pybox.hostagent.clock import keep_time
from pybox.hostagent.guest import Guest
from pybox.hostagent.shares import ShareServer
from pybox.hostagent.tls import client_context
from pybox.hostagent.vm import Vm, VmFailure, VmFiles, launch
from pybox.machine.accelerators import Candidate
from pybox.machine.files import MachineFiles, Processes, ProcessRecord
from pybox.machine.image import GuestImage
from pybox.machine.keys import SERVER_NAME, MachineKeys
from pybox.model import ForwardedPort, Phase, PhaseCallback
from pybox.qemu.command import Board, Channels, EngineMachine, engine_command
from pybox.qemu.monitor import Monitor
from pybox.qemu.probe import Qemu
from pybox.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
_MONITOR = 30.0  # seconds
_SIGN_OF_LIFE = 5.0  # seconds that an unproved accelerator has
_UNPROVED_BOOT = 30.0  # seconds until a guest under an unproved accelerator must talk
_BOOT = 90.0  # seconds until any guest must talk; an emulated one on a busy host takes its time
_CONFIGURE = 200.0  # seconds; longer than the guest gets for an answer
_API = 120.0  # seconds from there to the engine's API
_STOP_SPARE = 30.0  # seconds beyond what containers get, to unmount
_LAST_MOMENT = 0.5  # seconds between the end of QEMU's connections and that of its process
_SSH_PORT = 22  # in the guest
_POWER_OFF = 15.0  # seconds from the guest's last word to QEMU's end


@dataclass(frozen=True)
class Plan:
    """Everything that a life of the machine needs to know, decided before it begins."""

    files: MachineFiles
    settings: Settings
    image: GuestImage
    keys: MachineKeys
    qemu: Qemu
    memory_mib: int
    cpus: int
    certificates: str
    shares: ShareServer


class NoLife(MachineError):
    """Nothing came from the guest in time: its accelerator does not work."""


class MachineRun:
    """One QEMU and the guest in it: `start`, then `wait` or `stop`, and `close` at last, whatever happened."""

    def __init__(self, plan: Plan, candidate: Candidate, progress: PhaseCallback, began: float, is_second: bool) -> None:
        self.is_second = is_second  # the first has ended by itself
        self.ssh_port: int | None = None  # of 127.0.0.1
        self._plan = plan
        self._candidate = candidate
        self._progress = progress
        self._began = began  # time.monotonic() of the start's beginning
        self._vm: Vm | None = None
        self._control_socket: socket.socket | None = None
        self._monitor: Monitor | None = None
        self._ports: Ports | None = None
        self._guest: Guest | None = None
        self._api: ApiServer | None = None
        self._engine: Engine | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def qemu_pid(self) -> int | None:
        return None if self._vm is None else self._vm.pid

    def ports(self) -> tuple[ForwardedPort, ...]:
        """Return the published ports."""
        return () if self._ports is None else self._ports.live()

    # -- the start ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Boot, configure, open the API.

        Raises MachineError with all that was seen; NoLife when the accelerator is at fault.
        """
        files = self._plan.files
        launched = await launch(self._command, VmFiles(files.sockets, files.qemu_log, files.console_log))
        self._vm = vm = launched.vm
        self._control_socket = launched.control_socket
        Processes(time.time(), ProcessRecord.of(os.getpid()), ProcessRecord.of(vm.pid)).write(files)
        await self._plan.shares.start(vm.share_address)
        self._monitor = await self._phase("qemu", Monitor.connect(launched.monitor_socket, files.name), _MONITOR)
        self._ports = Ports(self._monitor, self._plan.settings.default_host_ip)
        self._guest = guest = Guest(self._configuration, self._ports)
        reader, writer = await asyncio.open_connection(sock=launched.control_socket)
        self._tasks.append(asyncio.create_task(guest.talk(reader, writer)))
        await self._phase("kernel", self._boot(guest, self._monitor), _BOOT)
        await self._phase("engine", guest.configured.wait(), _CONFIGURE)
        await self._phase("api", self._open_api(guest, self._monitor), _API)
        self._tasks.append(asyncio.create_task(keep_time(guest.set_clock)))

    def _command(self, channels: Channels) -> list[str]:
        plan = self._plan
        board = Board(
            program=plan.qemu.program,
            arch=plan.image.arch,
            accelerator=self._candidate.accelerator,
            memory_mib=plan.memory_mib,
            cpus=plan.cpus,
            kernel=plan.image.kernel,
            initrd=plan.files.initrd,
            console_log=plan.files.console_log,
        )
        return engine_command(EngineMachine(board, plan.files.name, plan.image.root_disk, plan.files.data_disk, channels))

    def _configuration(self) -> dict[str, object]:
        plan = self._plan
        return configuration.configuration(
            plan.files.name, plan.settings, plan.keys, plan.shares.shares, plan.certificates, os.environ
        )

    async def _phase(self, name: str, step: Awaitable[T], timeout: float) -> T:
        """Wait for a step of the start while QEMU lives and the guest goes along, and tell its end."""
        assert self._vm is not None
        vm = self._vm
        work = asyncio.ensure_future(step)
        death = asyncio.ensure_future(vm.wait())
        watched: set[asyncio.Future[Any]] = {work, death}
        if self._guest is not None:
            watched.add(self._guest.refused)
        try:
            await asyncio.wait(watched, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._guest is not None and self._guest.refused.done():
                raise self._guest.refused.result()
            if death.done():
                raise MachineError(f"the machine ended while it started (phase `{name}`)")
            if not work.done():
                raise MachineError(f"the machine's start got stuck (phase `{name}`)", f"{timeout:g} s have passed.")
            result = work.result()
        except NoLife:
            raise
        except (PyboxError, OSError) as error:
            raise await self._start_failure(vm, error) from None
        finally:
            for task in (work, death):
                task.cancel()
            await asyncio.gather(work, death, return_exceptions=True)
        self._progress(Phase(name, time.monotonic() - self._began))
        return result

    async def _start_failure(self, vm: Vm, error: Exception) -> MachineError:
        """Return the error with all that was seen; a QEMU that crashes under an unproved accelerator condemns it."""
        with suppress(TimeoutError):  # connections end before the process does
            await asyncio.wait_for(vm.wait(), _LAST_MOMENT)
        failure = vm.failure(error)
        crashed = vm.status is not None and vm.status < 0
        if crashed and not self._candidate.proved:
            return NoLife(f"QEMU {process.ending(vm.status or 0)} at its start", failure.details)
        return failure

    async def _boot(self, guest: Guest, monitor: Monitor) -> None:
        """Wait until the guest says hello. Raises NoLife under an unproved accelerator that does nothing."""
        if self._candidate.proved:
            await guest.hello.wait()
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(guest.hello.wait(), _SIGN_OF_LIFE)
            return
        # The first disk access is the kernel's: a firmware that starts a given kernel reads no disk.
        if await monitor.disk_reads("root") == 0:
            raise NoLife(f"the guest showed no sign of life within {_SIGN_OF_LIFE:g} s")
        with suppress(TimeoutError):
            await asyncio.wait_for(guest.hello.wait(), _UNPROVED_BOOT)
            return
        raise NoLife(f"the guest began to boot, and did not get far within {_UNPROVED_BOOT:g} s")

    async def _open_api(self, guest: Guest, monitor: Monitor) -> None:
        await guest.ready.wait()
        # A table of its own: a guest that boots anew loses its published ports, but not these.
        own = Ports(monitor)
        way = await own.publish("tcp", "127.0.0.1", 0, configuration.API_PORT)
        context = client_context(self._plan.keys.ca_file, self._plan.keys.client_file)
        self._engine = Engine(context, SERVER_NAME, way.host_port)
        await self._engine.prove()
        self._api = ApiServer(self._engine)
        await self._api.open(self._plan.files.api_socket)
        if self._plan.settings.ssh:
            self.ssh_port = (await own.publish("tcp", "127.0.0.1", 0, _SSH_PORT)).host_port

    # -- the end ------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait for QEMU's end."""
        assert self._vm is not None
        await self._vm.wait()

    def ending(self) -> VmFailure | None:
        """Return what was seen of the end, None when the guest has powered off by itself."""
        assert self._vm is not None and self._guest is not None
        if self._guest.stopped.is_set():
            return None
        return self._vm.failure(MachineError("the machine ended by itself"))

    async def stop(self, timeout: float) -> None:
        """Power off: containers get `timeout` seconds to end; with 0, or a guest that does not, QEMU is ended."""
        if self._api is not None:
            await self._api.close()
        if self._vm is None or self._vm.status is not None:
            return
        if timeout > 0 and self._guest is not None and self._guest.configured.is_set():
            try:
                await self._guest.stop(timeout)
                await asyncio.wait_for(self._guest.stopped.wait(), timeout + _STOP_SPARE)
                await asyncio.wait_for(self._vm.wait(), _POWER_OFF)
            except (PyboxError, TimeoutError) as error:
                log.error("the guest does not power off (%s); QEMU is ended", error or "no answer in time")
        await self.close()

    async def close(self) -> None:
        """End everything that still runs, and remove the sockets."""
        if self._api is not None:
            await self._api.close()
        if self._engine is not None:
            self._engine.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._control_socket is not None:
            self._control_socket.close()
        if self._ports is not None:
            self._ports.close()
        await self._plan.shares.stop()
        if self._vm is not None:
            await self._vm.end(self._monitor)
        if self._monitor is not None:
            await self._monitor.close()
        files = self._plan.files
        files.processes.unlink(missing_ok=True)
        if hostos.current().passes_sockets:
            for path in files.sockets.glob("*.sock"):
                if path != files.agent_socket:
                    path.unlink(missing_ok=True)
