"""The engine's connections to this host, authenticated, that wait for a client (the guest's CONTROL.md has the words).

The guest makes them, through QEMU's network, to a port of this host's loopback. Every user of this host and every
container can reach that port too, and gets no further than the proof.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from pybox import hostos
from pybox.frozen import frozen

CHUNK = 256 * 1024  # bytes
_ADDRESS = "127.0.0.1"
_NONCE = 16  # bytes
_PROOF = 32
_KEY = 32
_HANDSHAKE_TIMEOUT = 20.0  # seconds; an emulated guest under load is slow
_STRANGERS = 64  # connections at once that have not proved anything
_PATIENCE = 60.0  # seconds for the engine to bring a connection

log = logging.getLogger(__name__)


def proof(key: bytes, who: bytes, guest_nonce: bytes, host_nonce: bytes) -> bytes:
    """Return what shows that `who` (b"guest" or b"host") knows the key, in this conversation alone."""
    return hmac.digest(key, who + guest_nonce + host_nonce, "sha256")


@frozen
class Line:
    """One connection to the engine."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def is_cut(self) -> bool:
        """Say whether the engine has closed a connection that nobody used yet."""
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    def abort(self) -> None:
        """Cut it: the engine sees that this client is gone, even one that has ended its input."""
        if self.writer.is_closing():
            return
        connection = self.writer.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hostos.current().reset_on_close)
        self.writer.transport.abort()


class Pool:
    """Connections that are ready. `want(count)` tells the guest that so many clients wait."""

    def __init__(self, want: Callable[[int], None]) -> None:
        self.key = os.urandom(_KEY)
        self.port = 0
        self._want = want
        self._server: asyncio.Server | None = None
        self._ready: deque[Line] = deque()
        self._waiting: deque[asyncio.Future[Line]] = deque()
        self._strangers = 0

    async def open(self) -> None:
        """Listen. OSError when that cannot be."""
        self._server = await asyncio.start_server(self._connected, _ADDRESS, 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def take(self) -> Line:
        """Return a connection. Raises OSError when the engine brings none."""
        while self._ready:
            line = self._ready.popleft()
            if not line.is_cut():
                return line
            line.abort()
        future: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._want(len(self._waiting))
        try:
            return await asyncio.wait_for(future, _PATIENCE)
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    async def prove(self) -> None:
        """Wait for the first connection, and keep it. Raises OSError."""
        self._ready.append(await self.take())

    def close(self) -> None:
        """Listen no more, and give up the connections that nobody took."""
        if self._server is not None:
            self._server.close()
        while self._ready:
            self._ready.pop().abort()
        for future in self._waiting:
            if not future.done():
                future.set_exception(ConnectionAbortedError("the machine stops"))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        if self._strangers >= _STRANGERS:
            line.abort()
            return
        self._strangers += 1
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
                proved = await self._shake_hands(reader, writer)
        except (OSError, EOFError):  # TimeoutError is one
            proved = False
        finally:
            self._strangers -= 1
        if not proved:
            log.warning("somebody who is not the engine has come to its port")
            line.abort()
            return
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._take_in(line)

    async def _shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        theirs, ours = await reader.readexactly(_NONCE), os.urandom(_NONCE)
        writer.write(ours + proof(self.key, b"host", theirs, ours))
        return hmac.compare_digest(await reader.readexactly(_PROOF), proof(self.key, b"guest", theirs, ours))

    def _take_in(self, line: Line) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(line)
                return
        self._ready.append(line)
