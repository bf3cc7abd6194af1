"""Docker's stream frames, without I/O (Engine API, "Stream format" of attach).

A frame is 8 bytes of header, `[stream, 0, 0, 0, length (uint32, big endian)]`, and `length` bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

HEADER = 8


class Stream(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    SYSTEM_ERROR = 3


class FrameDecoder:
    """Bytes in, `(stream, data)` out. Data of an unfinished frame is handed out as it comes."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = Stream.STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[Stream, bytes]]:
        """Decode `data`; ValueError when a header names an unknown stream."""
        view = memoryview(data)
        while view:
            if self._left == 0:
                taken = view[: HEADER - len(self._header)]
                self._header += taken
                view = view[len(taken) :]
                if len(self._header) < HEADER:
                    return
                self._stream = Stream(self._header[0])
                self._left = int.from_bytes(self._header[4:], "big")
                self._header.clear()
                continue
            part = bytes(view[: self._left])
            self._left -= len(part)
            view = view[len(part) :]
            yield self._stream, part
