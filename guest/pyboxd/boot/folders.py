"""Folders after a suspension: what the relay has of half a message is forgotten before a new folder server comes.

The machine stood still when its host ended. Were the next one there before the relay has seen the port without a host,
what it sends would be taken for the rest of the message that was cut, and a program would read it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress

from pyboxd.boot.start import RELAY_DONE, RELAY_NAME, RELAY_ORDER, RELAY_PROCESS

PATIENCE = 5.0  # seconds for the relay; a machine full of busy programs lets it wait
LOOK = 0.005  # seconds between looks whether it is done
log = logging.getLogger(__name__)


async def forget_cut_message() -> None:
    """Return when the relay has forgotten it. No folder server may be connected meanwhile."""
    with suppress(FileNotFoundError):
        os.unlink(RELAY_DONE)
    relay = _process()
    if relay is None:
        return  # one that starts only now has nothing to forget
    os.kill(relay, RELAY_ORDER)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not os.path.exists(RELAY_DONE):
        if asyncio.get_running_loop().time() > deadline:
            log.error("the relay of the folders does not obey; it is started again, and folders in use are gone")
            os.kill(relay, signal.SIGKILL)
            return
        await asyncio.sleep(LOOK)


def _process() -> int | None:
    """The relay's process of the replies; None when it does not run. The number alone may be another's by now."""
    try:
        with open(RELAY_PROCESS) as file:
            number = int(file.read())
        with open(f"/proc/{number}/comm") as file:
            return number if file.read().startswith(RELAY_NAME) else None
    except (OSError, ValueError):
        return None
