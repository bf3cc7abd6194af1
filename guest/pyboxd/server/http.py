"""The Docker Engine API's HTTP side: listeners, version rules, errors. Handlers import from `server.message`.

application = Application([Route("GET", "/_ping", ping), …])
await application.serve_unix(locations.API_SOCKET)
Dialer(application.protocol).open(way)
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import h11

from pyboxd.errors import InvalidArgument, NotFound, PyboxdError
from pyboxd.frozen import frozen
from pyboxd.server.connection import Connection, request_headers
from pyboxd.server.message import ClientGone, Empty, Json, Query, Request, Response, percent_decode
from pyboxd.server.routes import Route, Routes, split_version, version_tuple
from pyboxd.server.status import status_of

WATCH = 0.5  # seconds between looks whether a client that has ended its input is still there
log = logging.getLogger(__name__)


@frozen
class Identity:
    """What every response says about this engine, and which API versions it accepts."""

    server: str = "pybox/0.1.0 (linux)"
    api_version: str = "1.51"
    min_api_version: str = "1.24"


_IDENTITY = Identity()


class StreamProtocol(asyncio.StreamReaderProtocol):
    """A reader and a writer for `accept`, and an event for the moment when the connection is gone."""

    def __init__(self, accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event], None]) -> None:
        self._lost = asyncio.Event()
        super().__init__(asyncio.StreamReader(), lambda reader, writer: accept(reader, writer, self._lost))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        super().connection_made(transport)

    def eof_received(self) -> bool | None:
        """The client has ended its input. That it goes away altogether is not told any more, and must be asked."""
        self._look()
        return super().eof_received()

    def _look(self) -> None:
        if self._lost.is_set():
            return
        if _hung_up(self._transport.get_extra_info("socket").fileno()):
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(WATCH, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost.set()


def _hung_up(descriptor: int) -> bool:
    """Whether the peer of a stream socket is gone. Sending nothing tells: it fails when there is nobody."""
    if descriptor < 0:
        return True
    with socket.socket(fileno=os.dup(descriptor)) as probe:
        try:
            probe.send(b"", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return False


class Application:
    """Routes behind a listener, and behind any other stream."""

    def __init__(self, routes: Sequence[Route], identity: Identity = _IDENTITY) -> None:
        self._routes = Routes(routes)
        self._identity = identity
        self._newest = version_tuple(identity.api_version)
        self._oldest = version_tuple(identity.min_api_version)
        self._common = (
            ("Api-Version", identity.api_version),
            ("Docker-Experimental", "false"),
            ("Ostype", "linux"),
            ("Server", identity.server),
        )
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    # listeners

    async def serve_unix(self, path: str, mode: int = 0o660) -> None:
        """Listen on a socket file; one that an earlier engine left behind is replaced."""
        if os.path.lexists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(self.protocol, sock=listener, backlog=256)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._listener is not None:
            self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def protocol(self) -> asyncio.Protocol:
        """What serves one client over any stream."""
        return StreamProtocol(self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        connection = Connection(reader, writer, lost, self._respond, self._render, self._common)
        task = asyncio.create_task(connection.serve())
        self._connections.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a connection ended by a bug", exc_info=task.exception())

    # requests

    async def _respond(self, head: h11.Request, body: AsyncIterator[bytes]) -> tuple[Request, Response]:
        """Find and call the handler; every failure becomes a response."""
        target, _, query = head.target.decode("latin-1").partition("?")
        method = head.method.decode("ascii")
        version, path = split_version(percent_decode(target))
        numbers = version_tuple(version) if version else self._newest
        request = Request(method, path, Query(query), request_headers(head), numbers, body=body)
        try:
            found = self._routes.find(method, path)
            if found is None:
                raise NotFound("page not found")
            self._check_version(version, numbers)
            handler, parameters = found
            request = Request(method, path, request.query, request.headers, numbers, parameters, body)
            return request, await handler(request)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - the one boundary between handlers and the wire
            return request, self._render(error, f"{method} {path}")

    def _check_version(self, version: str, numbers: tuple[int, int]) -> None:
        """Docker's rule and words for the "/v1.44" at the front of a path."""
        if not version:
            return
        if numbers < self._oldest:
            raise InvalidArgument(
                f"client version {version} is too old. Minimum supported API version is "
                f"{self._identity.min_api_version}, please upgrade your client to a newer version"
            )
        if numbers > self._newest:
            raise InvalidArgument(
                f"client version {version} is too new. Maximum supported API version is {self._identity.api_version}"
            )

    def _render(self, error: Exception, what: str = "a stream") -> Json | Empty:
        """The response to an error. Whatever is no PyboxdError is a bug: traceback in the log, with an id."""
        if isinstance(error, PyboxdError):
            status = status_of(error)
            return Empty(304) if status == 304 else Json({"message": str(error)}, status)
        bug = os.urandom(4).hex()
        log.error("bug %s in %s", bug, what, exc_info=error)
        return Json(
            {"message": f"internal error {bug}: {type(error).__name__} (the engine's log has the details)"},
            500,
        )
