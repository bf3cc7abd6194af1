"""The folder server: a child of the hostagent, because it blocks where the hostagent must not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pybox import hostos, process
from pybox.files import write_atomically
from pybox.model import Share

log = logging.getLogger(__name__)
_MODULE = "pybox.share.server"


class ShareServer:
    """Serves folders to one QEMU. One that dies is started again once; then the folders are gone."""

    def __init__(self, shares: Sequence[Share], config: Path, output: Path) -> None:
        self.shares = tuple(shares)
        self._config = config
        self._output = output
        self._task: asyncio.Task[None] | None = None

    async def start(self, address: str) -> None:
        """Serve the folders to the port at `address` (a unix socket, or HOST:PORT). Raises PyboxError."""
        if not self.shares:
            return
        content = {"shares": [asdict(share) for share in self.shares]}
        write_atomically(self._config, json.dumps(content, indent=1).encode(), 0o600)
        child = await self._spawn(address)
        self._task = asyncio.get_running_loop().create_task(self._watch(child, address))

    async def stop(self) -> None:
        """End the server, if it runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _spawn(self, address: str) -> asyncio.subprocess.Process:
        host = hostos.current()
        command: list[str | Path] = [sys.executable, "-P", "-m", _MODULE, "--socket", address, "--config", self._config]
        child = await process.start_async(host.with_parent(command), output=self._output)
        host.adopt(child.pid)
        return child

    async def _watch(self, child: asyncio.subprocess.Process, address: str) -> None:
        try:
            log.error("the folder server %s; it is started again", process.ending(await child.wait()))
            child = await self._spawn(address)
            log.error("the folder server %s; shared folders are gone", process.ending(await child.wait()))
        finally:
            with suppress(ProcessLookupError):
                child.kill()


def can_serve() -> bool:
    """Say whether this installation has the folder server."""
    return importlib.util.find_spec(_MODULE) is not None
