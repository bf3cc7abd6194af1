"""A way from an IPv6 address of this host to a forwarded port: QEMU itself listens on IPv4 only."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

_CHUNK = 256 * 1024


class Relay:
    """Listens on one IPv6 address and carries each connection to a port of 127.0.0.1. Directions end one by one."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, address: str, port: int) -> int:
        """Listen, and return the port (a free one for 0). Raises OSError."""
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            # `::` must not take the IPv4 addresses, on which QEMU listens.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            self._server = await asyncio.start_server(self._connected, sock=listener, limit=_CHUNK)
        except OSError:
            listener.close()
            raise
        return int(listener.getsockname()[1])

    def close(self) -> None:
        """Stop listening and cut the connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
            try:
                await asyncio.gather(_carry(reader, there_writer), _carry(there_reader, writer))
            finally:
                there_writer.close()
        except OSError:  # one side is gone: so is the other, from here on
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
