"""One QEMU up to its guest's first word, booted or from a saved state, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pybox import process
from pybox.errors import MachineError, PyboxError
from pybox.frozen import frozen
from pybox.hostagent.launch import Launched
from pybox.hostagent.plan import Plan
from pybox.hostagent.shares import ShareServer
from pybox.hostagent.vm import Vm, VmFailure, launch
from pybox.machine.accelerators import Candidate
from pybox.model import Phase, PhaseCallback
from pybox.qemu.command import Channels, EngineMachine, engine_command

if TYPE_CHECKING:
    from pybox.forward.ports import Ports
    from pybox.hostagent.guest import Guest
    from pybox.qemu.monitor import Monitor

T = TypeVar("T")
_MONITOR = 30.0  # seconds
_SIGN_OF_LIFE = 5.0  # seconds that an unproved accelerator has
_UNPROVED_BOOT = 30.0  # seconds until a guest under an unproved accelerator must talk
_BOOT = 90.0  # seconds until any guest must talk; an emulated one on a busy host takes its time
RESTORE = 15.0  # seconds until one from a saved state must; it takes a tenth of one
_LAST_MOMENT = 0.5  # seconds between the end of QEMU's connections and that of its process


@frozen
class Beginning:
    """A saved state that a machine goes on from instead of booting."""

    stream: Path
    has_memory: bool  # RAM is in the stream, and the guest knows this host from before
    patience: float  # seconds to load it
    take: Callable[[], Awaitable[None]] | None = None  # called when it is loaded, and before the guest goes on


class NoLife(MachineError):
    """Nothing came from the guest in time: its accelerator does not work."""


class Boot:
    """A QEMU and what is connected to it: `start`, then whatever is wanted, and `close` at last, whatever happened.

    `make_configuration` gives what the guest is told; with None it is told nothing. `launched` is a QEMU that runs
    already; `start` takes that one.
    """

    def __init__(
        self,
        plan: Plan,
        candidate: Candidate,
        progress: PhaseCallback,
        began: float,
        make_configuration: Callable[[], dict[str, Any]] | None,
        launched: Launched | None = None,
    ) -> None:
        self._plan = plan
        self._candidate = candidate
        self._progress = progress
        self._began = began  # time.monotonic() of the start's beginning
        self._make_configuration = make_configuration
        self._launched = launched
        self._share_address = ""
        self._control_socket = None if launched is None else launched.control_socket
        self._talking: asyncio.Task[None] | None = None
        self.vm = None if launched is None else Vm(launched.child, launched.command, plan.files)
        self.shares = ShareServer(plan.shares, plan.files.share_config, plan.files.share_log)
        self.monitor: Monitor | None = None
        self.ports: Ports | None = None
        self.guest: Guest | None = None

    async def start(self, machine: Callable[[Channels], EngineMachine], beginning: Beginning | None = None) -> None:
        """Start QEMU and return when the guest has said who it is.

        Raises MachineError with all that was seen; NoLife when the accelerator is at fault.
        """
        files = self._plan.files
        launched = self._launched or await launch(lambda channels: engine_command(machine(channels)), files)
        self.vm = Vm(launched.child, launched.command, files)
        self._share_address = launched.share_address
        self._control_socket = launched.control_socket
        if beginning is None or not beginning.has_memory:
            await self.shares.start(self._share_address)
        # QEMU comes up meanwhile.
        from pybox.forward.ports import Ports
        from pybox.hostagent.guest import Guest
        from pybox.qemu.monitor import Monitor

        self.monitor = monitor = await self.phase("qemu", Monitor.connect(launched.monitor_socket, files.name), _MONITOR)
        self.ports = Ports(monitor, self._plan.settings.default_host_ip)
        self.guest = guest = Guest(self._make_configuration, self.ports)
        if beginning is not None:
            await self.phase("state", self._load(monitor, beginning), beginning.patience)
        reader, writer = await asyncio.open_connection(sock=launched.control_socket)
        self._talking = asyncio.create_task(guest.talk(reader, writer))
        if beginning is None:
            await self.phase("kernel", self._first_word(guest, monitor), _BOOT)
        else:
            # One that is full of busy programs takes its time.
            await self.phase("kernel", guest.hello.wait(), _BOOT if beginning.has_memory else RESTORE)

    async def _load(self, monitor: Monitor, beginning: Beginning) -> None:
        from pybox.hostagent import statefile

        sockets, memory = self._plan.files.sockets, beginning.has_memory
        await statefile.load(monitor, sockets, beginning.stream, memory=memory, patience=beginning.patience)
        if beginning.take is not None:
            await beginning.take()
        await monitor.resume()

    async def join_folders(self) -> None:
        """Serve the folders to a guest that knows them from before. Raises PyboxError."""
        assert self.guest is not None
        if self._plan.shares:
            await self.guest.forget_cut_message()
            await self.shares.start(self._share_address, resume=True)

    async def _first_word(self, guest: Guest, monitor: Monitor) -> None:
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

    async def phase(self, name: str, step: Awaitable[T], timeout: float) -> T:
        """Wait for a step of the start while QEMU lives and the guest goes along, and tell its end."""
        assert self.vm is not None
        vm = self.vm
        work = asyncio.ensure_future(step)
        death = asyncio.ensure_future(vm.wait())
        watched: set[asyncio.Future[Any]] = {work, death}
        if self.guest is not None:
            watched.add(self.guest.refused)
        try:
            await asyncio.wait(watched, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self.guest is not None and self.guest.refused.done():
                raise self.guest.refused.result()
            if death.done():
                raise MachineError(f"the machine ended while it started (phase `{name}`)")
            if not work.done():
                raise MachineError(f"the machine's start got stuck (phase `{name}`)", f"{timeout:g} s have passed.")
            result = work.result()
        except NoLife:
            raise
        except (PyboxError, OSError) as error:
            raise await self._failure(vm, error) from None
        finally:
            for task in (work, death):
                task.cancel()
            await asyncio.gather(work, death, return_exceptions=True)
        self._progress(Phase(name, time.monotonic() - self._began))
        return result

    async def _failure(self, vm: Vm, error: Exception) -> MachineError:
        """Return the error with all that was seen; a QEMU that crashes under an unproved accelerator condemns it."""
        with suppress(TimeoutError):  # connections end before the process does
            await asyncio.wait_for(vm.wait(), _LAST_MOMENT)
        failure = vm.failure(error)
        crashed = vm.status is not None and vm.status < 0
        if crashed and not self._candidate.proved:
            return NoLife(f"QEMU {process.ending(vm.status or 0)} at its start", failure.details)
        return failure

    def ending(self) -> VmFailure | None:
        """Return what was seen of the end, None when the guest has powered off by itself."""
        assert self.vm is not None and self.guest is not None
        if self.guest.stopped.is_set():
            return None
        return self.vm.failure(MachineError("the machine ended by itself"))

    async def close(self) -> None:
        """End QEMU, if it still runs, and everything that is connected to it."""
        if self._talking is not None:
            self._talking.cancel()
            await asyncio.gather(self._talking, return_exceptions=True)
        if self._control_socket is not None:
            self._control_socket.close()
        if self.ports is not None:
            self.ports.close()
        await self.shares.stop()
        if self.vm is not None:
            await self.vm.end(self.monitor)
        if self.monitor is not None:
            await self.monitor.close()
