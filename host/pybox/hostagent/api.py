"""The Docker API on this host: bytes from a socket of this user to the engine and back, as they are.

Only one thing is looked for: the header with which the engine turns a connection into a stream. docker-py loses what it
reads together with that header, so nothing follows before the client has read it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from pybox.hostagent.local import Listener, hung_up, serve, unread
from pybox.hostagent.pool import CHUNK, Line

log = logging.getLogger(__name__)
_WATCH = 0.5  # seconds between looks whether a client that only listens is still there
_SWITCHED, _END_OF_HEADER = b"HTTP/1.1 101 ", b"\r\n\r\n"
_READING = 1.0  # seconds that a client gets to read the header
_LOOK = 0.002  # seconds between looks whether it has
_LINGER = 3.0  # seconds that a client gets to end its input after the engine has ended its output


class ApiServer:
    """Serves a machine's `docker.sock`. `take` gives a connection to the engine; a client waits for as long as it takes."""

    def __init__(self, take: Callable[[], Awaitable[Line]]) -> None:
        self.last_used = time.monotonic()  # when the last client has gone
        self._take = take
        self._listener: Listener | None = None
        self._address: Path | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._served: set[asyncio.Task[None]] = set()  # those that have got a connection

    @property
    def clients(self) -> int:
        """Return how many are connected."""
        return len(self._connections)

    async def open(self, address: Path) -> None:
        """Listen from now on; nothing happens when that is so already."""
        if self._listener is not None:
            return
        self._listener = await serve(address, self._connected)
        self._address = address

    async def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._listener is not None:
            self._listener.close()
        if self._address is not None:
            with suppress(OSError):
                self._address.unlink()
        await self._cancel(self._connections)

    async def cut(self) -> None:
        """End the connections of clients whose engine is gone; those that still wait for one wait on."""
        await self._cancel(self._served)

    @staticmethod
    async def _cancel(connections: set[asyncio.Task[None]]) -> None:
        tasks = list(connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer, task)
        except (OSError, EOFError) as error:
            log.debug("a connection ended: %s", error)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._connections.discard(task)
            self._served.discard(task)
            self.last_used = time.monotonic()
            writer.close()  # after what is still on its way to the client

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        line = await self._take()
        self._served.add(task)
        try:
            if await _Connection(reader, writer, line).carry():
                line.writer.close()
        finally:
            line.abort()  # nothing, where it was closed


class _Connection:
    """One client and its connection to the engine. The two directions end one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, engine: Line) -> None:
        self._reader = reader
        self._writer = writer
        self._engine = engine
        self._output_ended = False

    async def carry(self) -> bool:
        """Carry bytes both ways until one side is gone; True when both directions have ended properly.

        Raises OSError when a side was cut.
        """
        upwards, downwards = asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards())
        try:
            done, _ = await asyncio.wait((upwards, downwards), return_when=asyncio.FIRST_COMPLETED)
            if downwards in done and not upwards.done():
                await asyncio.wait((upwards,), timeout=_LINGER)
            for task in (upwards, downwards):
                if task.done():
                    task.result()
            return upwards.done() and downwards.done()
        finally:
            for task in (upwards, downwards):
                task.cancel()
            await asyncio.gather(upwards, downwards, return_exceptions=True)

    async def _upwards(self) -> None:
        """Carry what the client sends; return when the client is gone."""
        engine = self._engine.writer
        while data := await self._reader.read(CHUNK):
            engine.write(data)
            await engine.drain()
        if not self._output_ended and hung_up(self._writer):
            return
        engine.write_eof()
        # Once the client has heard the end of the output, there is nothing left to miss it for.
        while not self._output_ended and not hung_up(self._writer):
            await asyncio.sleep(_WATCH)

    async def _downwards(self) -> None:
        """Carry what the engine sends; return when it has ended its output."""
        while data := await self._engine.reader.read(CHUNK):
            if data.startswith(_SWITCHED):
                data = await self._begin_stream(data)
            self._writer.write(data)
            await self._writer.drain()
        self._output_ended = True
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def _begin_stream(self, data: bytes) -> bytes:
        """Send the header alone and wait until it was read; what is left of `data`."""
        header, mark, rest = data.partition(_END_OF_HEADER)
        self._writer.write(header + mark)
        await self._writer.drain()
        end = time.monotonic() + _READING
        while unread(self._writer) and time.monotonic() < end:
            await asyncio.sleep(_LOOK)
        return rest
