"""The guest's clock follows the host's: at regular times, and at once when the host has slept or was set."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from pybox.errors import PyboxError

log = logging.getLogger(__name__)
_PERIOD = 10.0  # seconds between ordinary settings
_LOOK = 1.0  # seconds between looks for a jump
_JUMP = 0.2  # seconds of difference that no ordinary clock correction makes in one look


async def keep_time(
    tell: Callable[[float], Awaitable[None]],
    wall: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
) -> None:
    """Call `tell` with the seconds since the epoch, every 10 seconds and after a jump, until cancelled.

    A jump shows in the difference of the two clocks: `wall` goes on while the host sleeps, `steady` does not.
    """
    told = steady()
    difference = wall() - told
    while True:
        await asyncio.sleep(_LOOK)
        now = steady()
        jumped = abs(wall() - now - difference) > _JUMP
        if jumped or now - told >= _PERIOD:
            if jumped:
                log.info("the host's clock has jumped by %.1f s", wall() - now - difference)
            told, difference = now, wall() - now
            try:
                await tell(wall())
            except PyboxError as error:
                log.info("the guest's clock was not set: %s", error)
