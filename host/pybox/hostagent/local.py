"""Listening on an address of this host that only this user can reach: a unix socket, or a named pipe on Windows."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from pybox import hostos

_LIMIT = 256 * 1024  # bytes that wait to be read

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener(Protocol):
    """What listens; connections that exist are not touched by `close`."""

    def close(self) -> None: ...


async def serve(address: Path, handler: Handler) -> Listener:
    """Listen on `address` and call `handler` for each connection. What an earlier process left there is removed."""
    if hostos.current().passes_sockets:
        return await asyncio.start_server(handler, sock=hostos.current().listen(address), limit=_LIMIT)
    loop: Any = asyncio.get_running_loop()  # of the kind that has pipes, which only Windows has

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=_LIMIT), handler)

    (server,) = await loop.start_serving_pipe(protocol, str(address))
    listener: Listener = server
    return listener


def hung_up(writer: asyncio.StreamWriter) -> bool:
    """Say whether the peer has closed its socket, and not only ended what it sends.

    Sending nothing tells: nobody gets it, but it fails when there is nobody.
    """
    connection = writer.get_extra_info("socket")
    if connection is None:  # a pipe has one end only
        return False
    try:
        with closing(socket.socket(fileno=os.dup(connection.fileno()))) as probe:
            probe.send(b"", getattr(socket, "MSG_DONTWAIT", 0))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def unread(writer: asyncio.StreamWriter) -> bool:
    """Say whether the peer has something to read still, as far as this system knows."""
    if writer.transport.get_write_buffer_size():
        return True
    connection = writer.get_extra_info("socket")
    return connection is not None and not writer.is_closing() and hostos.current().unread(connection.fileno()) > 0
