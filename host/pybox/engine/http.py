"""HTTP/1.1 over a connected socket, as much of it as one request to the engine needs.

The standard library's client brings TLS and e-mail with it, which take longer to import than `pybox ps` may take.
One request and its answer per connection: nothing is kept alive, compressed or redirected.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from io import BufferedReader

CHUNK = 256 * 1024  # bytes
SWITCHING = 101  # from here on the connection carries the caller's bytes
_LINE_LIMIT = 64 * 1024  # bytes
_FIELDS_LIMIT = 256  # lines of a header


class BrokenAnswer(Exception):
    """The answer ended too early, or is none; the text says in a sentence what was seen."""


class Response:
    """An answer whose header has come; the body is read from `stream` piece by piece. `headers` has lower-case names."""

    def __init__(self, status: int, headers: Mapping[str, str], stream: BufferedReader, *, bare: bool = False) -> None:
        """`bare`: no body comes, whatever the header says."""
        self.status = status
        self.headers = headers
        self._stream = stream
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked" and not bare
        self._in_chunks = False
        # Bytes to come, of the chunk if there are chunks; None: up to the connection's end.
        self._left = 0 if self._chunked or bare else _length(status, headers)

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case; "" when the answer does not say."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def read(self) -> bytes:
        """All that is left of the body. Raises BrokenAnswer, OSError."""
        return b"".join(iter(self.read1, b""))

    def read1(self, limit: int = CHUNK) -> bytes:
        """Some bytes of the body as soon as there are any, at most `limit`; b"" at its end. Raises BrokenAnswer, OSError."""
        if self._chunked and not self._left:
            self._begin_chunk()
        if self._left is None:
            return self._stream.read1(limit)
        if not self._left:
            return b""
        data = self._stream.read1(min(limit, self._left))
        if not data:
            missing = "" if self._chunked else f", {self._left} bytes before its end"
            raise BrokenAnswer(f"It ended in the middle of the engine's answer{missing}.")
        self._left -= len(data)
        return data

    def _begin_chunk(self) -> None:
        if self._in_chunks:
            _line(self._stream)  # what ends the one before
        text = _line(self._stream).partition(b";")[0].strip()
        try:
            self._left = int(text, 16)
        except ValueError:
            raise BrokenAnswer(f"The engine's answer has a wrong length in it: {text[:40]!r}.") from None
        self._in_chunks = True
        if self._left == 0:
            self._chunked = False  # the last one; nobody here asked for fields behind it


def send(
    connection: socket.socket,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: Iterable[bytes] | bytes | None = None,
) -> None:
    """Send a request; a body that is not one piece goes in chunks, each when it is there. Raises OSError."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if body is None or isinstance(body, bytes):
        if body is not None or method == "POST":
            lines.append(f"Content-Length: {len(body or b'')}")
        connection.sendall(_header(lines) + (body or b""))
        return
    connection.sendall(_header([*lines, "Transfer-Encoding: chunked"]))
    for piece in body:
        if piece:  # an empty one would be the end
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    connection.sendall(b"0\r\n\r\n")


def receive(stream: BufferedReader, method: str = "") -> Response:
    """Wait for the header of the answer to a request of that `method`. Raises BrokenAnswer, OSError."""
    while True:
        first = stream.readline(_LINE_LIMIT)
        if not first:
            raise BrokenAnswer("It ended before the engine answered.")
        status, headers = _status(first), _fields(stream)
        if status >= 200 or status == SWITCHING:  # else it is a word before the answer
            return Response(status, headers, stream, bare=method == "HEAD")


def _header(lines: Iterable[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _line(stream: BufferedReader) -> bytes:
    line = stream.readline(_LINE_LIMIT)
    if not line.endswith(b"\n"):
        raise BrokenAnswer("It ended in the middle of the engine's answer.")
    return line.rstrip(b"\r\n")


def _status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    number = rest[:3]
    if not version.startswith(b"HTTP/1.") or len(number) != 3 or not number.isdigit():
        raise BrokenAnswer(f"What came is no answer of an engine: {line[:80]!r}.")
    return int(number)


def _fields(stream: BufferedReader) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(_FIELDS_LIMIT):
        line = _line(stream).decode("latin-1")
        if not line:
            return found
        name, _, value = line.partition(":")
        found[name.strip().lower()] = value.strip()
    raise BrokenAnswer("The header of the engine's answer does not end.")


def _length(status: int, headers: Mapping[str, str]) -> int | None:
    if status in (SWITCHING, 204, 304):
        return 0
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
