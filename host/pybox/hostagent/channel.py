"""The control channel's wire format without I/O: JSON lines in and out. The specification is the guest's CONTROL.md.

Everything that comes from the guest is checked here; a line that is none of the four messages is skipped.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from pybox.frozen import frozen
from pybox.model import Json

LINE_LIMIT = 1024 * 1024  # bytes, newline included
log = logging.getLogger(__name__)
_NOTHING: Json = {}


@frozen
class Resync:
    """The sender begins anew: nothing that either side said before counts."""

    token: str


@frozen
class Request:
    id: int
    method: str
    params: Json = _NOTHING


@frozen
class Answer:
    id: int
    result: Json = _NOTHING


@frozen
class Refusal:
    """An answer that says no: the three parts of an error."""

    id: int
    brief: str
    details: str = ""
    resolution: str = ""


@frozen
class Event:
    name: str
    params: Json = _NOTHING


Message = Resync | Request | Answer | Refusal | Event


def encode(message: Message) -> bytes:
    """Return a message as a line. Raises ValueError when it is too long."""
    line = json.dumps(_to_object(message), separators=(",", ":")).encode() + b"\n"
    if len(line) > LINE_LIMIT:
        raise ValueError(f"a control message of {len(line)} bytes; the limit is {LINE_LIMIT}")
    return line


def _to_object(message: Message) -> dict[str, Any]:
    match message:
        case Resync(token):
            return {"type": "resync", "token": token}
        case Request(number, method, params):
            return {"type": "request", "id": number, "method": method, "params": params}
        case Answer(number, result):
            return {"type": "answer", "id": number, "result": result}
        case Refusal(number, brief, details, resolution):
            error = {"brief": brief, "details": details, "resolution": resolution}
            return {"type": "answer", "id": number, "error": error}
        case Event(name, params):
            return {"type": "event", "name": name, "params": params}


def decode(line: bytes) -> Message:
    """Return the message of a line. Raises ValueError when it is none."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    kind = found.get("type")
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        raise ValueError(f"unknown type {kind!r}")
    return decoder(_Fields(found))


class _Fields:
    def __init__(self, value: Json) -> None:
        self._value = value

    def text(self, name: str) -> str:
        found = self._value.get(name)
        if not isinstance(found, str):
            raise ValueError(f"{name} is not a text")
        return found

    def number(self, name: str) -> int:
        found = self._value.get(name)
        if not isinstance(found, int) or isinstance(found, bool):
            raise ValueError(f"{name} is not a number")
        return found

    def object(self, name: str) -> Json:
        found = self._value.get(name) or {}
        if not isinstance(found, dict):
            raise ValueError(f"{name} is not an object")
        return found

    def has(self, name: str) -> bool:
        return self._value.get(name) is not None


def _answer(fields: _Fields) -> Message:
    if not fields.has("error"):
        return Answer(fields.number("id"), fields.object("result"))
    error = fields.object("error")
    parts = [str(error.get(name) or "") for name in ("brief", "details", "resolution")]
    return Refusal(fields.number("id"), parts[0] or "refused without a reason", *parts[1:])


_DECODERS: dict[str, Callable[[_Fields], Message]] = {
    "resync": lambda fields: Resync(fields.text("token")),
    "request": lambda fields: Request(fields.number("id"), fields.text("method"), fields.object("params")),
    "answer": _answer,
    "event": lambda fields: Event(fields.text("name"), fields.object("params")),
}


class Receiver:
    """Turns the bytes of the guest into messages.

    What comes before the guest's `resync` belongs to a life of it that is over, and is dropped; so is a `resync` that
    repeats the one before.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._overlong = False
        self._token: str | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._overlong:  # the end of a line whose beginning is gone
                self._overlong = False
                continue
            message = self._message(line)
            if message is not None:
                yield message
        if len(self._rest) >= LINE_LIMIT:
            log.warning("a line of more than %d bytes is skipped", LINE_LIMIT)
            self._rest = b""
            self._overlong = True

    def _message(self, line: bytes) -> Message | None:
        try:
            message = decode(line)
        except (ValueError, RecursionError) as error:
            if self._token is not None and line.strip():
                log.warning("a line is skipped: %s: %r", error, line[:100])
            return None
        if isinstance(message, Resync):
            if message.token == self._token:
                return None
            self._token = message.token
            return message
        return None if self._token is None else message
