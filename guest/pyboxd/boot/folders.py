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

from pyboxd.boot.relay import DONE_FILE, ORDER, PROCESS_FILE

PATIENCE = 5.0  # seconds for the relay; a machine full of busy programs lets it wait
LOOK = 0.005  # seconds between looks whether it is done
log = logging.getLogger(__name__)


async def forget_cut_message() -> None:
    """Return when the relay has forgotten it. No folder server may be connected meanwhile."""
    with suppress(FileNotFoundError):
        os.unlink(DONE_FILE)
    try:
        with open(PROCESS_FILE) as file:
            relay = int(file.read())
        os.kill(relay, ORDER)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return  # one that starts only now has nothing to forget
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not os.path.exists(DONE_FILE):
        if asyncio.get_running_loop().time() > deadline:
            log.error("the relay of the folders does not obey; it is started again, and folders in use are gone")
            os.kill(relay, signal.SIGKILL)
            return
        await asyncio.sleep(LOOK)
