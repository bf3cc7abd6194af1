"""Client of the engine's API: requests over the hostagent's socket.

Nothing here knows what a container is: paths, queries and JSON go through, errors become `EngineError`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pybox.engine import http
from pybox.errors import EngineError, MachineError

API_VERSION = "1.51"

QueryValue = str | int | bool | None
Query = Mapping[str, QueryValue | list[str]]


class Hijacked:
    """A connection that carries raw bytes both ways after the engine's 101.

    `stream` reads it, with what came behind the header. `multiplexed` says whether stream frames are used.
    """

    def __init__(self, connection: socket.socket, stream: BufferedReader, multiplexed: bool) -> None:
        self.socket = connection
        self.multiplexed = multiplexed
        self._stream = stream

    def read(self) -> bytes:
        """Next bytes, b"" at the end."""
        try:
            return self._stream.read1(http.CHUNK)
        except ConnectionResetError:
            return b""

    def close_write(self) -> None:
        """End of standard input; output goes on."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the process ended first
            return

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


class EngineClient:
    """Talks to the engine behind `path`, the unix socket of a running machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def answers(self) -> bool:
        """Whether an engine answers at all."""
        try:
            self.get("/_ping")
        except (MachineError, EngineError):
            return False
        return True

    # -- whole answers -------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request, one JSON (or empty) answer. Raises EngineError with the engine's message."""
        payload = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if payload is not None else {}
        with self._exchange(method, path, query, payload, {**kind, **(headers or {})}) as response:
            data = response.read()
        if not data:
            return None
        if response.content_type == "application/json":
            return json.loads(data)
        return data

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.call("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: object = None) -> Any:
        return self.call("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.call("DELETE", path, query)

    def head(self, path: str, query: Query | None = None) -> Mapping[str, str]:
        """The header of what GET would answer, by lower-case names. Raises EngineError, whose words are the status alone."""
        with self._exchange("HEAD", path, query, None, {}) as response:
            return response.headers

    # -- streams -------------------------------------------------------------------------------

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Iterable[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.Response]:
        """One request whose answer is read piece by piece; an iterable body is sent in chunks."""
        with self._exchange(method, path, query, body, headers or {}) as response:
            yield response

    def json_lines(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Iterable[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """One request answered by JSON objects, one a line (pull, build, load, events, stats)."""
        with self.stream(method, path, query, body, headers) as response:
            for line in _lines(response):
                if line.strip():
                    yield json.loads(line)

    def hijack(self, path: str, query: Query | None = None, body: object = None) -> Hijacked:
        """POST that turns the connection into a byte stream (attach, exec start)."""
        payload = b"" if body is None else json.dumps(body).encode()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        with ExitStack() as opened:
            connection = opened.enter_context(self._connect())
            stream = opened.enter_context(connection.makefile("rb"))
            try:
                http.send(connection, "POST", _target(path, query), headers, payload)
                response = http.receive(stream)
                if response.status != http.SWITCHING:
                    raise _engine_error(response.status, response.read())
            except (ConnectionError, http.BrokenAnswer) as error:
                raise EngineError("The engine closed the connection.", _words(error), status=500) from error
            opened.pop_all()
        return Hijacked(connection, stream, "multiplexed" in response.content_type)

    # -- inside --------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        family = getattr(socket, "AF_UNIX", None)
        try:
            if family is None:  # Python on Windows; the named pipe serves docker, but not yet this client
                raise OSError(0, "this Python has no unix sockets")
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.connect(str(self.path))
            except OSError:
                connection.close()
                raise
        except OSError as error:
            raise MachineError(
                "The machine does not answer.", f"{self.path}: {error.strerror}", "Start it with: pybox start"
            ) from error
        return connection

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Iterable[bytes] | bytes | None,
        headers: Mapping[str, str],
    ) -> Iterator[http.Response]:
        with self._connect() as connection, connection.makefile("rb") as stream:
            try:
                # A broken pipe: the engine refused before it had the whole body, and its answer says why.
                with suppress(BrokenPipeError):
                    http.send(connection, method, _target(path, query), headers, body)
                response = http.receive(stream, method)
                if response.status >= 400:
                    raise _engine_error(response.status, response.read())
                yield response
            except (ConnectionError, http.BrokenAnswer) as error:
                raise MachineError(
                    "The connection to the engine was lost.", _words(error), "See what the machine does with: pybox status"
                ) from error


def _words(error: ConnectionError | http.BrokenAnswer) -> str:
    if isinstance(error, ConnectionError):
        return f"It was cut: {error.strerror or type(error).__name__}."
    return str(error)


def _lines(response: http.Response) -> Iterator[bytes]:
    rest = b""
    while data := response.read1():
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _target(path: str, query: Query | None) -> str:
    pairs: list[tuple[str, str]] = []
    for key, value in (query or {}).items():
        if isinstance(value, list):
            pairs += [(key, item) for item in value]
        elif isinstance(value, bool):
            pairs.append((key, "1" if value else "0"))
        elif value is not None:
            pairs.append((key, str(value)))
    target = f"/v{API_VERSION}{quote(path, safe='/:@')}"
    return f"{target}?{urlencode(pairs)}" if pairs else target


def _engine_error(status: int, body: bytes) -> EngineError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace").strip() or _status_words(status)
    return EngineError(message, status=status)


def _status_words(status: int) -> str:
    from http import HTTPStatus  # for answers without a word only

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)
