"""The embedded DNS server: sockets inside a container's network namespace, served by the engine's event loop.

It answers the names of its zone and passes all other questions on as they are. Where the names come from is
`network/discovery.py`; the bytes of a message are `network/dnswire.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from typing import Protocol

from pyboxd.network import dnswire
from pyboxd.network.model import Address

PORT = 53
TIMEOUT = 4.0  # seconds for one server to answer
MOST_QUESTIONS = 100  # at a time; more are dropped over UDP, and the client asks again
IDLE = 30.0  # seconds until a silent TCP connection is closed
log = logging.getLogger(__name__)


class Zone(Protocol):
    """What one container may ask."""

    def addresses(self, name: str) -> tuple[Address, ...]:
        """The addresses of a name; none when the name is not of this zone."""
        ...

    def name_of(self, address: Address) -> str:
        """The name behind an address; "" when it is not of this zone."""
        ...

    def upstream(self) -> tuple[str, ...]:
        """The servers that know the rest; none when the container must not ask outside."""
        ...


class DnsServer:
    """Serves `zone` on two bound sockets, which it owns from now on."""

    def __init__(self, zone: Zone, datagrams: socket.socket, streams: socket.socket) -> None:
        self._zone = zone
        self._datagrams = datagrams
        self._streams = streams
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Listener(self), sock=self._datagrams)
        self._server = await asyncio.start_server(self._serve_stream, sock=self._streams)

    def stop(self) -> None:
        """Close the sockets; questions in flight stay unanswered."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def datagram(self, data: bytes, client: tuple[str, int]) -> None:
        if len(self._tasks) < MOST_QUESTIONS:
            self._keep(asyncio.ensure_future(self._answer_datagram(data, client)))

    async def _answer_datagram(self, data: bytes, client: tuple[str, int]) -> None:
        answer = await self._answer(data, stream=False)
        if answer and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, client)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._keep(task)
        with contextlib.suppress(OSError, EOFError, TimeoutError):  # the client went away
            while True:
                data = await asyncio.wait_for(_read_message(reader), IDLE)
                writer.write(_with_length(await self._answer(data, stream=True)))
                await writer.drain()
        writer.close()

    async def _answer(self, data: bytes, *, stream: bool) -> bytes:
        """The answer to a message; b"" to one that deserves none."""
        try:
            query = dnswire.parse(data)
        except ValueError as error:
            log.debug("ignored: %s", error)
            return b""
        address = query.reverse_address
        if address is not None and (name := self._zone.name_of(address)):
            return dnswire.name(query, name)
        if found := list(self._zone.addresses(query.name)):
            random.shuffle(found)  # several containers under one name share the load
            return dnswire.addresses(query, found, limit=65535 if stream else dnswire.UDP_LIMIT)
        ask = _ask_stream if stream else _ask_datagram
        for server in self._zone.upstream():
            with contextlib.suppress(OSError, EOFError, TimeoutError):  # the next server may know
                return await asyncio.wait_for(ask(data, server), TIMEOUT)
        return dnswire.failure(query, dnswire.SERVFAIL)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold a reference to the task until it ends, as asyncio asks."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


class _Reply(asyncio.DatagramProtocol):
    """Waits for the datagram that answers message `identity`."""

    def __init__(self, identity: bytes) -> None:
        self._identity = identity
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:2] == self._identity and not self.future.done():
            self.future.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(exc)


async def _ask_datagram(data: bytes, server: str) -> bytes:
    """Over a connected socket with a port of its own: nobody else's answer is taken."""
    loop = asyncio.get_running_loop()
    transport, reply = await loop.create_datagram_endpoint(lambda: _Reply(data[:2]), remote_addr=(server, PORT))
    try:
        transport.sendto(data)
        return await reply.future
    finally:
        transport.close()


async def _ask_stream(data: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(_with_length(data))
        return await _read_message(reader)
    finally:
        writer.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


def _with_length(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message
