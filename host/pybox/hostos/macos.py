"""macOS: Hypervisor.framework, and `ps` for what /proc says elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pybox import process
from pybox.errors import PyboxError
from pybox.hostos.interface import ProcessIdentity
from pybox.hostos.posix import Posix
from pybox.model import Accelerator

_SYSTEM_KEYCHAIN = "/Library/Keychains/System.keychain"  # roots that an administrator added; Apple's are elsewhere
_LSTART = 24  # characters of `ps -o lstart`, "Tue Nov 24 23:12:01 2026"


class MacOS(Posix):
    name = "macos"
    accelerators: tuple[Accelerator, ...] = (Accelerator.HVF,)

    def accelerator_problem(self, accelerator: Accelerator) -> str:
        if accelerator is not Accelerator.HVF:
            return f"{accelerator} does not exist on macOS"
        found = process.run(["/usr/sbin/sysctl", "-n", "kern.hv_support"], check=False)
        return "" if found.stdout.strip() == "1" else "this Mac's processor or system offers no Hypervisor.framework"

    def identify(self, pid: int) -> ProcessIdentity | None:
        command = ["/bin/ps", "-o", "stat=,lstart=,command=", "-p", str(pid)]
        found = process.run(command, check=False, environment={"LC_ALL": "C"})
        state, _, rest = found.stdout.strip().partition(" ")
        if found.status or state.startswith("Z"):
            return None
        rest = rest.lstrip()
        return ProcessIdentity(rest[:_LSTART], rest[_LSTART:].strip())

    def memory_of(self, pid: int) -> int:
        found = process.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], check=False).stdout.strip()
        return int(found) * 1024 if found.isdigit() else 0

    def with_parent(self, command: Sequence[str | Path]) -> list[str | Path]:
        return list(command)  # the next start looks for orphans

    def adopt(self, pid: int) -> None:
        """Nothing that this system could do."""

    def local_certificates(self) -> str:
        try:
            return process.run(["/usr/bin/security", "find-certificate", "-a", "-p", _SYSTEM_KEYCHAIN]).stdout
        except PyboxError:  # no keychain to read is no reason not to start
            return ""
