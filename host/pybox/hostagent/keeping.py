"""The event loop around one machine's keeper: who asks on the hostagent's socket, and the start that waits."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from pybox import hostos
from pybox.errors import MachineError
from pybox.hostagent.agent import HostAgent
from pybox.hostagent.headstart import HeadStart
from pybox.hostagent.local import serve
from pybox.machine.files import MachineFiles, StartRequest

_STOP_ON_SIGNAL = 10.0  # seconds that containers get when the system ends this process
Say = Callable[[bytes], None]


def keep(files: MachineFiles, request: StartRequest, head_start: HeadStart | None, say: Say) -> MachineError | None:
    """Keep the machine until it stops, and `say` how its start goes. Returns why it failed, None when it was stopped."""
    return asyncio.run(_keep(files, request, head_start, say))


async def _keep(files: MachineFiles, request: StartRequest, head_start: HeadStart | None, say: Say) -> MachineError | None:
    agent = HostAgent(files, request, head_start)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, agent.desk.order_stop, _STOP_ON_SIGNAL)
    listener = await serve(files.agent_socket, agent.desk.visit)
    reporting = asyncio.create_task(_report_start(agent, say))
    failure = await agent.keep()
    listener.close()
    if hostos.current().passes_sockets:
        files.agent_socket.unlink(missing_ok=True)
    await agent.desk.close(failure)
    await reporting
    return failure


async def _report_start(agent: HostAgent, say: Say) -> None:
    await agent.desk.report_start(say)
    # The start has heard all; its pipe must not stay open, somebody may read it to the end.
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 1)
