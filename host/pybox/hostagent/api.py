"""The Docker API on this host: bytes from a socket of this user to the engine's TLS port and back, unread."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from contextlib import suppress
from pathlib import Path

from pybox.hostagent.local import Listener, hung_up, serve
from pybox.hostagent.tls import CHUNK, TlsStream

log = logging.getLogger(__name__)
_WARM = 3  # connections that are authenticated before anybody asks
_WATCH = 0.5  # seconds between looks whether a client that only listens is still there


class Engine:
    """The way to the engine's port. Keeps a few connections ready: a handshake costs an emulated guest much."""

    def __init__(self, context: ssl.SSLContext, name: str, port: int) -> None:
        self._context = context
        self._name = name
        self._port = port
        self._warm: deque[TlsStream] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    async def prove(self) -> None:
        """Make the first connection. Raises OSError when the engine does not answer, or is another."""
        self._warm.append(await self._connect())

    async def take(self) -> TlsStream:
        """Return a connection. Raises OSError when the engine is not there."""
        while self._warm:
            stream = self._warm.popleft()
            if not stream.is_cut():
                self.warm_up()
                return stream
            stream.abort()
        stream = await self._connect()
        self.warm_up()
        return stream

    def warm_up(self) -> None:
        """Make connections in the background until enough are ready."""
        if not self._closed and (self._refill is None or self._refill.done()):
            self._refill = asyncio.get_running_loop().create_task(self._fill())

    def close(self) -> None:
        """Give up the connections that nobody took."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
        while self._warm:
            self._warm.pop().abort()

    async def _fill(self) -> None:
        try:
            while len(self._warm) < _WARM:
                self._warm.append(await self._connect())
        except OSError as error:
            log.info("no connection to the engine: %s", error)

    async def _connect(self) -> TlsStream:
        return await TlsStream.connect(self._context, self._name, self._port)


class ApiServer:
    """Serves a machine's `docker.sock`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listener: Listener | None = None
        self._address: Path | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, address: Path) -> None:
        """Listen from now on."""
        self._listener = await serve(address, self._connected)
        self._address = address

    async def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._listener is not None:
            self._listener.close()
        if self._address is not None:
            with suppress(OSError):
                self._address.unlink()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError) as error:
            log.debug("a connection ended: %s", error)
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._connections.discard(task)
            writer.close()  # after what is still on its way to the client

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, await self._engine.take())
        try:
            await connection.carry()
        finally:
            connection.engine.abort()


class _Connection:
    """One client and its connection to the engine. The two directions end one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, engine: TlsStream) -> None:
        self._reader = reader
        self._writer = writer
        self.engine = engine
        self._output_ended = False

    async def carry(self) -> None:
        """Carry bytes both ways until one side is gone. Raises OSError when a side was cut."""
        tasks = (asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _upwards(self) -> None:
        """Carry what the client sends; return when the client is gone."""
        while data := await self._reader.read(CHUNK):
            await self.engine.write(data)
        if self._gone():
            return
        self.engine.write_eof()
        while not self._gone():
            await asyncio.sleep(_WATCH)

    def _gone(self) -> bool:
        # Once the client has heard the end of the output, there is nothing left to miss it for: the engine ends it.
        return not self._output_ended and hung_up(self._writer)

    async def _downwards(self) -> None:
        """Carry what the engine sends; return when the engine has closed the connection."""
        while data := await self.engine.read():
            self._writer.write(data)
            await self._writer.drain()
        self._output_ended = True
        if self._writer.can_write_eof():
            self._writer.write_eof()
        await self.engine.wait_closed()
