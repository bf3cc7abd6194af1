"""Space that was freed on the data disk goes back to the host: in the background, and when it is worth it.

A file system that is mounted with `discard` does it with every commit of its journal, and whoever syncs waits: behind
the removal of a build's files, that was a minute.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import struct
import time

from pyboxd.linux import constants as k

PERIOD = 60.0  # seconds between two looks
WORTH = 256 << 20  # bytes freed
LEAST = 1 << 20  # bytes of one piece: QEMU's image has pieces of 64 KiB, but many small ones take long
log = logging.getLogger(__name__)


class Trimmer:
    """Watches the free space of the file system at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lowest = self._free()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            if self.is_worth_it():
                await asyncio.to_thread(self.trim)

    def is_worth_it(self) -> bool:
        """Whether much was freed since the last time."""
        free = self._free()
        self._lowest = min(self._lowest, free)
        return free - self._lowest >= WORTH

    def trim(self) -> None:
        """Tell the disk what is free. Blocking; a disk that cannot be told is left alone."""
        began = time.monotonic()
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, k.FITRIM, struct.pack("QQQ", 0, (1 << 64) - 1, LEAST))
        except OSError as error:
            log.warning("the data disk cannot be trimmed: %s", error)
        finally:
            os.close(descriptor)
        self._lowest = self._free()
        log.info("the data disk was trimmed in %.1f s", time.monotonic() - began)

    def _free(self) -> int:
        found = os.statvfs(self._path)
        return found.f_bfree * found.f_frsize
