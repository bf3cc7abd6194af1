"""Which accelerator a machine is started with. That one is present does not mean that it works.

What was seen of one under this QEMU and this kernel is remembered, so that a start loses time to a bad one only once.
"""

from __future__ import annotations

import json
import logging
import platform
from pathlib import Path
from typing import Any

from pybox.errors import MachineError
from pybox.files import write_atomically
from pybox.frozen import frozen
from pybox.hostos.interface import HostSystem
from pybox.model import Accelerator, Arch, Verdict
from pybox.qemu.probe import Qemu, refuse_broken

log = logging.getLogger(__name__)


@frozen
class Candidate:
    """An accelerator to try. An unproved one must show a sign of life within seconds."""

    accelerator: Accelerator
    proved: bool


class VerdictBook:
    """The file of verdicts. A lost or damaged one costs a few seconds at the next start, nothing more."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def verdicts(self, qemu: Qemu, arch: Arch) -> dict[Accelerator, Verdict]:
        """Return what is known under this QEMU and the running kernel."""
        prefix = _key(qemu, arch)
        found = {}
        for accelerator in Accelerator:
            entry = self._read().get(f"{prefix} {accelerator}")
            if isinstance(entry, dict):
                found[accelerator] = Verdict(accelerator, bool(entry.get("works")), str(entry.get("reason", "")))
        return found

    def remember(self, qemu: Qemu, arch: Arch, verdict: Verdict) -> None:
        """Write down what was seen, unless the same is written there already."""
        content = self._read()
        key, entry = f"{_key(qemu, arch)} {verdict.accelerator}", {"works": verdict.works, "reason": verdict.reason}
        if content.get(key) != entry:
            content[key] = entry
            write_atomically(self._path, json.dumps(content, indent=1).encode())

    def forget(self) -> None:
        """Forget all verdicts: the next starts try everything again."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _key(qemu: Qemu, arch: Arch) -> str:
    return f"{qemu.program} {qemu.version_text} {platform.release()} {arch}"


def problems(host: HostSystem, qemu: Qemu, arch: Arch, native: Arch) -> dict[Accelerator, str]:
    """Return the hardware accelerators of this host, each with why it cannot be tried; "" when it can."""
    found = {}
    for accelerator in host.accelerators:
        if arch is not native:
            found[accelerator] = f"this host's processor is not {arch}"
        elif accelerator.value not in qemu.accelerators:
            found[accelerator] = f"{qemu.program} was built without it"
        else:
            found[accelerator] = host.accelerator_problem(accelerator)
    return found


def choose(
    host: HostSystem, qemu: Qemu, arch: Arch, native: Arch, wanted: Accelerator | None, book: VerdictBook
) -> list[Candidate]:
    """Return what to try, in this order; the last one is not hurried.

    `wanted` is the setting: then nothing else is tried, whatever is known of it. Raises MachineError when it cannot
    be tried, or when nothing can.
    """
    reasons = problems(host, qemu, arch, native)
    known = book.verdicts(qemu, arch)
    if wanted is not None:
        problem = "" if wanted is Accelerator.TCG else reasons.get(wanted, f"it does not exist on {host.name}")
        if problem:
            raise MachineError(f"the accelerator {wanted} cannot be used", problem, "pybox config unset accelerator")
        if wanted is Accelerator.TCG:
            refuse_broken(qemu, arch, wanted)
        return [Candidate(wanted, proved=True)]
    found = []
    for accelerator, problem in reasons.items():
        verdict = known.get(accelerator)
        if problem or (verdict is not None and not verdict.works):
            log.info("%s is left out: %s", accelerator, problem or (verdict.reason if verdict else ""))
            continue
        found.append(Candidate(accelerator, proved=verdict is not None))
    try:
        refuse_broken(qemu, arch, Accelerator.TCG)
    except MachineError:
        if not found:
            raise
        return found
    return [*found, Candidate(Accelerator.TCG, proved=True)]
