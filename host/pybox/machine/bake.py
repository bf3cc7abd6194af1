"""The one boot that finishes a guest image: QEMU with a few raw disks, watched from outside until it is off.

The image builder says what to boot (`BakeBoot` of `pybox_image`, whose fields are named here once more, because the
two packages do not import each other).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pybox import hostos, process
from pybox.errors import MachineError
from pybox.files import tail
from pybox.hostos.interface import native_arch
from pybox.machine.accelerators import Candidate, VerdictBook, choose
from pybox.model import Arch, Verdict
from pybox.qemu import probe
from pybox.qemu.command import BakeMachine, Board, bake_command
from pybox.settings import Settings

log = logging.getLogger(__name__)
_SIGN_OF_LIFE = 5.0  # seconds that an unproved accelerator has until the kernel says something
_CPUS = 2


class BakeRequest(Protocol):
    """What to boot: see `pybox_image.bake.BakeBoot`. `timeout` is in seconds."""

    @property
    def kernel(self) -> Path: ...
    @property
    def initrd(self) -> Path: ...
    @property
    def append(self) -> str: ...
    @property
    def disks(self) -> tuple[Path, ...]: ...
    @property
    def memory_mib(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def console_log(self) -> Path: ...


def boot_for_bake(settings: Settings, arch: Arch) -> Callable[[BakeRequest], None]:
    """Return the function that boots a machine for the image builder and returns when it is off.

    It raises MachineError when QEMU is missing, no accelerator works, or the machine does not end in time.
    """

    def boot(request: BakeRequest) -> None:
        host = hostos.current()
        qemu = probe.find(arch, settings.qemu, settings.paths.qemu_file)
        book = VerdictBook(settings.paths.accelerators_file)
        for candidate in choose(host, qemu, arch, native_arch(), settings.accelerator, book):
            log.info("bake with %s", candidate)
            try:
                problem = _boot_with(candidate, qemu.program, arch, request)
            except MachineError as error:
                if candidate.proved:
                    raise
                log.warning("no bake with %s: %s", candidate.accelerator, error)
                continue
            book.remember(qemu, arch, Verdict(candidate.accelerator, not problem, problem))
            if not problem:
                return
            log.warning("%s does not work here: %s", candidate.accelerator, problem)
        raise MachineError(
            "no accelerator of this host runs the guest", tail(request.console_log), "pybox config set accelerator tcg"
        )

    return boot


def _boot_with(candidate: Candidate, program: Path, arch: Arch, request: BakeRequest) -> str:
    """Boot once; why the accelerator is at fault, "" when it is not. Raises MachineError for other failures."""
    request.console_log.unlink(missing_ok=True)
    # A kernel that works says so at once, unless it is told to be quiet. The last of two levels holds.
    append = request.append if candidate.proved else f"{request.append} loglevel=6"
    board = Board(
        program=program,
        arch=arch,
        accelerator=candidate.accelerator,
        memory_mib=request.memory_mib,
        cpus=_CPUS,
        kernel=request.kernel,
        initrd=request.initrd,
        console_log=request.console_log,
    )
    host = hostos.current()
    errors = request.console_log.with_name("qemu.log")
    with errors.open("wb") as stream:
        command = host.with_parent(bake_command(BakeMachine(board, request.disks, append)))
        child = process.popen(command, stdout=stream, stderr=stream)
    host.adopt(child.pid)
    try:
        if not candidate.proved and not _shows_life(child, request.console_log):
            return f"the guest showed no sign of life within {_SIGN_OF_LIFE:g} s"
        status = process.wait(child, request.timeout)
    except TimeoutError:
        raise MachineError(
            f"the guest image was not finished within {request.timeout:g} s", tail(request.console_log)
        ) from None
    finally:
        child.kill()
        child.wait()
    if status < 0 and not candidate.proved:
        return f"QEMU {process.ending(status)}"
    if status:
        raise MachineError(f"QEMU {process.ending(status)}", f"{process.text(command)}\n{tail(errors)}".rstrip())
    return ""


def _shows_life(child: process.Child, console: Path) -> bool:
    """Wait for the first byte on the console, or for QEMU's end, which is judged by itself."""
    deadline = time.monotonic() + _SIGN_OF_LIFE
    while time.monotonic() < deadline:
        if child.poll() is not None or (console.exists() and console.stat().st_size > 0):
            return True
        time.sleep(0.05)
    return False
