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

from pybox.hostagent import statefile
from pybox.hostagent.boot import Boot, Plan, for_saving
from pybox.hostagent.shares import ShareServer
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


def key(plan: Plan, candidate: Candidate) -> str:
    """Return what everything that must be the same comes to: program, words, image, guest code, this host."""
    nothing = Channels(*(InheritedSocket(0),) * 4)
    command = engine_command(plan.machine(candidate, nothing))
    program = plan.qemu.program.stat()
    parts = [
        _VERSION,
        command,
        plan.qemu.version_text,
        [program.st_size, program.st_mtime_ns],
        plan.image.id,
        _sum(plan.files.initrd),
        # The host's own processor is what the guest sees under hardware virtualisation.
        [] if candidate.accelerator is Accelerator.TCG else [platform.release(), platform.machine()],
    ]
    text = json.dumps(parts).replace(str(plan.files.folder), "").replace(f"pybox-{plan.files.name}", "")
    return hashlib.sha256(text.encode()).hexdigest()[:32]


async def make(plan: Plan, candidate: Candidate, store: GoldenStore, progress: PhaseCallback, began: float) -> GoldenState:
    """Boot a machine and save it; a draft that machines can start from. Raises MachineError, NoLife."""
    draft = store.draft(key(plan, candidate))
    boot = Boot(_alone(plan), candidate, progress, began, None)
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


def _alone(plan: Plan) -> Plan:
    """Return the plan of a machine that sees no folder of the host."""
    return Plan(**{**plan.__dict__, "shares": ShareServer((), Path(), Path())})


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
