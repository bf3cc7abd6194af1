"""`python -m pybox.hostagent MACHINE`: started by `machine.lifecycle`, in the background, once per running machine.

Its standard output is a pipe to the start that waits for it, and is given up when the machine runs. It logs to a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

from pybox import hostos
from pybox import log as logs
from pybox.errors import MachineError, PyboxError
from pybox.hostagent.agent import HostAgent
from pybox.hostagent.local import serve
from pybox.machine.files import InUse, MachineFiles, StartRequest, locked
from pybox.machine.orphans import end_orphan
from pybox.machine.reports import Failed, encode_report
from pybox.paths import Paths

log = logging.getLogger(__name__)
_STOP_ON_SIGNAL = 10.0  # seconds that containers get when the system ends this process


def main(arguments: list[str]) -> int:
    """Run one machine's hostagent; the exit status."""
    (machine,) = arguments
    files = MachineFiles(Paths.from_environment(), machine)
    logs.to_file(files.agent_log)
    try:
        with locked(files):
            log.info("hostagent of %s, process %d", machine, os.getpid())
            files.paths.make_socket_dir(machine)
            end_orphan(files)
            failure = asyncio.run(_serve(files, StartRequest.read(files)))
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


async def _serve(files: MachineFiles, request: StartRequest) -> PyboxError | None:
    agent = HostAgent(files, request)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, agent.desk.order_stop, _STOP_ON_SIGNAL)
    listener = await serve(files.agent_socket, agent.desk.visit)
    reporting = asyncio.create_task(_report_start(agent))
    failure = await agent.keep()
    listener.close()
    if hostos.current().passes_sockets:
        files.agent_socket.unlink(missing_ok=True)
    await agent.desk.close(failure)
    await reporting
    return failure


async def _report_start(agent: HostAgent) -> None:
    await agent.desk.report_start(_say)
    # The start has heard all; its pipe must not stay open, somebody may read it to the end.
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 1)


def _say(line: bytes) -> None:
    with suppress(OSError):  # the start was broken off
        os.write(1, line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
