"""From a cold boot to a golden state: what a state's key is made of, and how one is made.

The machine that becomes a state is never told whose it is: no `configure`, no data disk, no folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from pathlib import Path

from pybox import process
from pybox.frozen import replace
from pybox.hostagent.plan import Plan, for_saving
from pybox.machine.accelerators import Candidate
from pybox.machine.golden import GoldenState, GoldenStore
from pybox.model import Accelerator, PhaseCallback
from pybox.qemu.command import Channels, InheritedSocket, engine_command

log = logging.getLogger(__name__)
_VERSION = 1  # of what the hostagent expects of a state
_SAVE = 120.0  # seconds
# These save no state (WHPX), or only on the way to another host.
_CANNOT = (Accelerator.WHPX,)


def can_have_state(candidate: Candidate, passes_sockets: bool) -> bool:
    """Say whether machines of this kind can start from a state. It is for systems with mapped files and unix sockets."""
    return passes_sockets and candidate.accelerator not in _CANNOT


def parts(plan: Plan, candidate: Candidate) -> dict[str, str]:
    """Return everything that must be the same for a saved machine to go on, by what a person calls it."""
    nothing = Channels(*(InheritedSocket(0),) * 4)
    program, *words = engine_command(plan.machine(candidate, nothing))
    found = Path(program).stat()
    # The same for every machine, and wherever the files are.
    text = process.text(words)
    for place in (plan.files.folder, plan.image.folder):
        text = text.replace(str(place), "")
    # The host's own processor is what the guest sees under hardware virtualisation.
    host = "" if candidate.accelerator is Accelerator.TCG else f"{platform.release()} {platform.machine()}"
    return {
        "QEMU": f"{plan.qemu.version_text}, {program} of {found.st_size} bytes and {found.st_mtime_ns} ns",
        "QEMU's command line": text.replace(f"pybox-{plan.files.name}", ""),
        "the guest image": plan.image.id,
        "pybox's program in the guest": _sum(plan.files.initrd),
        "this computer's system": host,
    }


def key(plan: Plan, candidate: Candidate) -> str:
    """Return what all of that comes to."""
    return hashlib.sha256(json.dumps([_VERSION, parts(plan, candidate)]).encode()).hexdigest()[:32]


async def make(plan: Plan, candidate: Candidate, store: GoldenStore, progress: PhaseCallback, began: float) -> GoldenState:
    """Boot a machine and save it; a draft that machines can start from. Raises MachineError, NoLife."""
    from pybox.hostagent import statefile
    from pybox.hostagent.boot import Boot

    draft = store.draft(key(plan, candidate))
    boot = Boot(replace(plan, shares=()), candidate, progress, began, None)
    try:
        await boot.start(lambda channels: for_saving(plan.machine(candidate, channels), draft))
        assert boot.monitor is not None
        saving = statefile.save(boot.monitor, plan.files.sockets, draft.devices, memory=False)
        await boot.phase("saved", saving, _SAVE)
    except BaseException:
        store.discard(draft, "it was not finished")
        raise
    finally:
        await boot.close()
    log.info("a golden state was made in %.3f s", time.monotonic() - began)
    return draft


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
