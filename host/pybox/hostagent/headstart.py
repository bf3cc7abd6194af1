"""The beginning of an ordinary start, before this process is ready to keep a machine.

QEMU takes about as long to come up as the event loop takes to be imported, so nothing here may import that. What is not
ordinary, or goes wrong, is left to the start that comes after it, which knows more ways and says what it sees.
"""

from __future__ import annotations

import logging
import time

from pybox import hostos
from pybox.errors import PyboxError
from pybox.frozen import frozen
from pybox.hostagent import golden
from pybox.hostagent.launch import Launched, launch_with_sockets
from pybox.hostagent.plan import Plan, from_state
from pybox.hostagent.preparation import prepare
from pybox.machine.accelerators import Candidate, VerdictBook
from pybox.machine.files import MachineFiles, StartRequest
from pybox.machine.golden import GoldenState, GoldenStore
from pybox.machine.suspended import SuspendedStore
from pybox.qemu.command import engine_command

log = logging.getLogger(__name__)


@frozen
class HeadStart:
    """A QEMU that was started from a golden state."""

    began: float  # time.monotonic()
    plan: Plan
    candidate: Candidate
    state: GoldenState
    launched: Launched

    def end(self) -> None:
        """End it; nothing happens when somebody went on with it and it has ended."""
        self.launched.child.kill()
        self.launched.monitor_socket.close()
        self.launched.control_socket.close()


def begin(files: MachineFiles, request: StartRequest) -> HeadStart | None:
    """Start QEMU if there is a golden state for this machine, and it is not suspended; None when nothing was started."""
    began = time.monotonic()
    try:
        if SuspendedStore(files).exists() or not request.settings.golden_state:
            return None
        plan, (first, *_) = prepare(files, request, VerdictBook(files.paths.accelerators_file))
        if not first.proved or not golden.can_have_state(first, hostos.current().passes_sockets):
            return None
        state = GoldenStore(files.paths.golden_dir).find(golden.key(plan, first))
        if state is None:
            return None
        log.info("start with %s", first)
        launched = launch_with_sockets(
            lambda channels: engine_command(from_state(plan.machine(first, channels), state)), files
        )
    except (PyboxError, OSError) as error:
        log.info("no head start: %s", error)
        return None
    return HeadStart(began, plan, first, state, launched)
