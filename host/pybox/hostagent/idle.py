"""When a machine is idle: no client of its API, no container, nobody connected by ssh, for some time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from pybox.hostagent.api import ApiServer

_LOOKS = 5  # in the time after which it is idle, …
_LONGEST = 15.0  # …and no fewer than one in so many seconds


async def wait_until_idle(seconds: float, api: ApiServer, is_busy: Callable[[], Awaitable[bool]]) -> None:
    """Return when nobody has used the machine for so many seconds. `is_busy` asks the guest, about what only it knows."""
    used = time.monotonic()
    while True:
        await asyncio.sleep(min(seconds / _LOOKS, _LONGEST))
        if api.clients or await is_busy():
            used = time.monotonic()
        elif time.monotonic() - max(used, api.last_used) >= seconds:
            return
