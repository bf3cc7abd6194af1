"""Requests and responses as the handlers see them. No sockets here; handlers import from this module alone.

A handler is `async def handler(request: Request) -> Response`. An error of `pyboxd.errors` that it raises is
answered with `{"message": …}` and the status of `server/status.py`; anything else it raises is a bug (500).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from pyboxd import jsontext
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen

JSON = "application/json"  # exactly: Docker's client compares the header with ==
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"  # non-TTY hijacks, API 1.42 and newer
JSON_LIMIT = 16 * 1024 * 1024  # bytes; a request's JSON body

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_FALSE = frozenset({"", "0", "no", "false", "none"})
NOTHING: Mapping[str, str] = MappingProxyType({})


class ClientGone(Exception):
    """The client closed the connection while it was being served. Handlers let it pass."""


def percent_decode(text: str, plus: bool = False) -> str:
    """Undo URL escaping (RFC 3986; with `plus` also "+" for a space, as in queries).

    Not `urllib.parse.unquote`: importing it takes longer than the start of everything else in this package.
    A "%" that begins no escape stays as it is.
    """
    if plus:
        text = text.replace("+", " ")
    if "%" not in text:
        return text
    first, *rest = text.encode().split(b"%")
    decoded = bytearray(first)
    for part in rest:
        try:
            byte = bytes.fromhex(part[:2].decode("ascii"))
        except ValueError:
            byte = b""
        decoded += byte + part[2:] if len(byte) == 1 else b"%" + part
    return decoded.decode("utf-8", "replace")


class Query:
    """The query string of a request, with a getter for each kind of value that Docker uses."""

    def __init__(self, text: str = "") -> None:
        """`text` is what follows "?" in the URL, still escaped."""
        self._values: dict[str, list[str]] = {}
        for pair in text.split("&"):
            if pair:
                name, _, value = pair.partition("=")
                self._values.setdefault(percent_decode(name, plus=True), []).append(percent_decode(value, plus=True))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """The first value of `name`."""
        values = self._values.get(name)
        return values[0] if values else default

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a parameter that may be repeated."""
        return tuple(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's boolean: "", 0, no, false and none are false, all else is true; `default` when absent."""
        values = self._values.get(name)
        return default if values is None else values[0].strip().lower() not in _FALSE

    def integer(self, name: str, default: int = 0) -> int:
        """A decimal number of 64 bits; `default` when absent or empty. Raises InvalidArgument on anything else."""
        text = self.text(name)
        if not text:
            return default
        if not _INTEGER.fullmatch(text):
            raise InvalidArgument(f"invalid value for {name}: {json.dumps(text)} is not a number")
        number = int(text)
        if not -(1 << 63) <= number < 1 << 63:
            raise InvalidArgument(f"invalid value for {name}: {json.dumps(text)} is out of range")
        return number


class Headers(Mapping[str, str]):
    """Header fields by lower-case name; lookups ignore case; a repeated field is joined with ", "."""

    def __init__(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            self._fields[key] = f"{self._fields[key]}, {value}" if key in self._fields else value

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Any:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def token(self, name: str, word: str) -> bool:
        """Whether the comma-separated list in field `name` contains `word`."""
        return word.lower() in (part.strip().lower() for part in self.get(name, "").split(","))


class _NoBody(AsyncIterator[bytes]):
    """The end of a body at once; can be read any number of times."""

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


@frozen
class Request:
    """One request. `path` is decoded and has no version prefix; `version` is (1, 51) for "/v1.51/…" and the
    newest one this engine has when the path names none. `parameters` are what the route's braces matched.
    """

    method: str
    path: str
    query: Query = Query()
    headers: Headers = Headers()
    version: tuple[int, int] = (1, 51)
    parameters: Mapping[str, str] = NOTHING
    body: AsyncIterator[bytes] = _NoBody()
    """The request's body in pieces as they arrive; can be read once, also while a Stream response is running.
    Raises ClientGone when the client leaves before the body's end."""

    async def read(self, limit: int = JSON_LIMIT) -> bytes:
        """The whole body; InvalidArgument if it is longer than `limit` bytes."""
        whole = bytearray()
        async for part in self.body:
            whole += part
            if len(whole) > limit:
                raise InvalidArgument(f"the request's body is larger than {limit} bytes")
        return bytes(whole)

    async def json(self, limit: int = JSON_LIMIT) -> Any:
        """The body as JSON, `None` when there is no body. InvalidArgument if it is something else."""
        body = await self.read(limit)
        if not body:
            return None
        kind = self.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != JSON:
            raise InvalidArgument(f"unsupported Content-Type header ({kind}): must be '{JSON}'")
        try:
            return jsontext.loads(body)
        except ValueError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from None


class Channel(Protocol):
    """A connection that was taken over from HTTP (attach, exec): bytes both ways, ends closed one by one."""

    async def read(self) -> bytes:
        """The next bytes of the client; b"" when it has closed its sending side (stdin's end) or has left."""

    async def write(self, data: bytes) -> None:
        """Send `data`; waits while the client does not take it. Raises ClientGone."""

    async def write_eof(self) -> None:
        """Close the sending side; the client may go on sending. Done anyhow when `run` returns."""


@frozen
class Json:
    """A value as JSON."""

    value: object
    status: int = 200
    headers: Mapping[str, str] = NOTHING


@frozen
class Empty:
    """A status and no body."""

    status: int = 204
    headers: Mapping[str, str] = NOTHING


@frozen
class Body:
    """Bytes of any type, e.g. `Body(b"OK", "text/plain; charset=utf-8")` for `_ping`."""

    data: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = NOTHING


@frozen
class Stream:
    """A body that is sent as it comes, chunked. If the client leaves, the iterator is cancelled and closed.

    `eager`: the header goes out at once, before the first chunk (logs, events, wait, stats). Otherwise it
    waits for the first chunk, and an error of `pyboxd.errors` raised before that chunk is answered with its
    own status (pull, push, build, load); errors after the first chunk are the iterator's to put into the
    stream.
    """

    chunks: AsyncIterator[bytes]
    content_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = NOTHING
    eager: bool = True


async def _nothing_to_release() -> None:
    pass


@frozen
class Hijack:
    """Take the connection over. `content_type` is what an upgrading client is told (RAW_STREAM for a TTY and
    for API versions before 1.42, else MULTIPLEXED_STREAM); a client that did not ask for an upgrade is told
    RAW_STREAM. `protocol` and `headers` are what an upgrade to something else than bare bytes says. `run` gets
    the channel after the header was sent; when it returns, the connection is closed. If the connection breaks,
    `run` is cancelled. `release` is awaited when all is over, also where it never came to `run`: the client may
    be gone before the header. Errors that the client must see as a status are raised by the handler before it
    returns the Hijack.
    """

    run: Callable[[Channel], Awaitable[None]]
    content_type: str = RAW_STREAM
    protocol: str = "tcp"
    headers: Mapping[str, str] = NOTHING
    release: Callable[[], Awaitable[None]] = _nothing_to_release


Response = Json | Empty | Body | Stream | Hijack
Handler = Callable[[Request], Awaitable[Response]]
