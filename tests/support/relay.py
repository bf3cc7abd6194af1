"""The API socket of a machine on a port of the loopback, for clients that cannot use a socket file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def tcp_relay(path: Path) -> Iterator[int]:
    """The port, for as long as the block runs."""
    ready, ports = threading.Event(), [0]
    stop: list[asyncio.Event] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        stop.append(asyncio.Event())
        server = await asyncio.start_server(join, "127.0.0.1", 0)
        ports[0] = server.sockets[0].getsockname()[1]
        ready.set()
        await stop[0].wait()
        server.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(path))
        await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))
        for each in (writer, inner_writer):
            each.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop[0].set)
        thread.join(10)
        loop.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
