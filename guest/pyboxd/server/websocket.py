"""The server's side of RFC 6455 (WebSocket), without I/O: the handshake, frames to bytes and bytes to frames.

Not here: the connection (`websocket_channel.py`). Imported only when a client asks for a WebSocket.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.server.message import Headers

_VERSION = "13"
_KEY_SIZE = 16
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CONTROL_LIMIT = 125  # bytes of a ping, pong or close
_FIN = 0x80
_RESERVED = 0x70
_MASKED = 0x80

NORMAL = 1000
PROTOCOL_ERROR = 1002
_NO_CODE = 1005  # means "none was sent"; never on the wire


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class ProtocolError(Exception):
    """The client breaks the rules; `str(error)` says how. It is told with PROTOCOL_ERROR."""


@frozen
class Event:
    """Bytes of a message (TEXT or BINARY, as they come: a message may be many events), or a whole control frame."""

    opcode: Opcode
    data: bytes = b""
    code: int = 0  # of a close; 1005: the client gave none


def accept(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The header fields that answer a client's handshake. InvalidArgument for one that is none."""
    fields = headers if isinstance(headers, Headers) else Headers(tuple(headers.items()))
    if not fields.token("connection", "upgrade") or not fields.token("upgrade", "websocket"):
        raise InvalidArgument("bad WebSocket handshake: no upgrade to websocket was asked for")
    if fields.get("sec-websocket-version", "").strip() != _VERSION:
        raise InvalidArgument(f"bad WebSocket handshake: Sec-WebSocket-Version must be {_VERSION}")
    key = fields.get("sec-websocket-key", "").strip()
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _KEY_SIZE:
        raise InvalidArgument(f"bad WebSocket handshake: Sec-WebSocket-Key must be {_KEY_SIZE} bytes in base64")
    digest = hashlib.sha1(key.encode("ascii") + _MAGIC, usedforsecurity=False).digest()
    return {"Sec-WebSocket-Accept": base64.b64encode(digest).decode("ascii")}


def encode(opcode: Opcode, data: bytes = b"") -> bytes:
    """One unmasked, whole frame, as a server sends them."""
    size = len(data)
    if size <= _CONTROL_LIMIT:
        head = struct.pack(">BB", _FIN | opcode, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", _FIN | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", _FIN | opcode, 127, size)
    return head + data


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame; an answer to one without a code has none either."""
    if code == _NO_CODE:
        return encode(Opcode.CLOSE)
    text = reason.encode()[: _CONTROL_LIMIT - 2].decode("utf-8", "ignore")
    return encode(Opcode.CLOSE, struct.pack(">H", code) + text.encode())


class Decoder:
    """A client's bytes, cut anywhere, to events. Nothing but one frame's head or one control frame is ever kept.

    The text of text messages is not checked: it goes to a process, which takes bytes.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # what lies before this in the buffer is done with
        self._message: Opcode | None = None  # the kind of a message whose end has not come
        self._frame: _Head | None = None
        self._done = 0  # bytes of the frame's payload that were passed on

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events in `data`. ProtocolError, after which nothing more may be fed. A close is the last event."""
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        while True:
            if self._frame is None:
                self._frame = self._read_head()
                if self._frame is None:
                    return
            event = self._read_payload(self._frame)
            if event is None:
                return
            if event.data or event.opcode >= Opcode.CLOSE:
                yield event
            if event.opcode is Opcode.CLOSE:
                return

    def _read_head(self) -> _Head | None:
        """The head of the next frame, checked; None while it is incomplete."""
        buffer, at = self._buffer, self._at
        if len(buffer) < at + 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        self._check_first_bytes(first, second)
        size = second & 0x7F
        mask_at = at + {126: 4, 127: 10}.get(size, 2)
        if len(buffer) < mask_at + 4:
            return None
        if size >= 126:
            least, form = (126, ">H") if size == 126 else (1 << 16, ">Q")
            (size,) = struct.unpack_from(form, buffer, at + 2)
            if not least <= size < 1 << 63:
                raise ProtocolError("bad length of a frame")
        opcode = Opcode(first & 0x0F)
        if opcode < Opcode.CLOSE:
            opcode = self._message or opcode
            self._message = None if first & _FIN else opcode
        self._at = mask_at + 4
        self._done = 0
        return _Head(opcode, size, buffer[mask_at : mask_at + 4])

    def _check_first_bytes(self, first: int, second: int) -> None:
        if first & _RESERVED:
            raise ProtocolError("reserved bits are set")
        if not second & _MASKED:
            raise ProtocolError("a frame is not masked")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise ProtocolError(f"unknown opcode {first & 0x0F}") from None
        if opcode >= Opcode.CLOSE:
            if not first & _FIN or second & 0x7F > _CONTROL_LIMIT:
                raise ProtocolError("a control frame is fragmented or too long")
        elif (opcode is Opcode.CONTINUATION) != (self._message is not None):
            raise ProtocolError("a message begins inside another, or goes on before it began")

    def _read_payload(self, head: _Head) -> Event | None:
        """What has come of the payload, all of it for a control frame; None while that is nothing."""
        left, come = head.size - self._done, len(self._buffer) - self._at
        if come < left and (head.opcode >= Opcode.CLOSE or not come):
            return None
        data = unmask(self._buffer[self._at : self._at + left], head.mask, self._done)
        self._at += len(data)
        self._done += len(data)
        if self._done == head.size:
            self._frame = None
        return _close_event(data) if head.opcode is Opcode.CLOSE else Event(head.opcode, data)


@frozen
class _Head:
    """A frame's head. `opcode` is that of the message where the frame continues one."""

    opcode: Opcode
    size: int
    mask: bytes


def unmask(data: bytes, mask: bytes, offset: int = 0) -> bytes:
    """Undo (or do) the masking of bytes that begin `offset` bytes into a frame's payload."""
    size = len(data)
    shift = offset % 4
    pattern = (mask[shift:] + mask[:shift]) * (size // 4 + 1)
    return (int.from_bytes(data, "big") ^ int.from_bytes(pattern[:size], "big")).to_bytes(size, "big")


def _close_event(data: bytes) -> Event:
    if not data:
        return Event(Opcode.CLOSE, code=_NO_CODE)
    if len(data) < 2:
        raise ProtocolError("half a close code")
    (code,) = struct.unpack(">H", data[:2])
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolError(f"close code {code}")
    try:
        data[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError("the reason of a close is no text") from None
    return Event(Opcode.CLOSE, data[2:], code)
