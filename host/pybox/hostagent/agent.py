"""The hostagent: keeps one machine running, answers for it, and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from pybox import hostos
from pybox.errors import MachineError, PyboxError
from pybox.hostagent import configuration
from pybox.hostagent.local import Listener, serve
from pybox.hostagent.run import MachineRun, NoLife, Plan
from pybox.hostagent.shares import ShareServer, can_serve
from pybox.hostos.interface import native_arch
from pybox.machine import disks, keys
from pybox.machine.accelerators import Candidate, VerdictBook, choose
from pybox.machine.files import MachineFiles, StartRequest
from pybox.machine.image import GuestImage
from pybox.machine.orphans import end_orphan
from pybox.machine.reports import Failed, Order, Ready, Report, StatusReport, Stopped, decode_order, encode_report
from pybox.machine.status import MachineStatus
from pybox.model import MachineState, Phase, Verdict
from pybox.qemu import probe

log = logging.getLogger(__name__)
_STOP_ON_SIGNAL = 10.0  # seconds that containers get when the system ends this process
_RESTART_AFTER = 600.0  # seconds of life after which a machine that ends by itself is started again once more
_CPUS_AT_MOST = 4
_MEMORY_MIB = (2048, 8192)  # least and most of a default machine

ReportLine = Callable[[bytes], None]


def default_memory_mib(total: int) -> int:
    """Return a machine's memory on a host with `total` MiB: a quarter, between 2 and 8 GiB."""
    least, most = _MEMORY_MIB
    return max(least, min(most, total // 4))


def default_cpus(total: int) -> int:
    """Return a machine's CPUs on a host with `total`: half, at most 4."""
    return max(1, min(_CPUS_AT_MOST, total // 2))


class HostAgent:
    """One machine's keeper. The caller holds the machine's lock."""

    def __init__(self, files: MachineFiles, request: StartRequest, report: ReportLine) -> None:
        self._files = files
        self._request = request
        self._report_line = report  # to the start that waits for us
        self._state = MachineState.STARTING
        self._began = time.monotonic()
        self._started_at = time.time()
        self._phases: list[Phase] = []
        self._changed = asyncio.Condition()
        self._stop_order: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._failure: MachineError | None = None
        self._last_error = ""
        self._plan: Plan | None = None
        self._run: MachineRun | None = None
        self._candidate: Candidate | None = None
        self._book = VerdictBook(files.paths.accelerators_file)

    async def run(self) -> int:
        """Start the machine and keep it until it stops; the exit status."""
        self._catch_signals()
        end_orphan(self._files)
        listener = await serve(self._files.agent_socket, self._connected)
        try:
            return await self._keep()
        finally:
            self._tell(Failed(self._failure) if self._failure else Stopped())
            await self._become(MachineState.STOPPED)
            await asyncio.sleep(0)  # those who wait for the end write their answers
            self._close(listener)

    def _close(self, listener: Listener) -> None:
        listener.close()
        if hostos.current().passes_sockets:
            self._files.agent_socket.unlink(missing_ok=True)
