"""The process of the hostagent, from the start's word to its end. It logs to a file."""

from __future__ import annotations

import gc
import logging
import os
from contextlib import suppress

from pybox import log as logs
from pybox.errors import MachineError
from pybox.hostagent import headstart
from pybox.machine.files import InUse, MachineFiles, StartRequest, locked
from pybox.machine.orphans import end_orphan
from pybox.machine.reports import GO, Failed, encode_report
from pybox.paths import Paths

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run one machine's hostagent; the exit status."""
    (machine,) = arguments
    if os.read(0, len(GO)) != GO:
        return 1  # the start was given up
    files = MachineFiles(Paths.from_environment(), machine)
    logs.to_file(files.agent_log)
    try:
        with locked(files):
            log.info("hostagent of %s, process %d", machine, os.getpid())
            files.paths.make_socket_dir(machine)
            end_orphan(files)
            failure = _run(files, StartRequest.read(files))
    except InUse:
        # Another start was faster. The one that waits for this process finds that machine when it hears nothing.
        return 1
    except MachineError as error:
        _say(encode_report(Failed(error)))
        return 1
    except Exception as error:
        bug = os.urandom(4).hex()
        log.exception("bug %s", bug)
        brief = f"internal error {bug} of the hostagent: {type(error).__name__}"
        _say(encode_report(Failed(MachineError(brief, str(error), f"The log is {files.agent_log}."))))
        return 1
    return 0 if failure is None else 1


def _run(files: MachineFiles, request: StartRequest) -> MachineError | None:
    head_start = headstart.begin(files, request)
    try:
        from pybox.hostagent.keeping import keep  # QEMU comes up meanwhile

        gc.freeze()
        gc.enable()
        return keep(files, request, head_start, _say)
    finally:
        if head_start is not None:
            head_start.end()


def _say(line: bytes) -> None:
    with suppress(OSError):  # the start was broken off
        os.write(1, line)
