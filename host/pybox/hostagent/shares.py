"""The folder server: a child of the hostagent, because it blocks where the hostagent must not."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pybox import hostos, process
from pybox.files import write_atomically
from pybox.frozen import as_dict
from pybox.model import Share

log = logging.getLogger(__name__)
MODULE = "pybox.share.server"
_LEAVE = 5.0  # seconds for the server to write down what the guest knows


class ShareServer:
    """Serves folders to one QEMU. One that dies is started again once; then the folders are gone."""

    def __init__(self, shares: Sequence[Share], config: Path, output: Path) -> None:
        self.shares = tuple(shares)
        self._config = config
        self._output = output
        self._task: asyncio.Task[None] | None = None
        self._child: process.Watched | None = None
        self._leaves = False

    @property
    def pid(self) -> int | None:
        """Return the server's process, None when none was started."""
        return self._child.pid if self._child is not None else None

    async def start(self, address: str, *, resume: bool = False) -> None:
        """Serve the folders to the port at `address` (a unix socket, or HOST:PORT). Raises PyboxError.

        With `resume` the guest knows them already, from a server that has left what it knows.
        """
        if not self.shares:
            return
        self._leaves = False
        content = {"shares": [as_dict(share) for share in self.shares]}
        write_atomically(self._config, json.dumps(content, indent=1).encode(), 0o600, durable=False)
        self._child = self._spawn(address, *(["--resume"] if resume else []))
        self._task = asyncio.get_running_loop().create_task(self._watch(self._child, address))

    async def leave(self) -> None:
        """End the server so that another one can go on where it was; it leaves a file for it."""
        if self._task is None or self._child is None:
            return
        self._leaves = True
        self._config.with_suffix(".nodes").unlink(missing_ok=True)
        self._child.terminate()
        await asyncio.wait((self._task,), timeout=_LEAVE)
        await self.stop()

    async def stop(self) -> None:
        """End the server, if it runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _spawn(self, address: str, *more: str) -> process.Watched:
        host = hostos.current()
        command: list[str | Path] = [sys.executable, "-P", "-m", MODULE, "--socket", address, "--config", self._config]
        command += more
        child = process.start(host.with_parent(command), output=self._output)
        host.adopt(child.pid)
        return child

    async def _watch(self, child: process.Watched, address: str) -> None:
        try:
            ending = process.ending(await child.wait())
            if self._leaves:
                return
            log.error("the folder server %s; it is started again", ending)
            child = self._child = self._spawn(address)
            log.error("the folder server %s; shared folders are gone", process.ending(await child.wait()))
        finally:
            child.kill()
