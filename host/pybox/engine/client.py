"""Client of the engine's API: HTTP/1.1 over the hostagent's socket.

`http.client` and a socket of our own: starting `pybox ps` must not cost the import of an HTTP library.
Nothing here knows what a container is: paths, queries and JSON go through, errors become `EngineError`.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pybox.errors import EngineError, MachineError

API_VERSION = "1.51"
CHUNK = 256 * 1024

QueryValue = str | int | bool | None
Query = Mapping[str, QueryValue | list[str]]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        family = getattr(socket, "AF_UNIX", None)
        if family is None:  # Python on Windows; the named pipe serves docker, but not yet this client
            raise OSError(0, "this Python has no unix sockets")
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


@dataclass
class Hijacked:
    """A connection that carries raw bytes both ways after the engine's 101.

    `pending` came in the same packet as the header. `multiplexed` says whether stream frames are used.
    """

    socket: socket.socket
    pending: bytes
    multiplexed: bool

    def read(self) -> bytes:
        """Next bytes, b"" at the end."""
        if self.pending:
            data, self.pending = self.pending, b""
            return data
        try:
            return self.socket.recv(CHUNK)
        except ConnectionResetError:
            return b""

    def close_write(self) -> None:
        """End of standard input; output goes on."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the process ended first
            return

    def close(self) -> None:
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

    def call(self, method: str, path: str, query: Query | None = None, body: object = None) -> Any:
        """One request, one JSON (or empty) answer. Raises EngineError with the engine's message."""
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if payload is not None else {}
        with self._exchange(method, path, query, payload, headers) as response:
            data = response.read()
        if not data:
            return None
        if response.headers.get_content_type() == "application/json":
            return json.loads(data)
        return data

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.call("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: object = None) -> Any:
        return self.call("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.call("DELETE", path, query)

    # -- streams -------------------------------------------------------------------------------

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Iterable[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
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
        connection = self._connect()
        head = (
            f"POST {_target(path, query)} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        stream = connection.sock
        stream.sendall(head.encode() + payload)
        raw = b""
        while b"\r\n\r\n" not in raw:
            data = stream.recv(CHUNK)
            if not data:
                raise EngineError("The engine closed the connection.", status=500)
            raw += data
        header, _, rest = raw.partition(b"\r\n\r\n")
        lines = header.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
        if status != 101:
            while len(rest) < int(fields.get("content-length", "0")):
                rest += stream.recv(CHUNK)
            stream.close()
            raise _engine_error(status, rest)
        return Hijacked(stream, rest, "multiplexed" in fields.get("content-type", ""))

    # -- inside --------------------------------------------------------------------------------

    def _connect(self) -> _UnixConnection:
        connection = _UnixConnection(self.path)
        try:
            connection.connect()
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
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect()
        chunked = body is not None and not isinstance(body, bytes)
        try:
            # A broken pipe: the engine refused before it had the whole body, and its answer says why.
            with suppress(BrokenPipeError):
                connection.request(method, _target(path, query), body, dict(headers), encode_chunked=chunked)
            response = connection.getresponse()
            if response.status >= 400:
                raise _engine_error(response.status, response.read())
            yield response
        except (ConnectionError, http.client.HTTPException) as error:
            raise MachineError(
                "The connection to the engine was lost.",
                str(error) or type(error).__name__,
                "See what the machine does with: pybox status",
            ) from error
        finally:
            connection.close()


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The answer's lines. IncompleteRead when it breaks off, which the response's own iterator takes for its end."""
    rest = b""
    while data := response.read1(CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if response.length:
        raise http.client.IncompleteRead(rest, response.length)
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
        message = body.decode(errors="replace").strip() or http.client.responses.get(status, str(status))
    return EngineError(message, status=status)
