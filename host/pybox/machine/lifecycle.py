"""Start, stop, ask, delete: what the command line does with machines. Synchronous; one call per command.

    image = GuestImage.open(settings.paths.image_dir("amd64"))
    running = start(settings, "default", image, guest_code, progress=print)
    EngineClient(running.api_socket)…
    stop(settings, "default")

Each machine is run by a hostagent, a process of its own; these functions start it and talk to it. Who holds the
machine's lock decides whether it runs; records of processes are only hints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import RawIOBase
from pathlib import Path

from pybox import hostos, process
from pybox.errors import MachineError
from pybox.files import tail, write_atomically
from pybox.frozen import frozen
from pybox.machine import disks
from pybox.machine.files import MachineFiles, StartRequest, is_locked, locked
from pybox.machine.image import GuestImage
from pybox.machine.orphans import end_orphan
from pybox.machine.reports import (
    GO,
    Failed,
    Order,
    Ready,
    Report,
    StatusReport,
    Stopped,
    Suspended,
    decode_report,
    encode_order,
)
from pybox.machine.status import MachineStatus
from pybox.machine.suspended import SuspendedStore
from pybox.model import MachineState, Phase, PhaseCallback
from pybox.settings import Settings

DEFAULT_STOP_TIMEOUT = 10.0  # seconds for containers to end, as Docker gives them
_DELETE_PATIENCE = 0.2  # seconds
_AGENT_PATIENCE = 5.0  # seconds between a hostagent's taking the lock and its answering
_LOCK_PATIENCE = 10.0  # seconds between a hostagent's last word and its end


@frozen
class Running:
    """A machine that answers."""

    api_socket: Path
    phases: tuple[Phase, ...]  # of this start; only `ready` when it ran already
    status: MachineStatus


def start(
    settings: Settings,
    machine: str,
    image: GuestImage,
    make_guest_code: Callable[[], bytes],
    progress: PhaseCallback = lambda _phase: None,
) -> Running:
    """Start a machine and return when its engine answers; one that runs already, or just starts, is waited for.

    A suspended one is resumed, and when that cannot be, it is an error that says why: it never boots instead.
    `make_guest_code` returns the cpio archive with the engine's program. `progress` is called when a phase has ended.
    Raises MachineError with the phase, the command and the last lines of the console.
    """
    files = MachineFiles(settings.paths, machine)
    began = time.monotonic()
    running = _wait_for_running(files, progress)
    if running is not None:
        return running
    files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.paths.make_socket_dir(machine)
    detachment = hostos.current().detachment
    agent = process.spawn_detached(
        [sys.executable, "-P", "-m", "pybox.hostagent", machine],
        errors=files.agent_errors,
        new_session=detachment.new_session,
        creation_flags=detachment.creation_flags,
        environment=_environment(),
    )
    with agent.reports:
        with suppress(BrokenPipeError), agent.orders:  # it is gone already, and that is told below
            # It takes its time to come up, in which there is something to do here.
            _write_initrd(files, image, make_guest_code())
            StartRequest(settings, image.folder).write(files)
            agent.orders.write(GO)
        return _follow(files, iter(agent.reports.readline, b""), progress, began)


def stop(settings: Settings, machine: str, timeout: float = DEFAULT_STOP_TIMEOUT) -> bool:
    """Stop a machine; False when it did not run. One that is suspended stays so, and no client wakes it any more.

    `timeout` is how many seconds containers may take to end; 0 ends the machine at once, like pulling the plug.
    Raises MachineError when it does not stop.
    """
    files = MachineFiles(settings.paths, machine)
    stream = _connect(files)
    if stream is None:
        return False
    with stream:
        for report in _ask(stream, Order("stop", timeout)):
            if isinstance(report, Failed):
                raise report.error
            if isinstance(report, Stopped | Suspended):
                break
    _wait_for_unlock(files)
    return True


def suspend(settings: Settings, machine: str) -> bool:
    """Suspend a running machine: its memory goes to a file, from which the next start goes on; False when it did not run.

    Raises MachineError when that cannot be; the machine runs on then.
    """
    files = MachineFiles(settings.paths, machine)
    stream = _connect(files)
    if stream is None:
        return False
    with stream:
        for report in _ask(stream, Order("suspend")):
            if isinstance(report, Failed):
                raise report.error
            if isinstance(report, Suspended):
                break
        else:
            raise MachineError(f"the hostagent of {machine} ended before {machine} was suspended", tail(files.agent_log))
    _wait_for_unlock(files)
    return True


def discard(settings: Settings, machine: str) -> bool:
    """Give the saved memory of a suspended machine up; False when there is none. Raises MachineError while it runs.

    To what ran in it, it is as if the power had failed when it was suspended.
    """
    files = MachineFiles(settings.paths, machine)
    store = SuspendedStore(files)
    if not store.exists():
        return False
    if status(settings, machine).state is MachineState.SUSPENDED:
        stop(settings, machine, 0)  # a hostagent that waits for clients
    with locked(files, patience=_DELETE_PATIENCE):
        return store.discard()


def restart(
    settings: Settings,
    machine: str,
    image: GuestImage,
    make_guest_code: Callable[[], bytes],
    progress: PhaseCallback = lambda _phase: None,
    timeout: float = DEFAULT_STOP_TIMEOUT,
) -> Running:
    """Stop a machine, if it runs, and start it with today's settings, image and guest code."""
    stop(settings, machine, timeout)
    return start(settings, machine, image, make_guest_code, progress)


def status(settings: Settings, machine: str) -> MachineStatus:
    """Say what a machine is and does. Never waits for one that hangs longer than some seconds."""
    files = MachineFiles(settings.paths, machine)
    stream = _connect(files)
    if stream is not None:
        with stream:
            for report in _ask(stream, Order("status")):
                if isinstance(report, StatusReport):
                    return report.status
    return _status_of_stopped(files, settings)


def delete(settings: Settings, machine: str) -> bool:
    """Delete a machine with all its data, suspended or not; False when there is none. Raises MachineError while it runs."""
    import shutil  # of no use to a start

    files = MachineFiles(settings.paths, machine)
    if not files.exists():
        return False
    with locked(files, patience=_DELETE_PATIENCE):
        end_orphan(files)
        for path in files.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != files.lock:
                path.unlink()
        shutil.rmtree(files.sockets, ignore_errors=True)
        # Last: without it, the machine does not exist. Windows cannot remove a file that is open.
        if hostos.current().removes_open_files:
            files.lock.unlink()
    files.lock.unlink(missing_ok=True)
    files.folder.rmdir()
    return True


def machines(settings: Settings) -> list[str]:
    """Return the names of all machines."""
    folder = settings.paths.machines_dir
    return sorted(path.name for path in folder.iterdir() if (path / "lock").exists()) if folder.is_dir() else []


def console_tail(settings: Settings, machine: str, lines: int = 200) -> str:
    """Return the last lines of a machine's console, "" when there is none."""
    return tail(MachineFiles(settings.paths, machine).console_log, lines)


# -- inside -----------------------------------------------------------------------------------------


def _connect(files: MachineFiles) -> RawIOBase | None:
    """Connect to the hostagent; None when the machine does not run. One that has just begun gets a moment."""
    deadline = time.monotonic() + _AGENT_PATIENCE
    while True:
        try:
            return hostos.current().connect(files.agent_socket)
        except OSError as error:
            if not is_locked(files):
                return None
            if time.monotonic() > deadline:
                raise MachineError(
                    f"the hostagent of {files.name} does not answer",
                    f"{files.agent_socket}: {error.strerror}\n{tail(files.agent_log)}",
                    "Wait for it, or end the process that is named in " + str(files.processes),
                ) from None
        time.sleep(0.02)


def _ask(stream: RawIOBase, order: Order) -> Iterator[Report]:
    """Send an order and yield the answers; a hostagent that ends in the middle yields no more."""
    try:
        stream.write(encode_order(order))
        for line in _lines(stream):
            yield decode_report(line)
    except (ConnectionError, BrokenPipeError):
        return


def _lines(stream: RawIOBase) -> Iterator[bytes]:
    buffer = b""
    while data := stream.read(64 * 1024):
        *lines, buffer = (buffer + data).split(b"\n")
        yield from lines


def _wait_for_running(files: MachineFiles, progress: PhaseCallback) -> Running | None:
    """Wait for a machine that another caller started; None when none runs."""
    stream = _connect(files)
    if stream is None:
        return None
    began = time.monotonic()
    with stream:
        for report in _ask(stream, Order("wait")):
            if isinstance(report, Phase):
                progress(report)
            elif isinstance(report, Failed):
                raise report.error
            elif isinstance(report, Suspended):
                break
            elif isinstance(report, Ready):
                ready = Phase("ready", time.monotonic() - began)
                return Running(report.status.api_socket, (ready,), report.status)
    return None  # it ended while we asked: start it


def _follow(files: MachineFiles, lines: Iterator[bytes], progress: PhaseCallback, began: float) -> Running:
    """Read what a new hostagent reports. Another start may have been faster: then its machine is ours too."""
    phases = []
    for line in lines:
        report = decode_report(line)
        if isinstance(report, Failed):
            raise report.error
        if isinstance(report, Phase):
            phases.append(report)
            progress(report)
        elif isinstance(report, Ready):
            ready = Phase("ready", time.monotonic() - began)
            progress(ready)
            return Running(report.status.api_socket, (*phases, ready), report.status)
    running = _wait_for_running(files, progress)
    if running is not None:
        return running
    seen = tail(files.agent_errors) or tail(files.agent_log)
    raise MachineError(
        f"the machine {files.name} did not start",
        f"Its hostagent ended without a word.\n{seen}".rstrip(),
        f"Its log is {files.agent_log}.",
    )


def _write_initrd(files: MachineFiles, image: GuestImage, guest_code: bytes) -> None:
    """Put the guest code behind the image's initrd. The kernel takes archives one after the other, at multiples of 4."""
    data = image.initrd.read_bytes()
    write_atomically(files.initrd, data + bytes(-len(data) % 4) + guest_code, 0o600, durable=False)


def _environment() -> Mapping[str, str]:
    """Return the hostagent's environment: this one's, and the folder of this very program."""
    package = str(Path(__file__).parents[2])
    known = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([package, known] if known else [package])}


def _wait_for_unlock(files: MachineFiles) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while is_locked(files):
        if time.monotonic() > deadline:
            raise MachineError(f"the hostagent of {files.name} does not end", tail(files.agent_log), "End its process.")
        time.sleep(0.01)


def _status_of_stopped(files: MachineFiles, settings: Settings) -> MachineStatus:
    store = SuspendedStore(files)
    state = MachineState.STOPPED if files.exists() else MachineState.MISSING
    suspended_at, saved_size = store.facts()
    has_disk = files.data_disk.exists()
    return MachineStatus(
        name=files.name,
        state=MachineState.SUSPENDED if store.exists() else state,
        api_socket=files.api_socket,
        memory_mib=settings.memory_mib,
        cpus=settings.cpus,
        disk_size=disks.virtual_size(files.data_disk) if has_disk else None,
        disk_used=disks.used_size(files.data_disk),
        arch=settings.arch,
        suspended_at=suspended_at,
        saved_size=saved_size,
    )
