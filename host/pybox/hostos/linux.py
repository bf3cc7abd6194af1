"""Linux: KVM, /proc, and a signal to children whose parent is gone."""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

from pybox import process
from pybox.hostos.interface import ProcessIdentity
from pybox.hostos.posix import Posix, read_all
from pybox.model import Accelerator

_KVM = Path("/dev/kvm")
# Where administrators of Debian-like and Fedora-like systems put roots of their own.
_LOCAL_ROOTS = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))


class Linux(Posix):
    name = "linux"
    accelerators: tuple[Accelerator, ...] = (Accelerator.KVM,)

    def accelerator_problem(self, accelerator: Accelerator) -> str:
        if accelerator is not Accelerator.KVM:
            return f"{accelerator} does not exist on Linux"
        if not _KVM.exists():
            return f"{_KVM} is not there: no virtualisation, or it is switched off in the firmware"
        if not os.access(_KVM, os.R_OK | os.W_OK):
            return f"{_KVM} may not be opened: this user is not in the group that owns it (usually kvm)"
        return ""

    def identify(self, pid: int) -> ProcessIdentity | None:
        folder = Path("/proc") / str(pid)
        try:
            # The second field is a name in parentheses that may hold spaces; field 22 is the start in clock ticks.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return None
        state, started = fields[0], fields[19]
        return None if state in "ZX" else ProcessIdentity(started, command)

    def memory_of(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def unread(self, connection: int) -> int:
        # unix(7), SIOCOUTQ: what was sent and not read, counted in the kernel's own buffers
        return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def with_parent(self, command: Sequence[str | Path]) -> list[str | Path]:
        # util-linux; a program between the two, because between fork and exec Python code is not safe.
        leash = process.find("setpriv")
        return [leash, "--pdeathsig", "TERM", "--", *command] if leash else list(command)

    def adopt(self, pid: int) -> None:
        """Nothing to do: `with_parent` did it."""

    def local_certificates(self) -> str:
        files = [path for folder in _LOCAL_ROOTS for path in sorted(folder.rglob("*")) if path.is_file()]
        return read_all(files)
