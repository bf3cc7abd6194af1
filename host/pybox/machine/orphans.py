"""A QEMU whose hostagent is gone: found by the record that the hostagent kept, ended through its monitor.

On systems that end children with their parent it is rarely there; a start looks all the same.
"""

from __future__ import annotations

import json
import logging
import time
from io import RawIOBase
from pathlib import Path

from pybox import hostos
from pybox.machine.files import MachineFiles, Processes, ProcessRecord

log = logging.getLogger(__name__)
MONITOR_SOCKET = "monitor.sock"
_PATIENCE = 5.0  # seconds for a QEMU that was asked to quit
_KILLED_PATIENCE = 10.0  # seconds for the system to clear away a killed process


def end_orphan(files: MachineFiles) -> None:
    """End the QEMU of an earlier hostagent, if it lives. Only the holder of the machine's lock may call this."""
    record = Processes.read(files)
    if record is None or record.qemu is None:
        return
    if record.qemu.lives():
        log.warning("QEMU %d of an earlier hostagent still runs; it is ended", record.qemu.pid)
        _ask_to_quit(files.sockets / MONITOR_SOCKET)
        if not _wait(record.qemu, _PATIENCE):
            log.warning("QEMU %d does not quit; it is killed", record.qemu.pid)
            hostos.current().end_process(record.qemu.pid)
            _wait(record.qemu, _KILLED_PATIENCE)
    files.processes.unlink(missing_ok=True)


def _ask_to_quit(monitor: Path) -> None:
    """Say `quit` over QMP; one that does not answer is killed by the caller."""
    try:
        with hostos.current().connect(monitor) as stream:
            for command in ("qmp_capabilities", "quit"):
                stream.write(json.dumps({"execute": command}).encode() + b"\n")
            _drain(stream)
    except OSError as error:
        log.info("its monitor does not answer: %s", error)


def _drain(stream: RawIOBase) -> None:
    """Read to the end: a connection that is closed too early would lose the command."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and stream.read(4096):
        pass


def _wait(process: ProcessRecord, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while process.lives():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
