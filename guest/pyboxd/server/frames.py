"""Docker's stream frames, the sending side, without I/O (Engine API, "Stream format" of attach).

A frame is 8 bytes of header, `[stream, 0, 0, 0, length (uint32, big endian)]`, and `length` bytes.
"""

from __future__ import annotations

import struct

STDIN = 0
STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3  # text of a failure of the engine in the middle of a log

_HEADER = struct.Struct(">BxxxL")


def frame(stream: int, data: bytes) -> bytes:
    """`data` as one frame of `stream`. An empty frame is legal and clients ignore it."""
    return _HEADER.pack(stream, len(data)) + data
