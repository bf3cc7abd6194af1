"""The control channel's wire format, without I/O: bytes in, messages out, and back (CONTROL.md has the words).

`Peer` also keeps the one bit of state that the format has: what comes before the other side's `resync` belongs to
an earlier life of it and is dropped. Who answers what is `control.py`'s business.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pyboxd.frozen import frozen
from pyboxd.model import EMPTY

LINE_LIMIT = 1024 * 1024  # bytes of one message with its newline

Params = Mapping[str, Any]
log = logging.getLogger(__name__)


@frozen
class Resync:
    """First message of a side that has just begun, or begins again."""

    token: str


@frozen
class Request:
    """Asks the other side; answered with the same id."""

    id: int
    method: str
    params: Params = EMPTY


@frozen
class Failure:
    """Why a request was refused: what failed, what was seen, what to do."""

    brief: str
    details: str = ""
    resolution: str = ""


@frozen
class Answer:
    """Ends the request with this id. `failure` is None when it succeeded."""

    id: int
    result: Params = EMPTY
    failure: Failure | None = None


@frozen
class Event:
    """Told once, not answered."""

    name: str
    params: Params = EMPTY


Message = Resync | Request | Answer | Event


def encode(message: Message) -> bytes:
    """One line. Raises ValueError when the message is longer than the channel allows."""
    line = json.dumps(_plain(message), separators=(",", ":")).encode() + b"\n"
    if len(line) > LINE_LIMIT:
        raise ValueError(f"a control message of {len(line)} bytes is over the limit of {LINE_LIMIT}")
    return line


def _plain(message: Message) -> dict[str, Any]:
    match message:
        case Resync(token):
            return {"type": "resync", "token": token}
        case Request(number, method, params):
            return {"type": "request", "id": number, "method": method, "params": dict(params)}
        case Answer(number, result, None):
            return {"type": "answer", "id": number, "result": dict(result)}
        case Answer(number, _, failure):
            assert failure is not None
            parts = {"brief": failure.brief, "details": failure.details, "resolution": failure.resolution}
            return {"type": "answer", "id": number, "error": parts}
        case Event(name, params):
            return {"type": "event", "name": name, "params": dict(params)}


def decode(line: bytes) -> Message:
    """The message of one line. Raises ValueError when it is none; unknown fields are ignored."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    match value:
        case {"type": "resync", "token": str(token)}:
            return Resync(token)
        case {"type": "request", "id": int(number), "method": str(method)}:
            return Request(number, method, _object(value, "params"))
        case {"type": "answer", "id": int(number), "error": {"brief": str(brief), **rest}}:
            return Answer(
                number,
                failure=Failure(brief, str(rest.get("details", "")), str(rest.get("resolution", ""))),
            )
        case {"type": "answer", "id": int(number)}:
            return Answer(number, _object(value, "result"))
        case {"type": "event", "name": str(name)}:
            return Event(name, _object(value, "params"))
    raise ValueError(f"no message of this protocol (type {value.get('type')!r})")


def _object(value: Mapping[str, Any], key: str) -> Params:
    found = value.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{key} is no object")
    return found


class Peer:
    """What comes from the other side: a stream of bytes in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping = False  # inside a line that is too long
        self._token: str | None = None  # of the peer's present life; None before its first resync

    def feed(self, data: bytes) -> Iterator[Message]:
        """Messages that `data` completes. A `Resync` is among them only if it begins a new life of the peer."""
        self._buffer += data
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                break
            self._buffer = rest
            if self._skipping:
                self._skipping = False
            elif line.strip():
                yield from self._message(bytes(line))
        if len(self._buffer) >= LINE_LIMIT:
            log.warning("control channel: a line over the limit of %d bytes was skipped", LINE_LIMIT)
            self._buffer.clear()
            self._skipping = True

    def _message(self, line: bytes) -> Iterator[Message]:
        try:
            message = decode(line)
        except ValueError as error:
            if self._token is not None:
                log.warning("control channel: a line was skipped: %s: %.80r", error, line)
            return
        if isinstance(message, Resync):
            if message.token != self._token:
                self._token = message.token
                yield message
        elif self._token is not None:
            yield message
