"""Between engine and monitor: frames on a stream socket. No I/O here.

A frame is one byte of kind, four bytes of length (big endian) and the payload. One connection is either a
control connection or an attachment; its first request decides.

    | kind    | direction         | payload                                                            |
    | STDIN   | engine → monitor  | bytes for the process; an empty frame is the end of input          |
    | STDOUT  | monitor → engine  | bytes the process wrote                                            |
    | STDERR  | monitor → engine  | the same                                                           |
    | REQUEST | engine → monitor  | a `Request` as JSON                                                |
    | ANSWER  | monitor → engine  | an `Answer` as JSON; in the order of the requests                  |
    | EXIT    | monitor → engine  | an `Exit` as JSON, once, on every control connection; then EOF     |

Requests: `create` and `exec` (the first one a monitor ever gets, with the spec), `hello` (after a restart of
the engine), `start`, `signal`, `resize`, `attach`. EOF without EXIT on a control connection means that the
monitor died. EOF from the engine before `start` ends the container.
"""

from __future__ import annotations

import struct

from pyboxd.errors import SystemFailure
from pyboxd.frozen import frozen

from .failure import Failure
from .spec import ContainerSpec, ExecSpec

STDIN, STDOUT, STDERR, REQUEST, ANSWER, EXIT = range(6)
SOCKET_NAME = "monitor"  # in the run directory
EXIT_FILE = "exit.json"
STATE_FILE = "state.json"
MAX_PAYLOAD = 8 << 20  # a spec with a large environment; data frames are far smaller
_HEADER = struct.Struct("!BI")


@frozen
class Request:
    """What the engine wants; `verb` says which of the other fields mean something."""

    verb: str
    container: ContainerSpec | None = None
    process: ExecSpec | None = None
    signum: int = 0
    rows: int = 0
    columns: int = 0
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


@frozen
class Answer:
    """The monitor's answer: a failure, or (for `create`, `exec`, `hello`) what the monitor holds."""

    failure: Failure | None = None
    pid: int = 0
    cgroup: str = ""
    started: bool = False


@frozen
class State:
    """Kept in the run directory, for the case that the monitor dies."""

    pid: int
    cgroup: str
    is_exec: bool = False


def pack(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEADER.pack(kind, len(payload)) + payload


class Unpacker:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that `data` completes. SystemFailure when the peer does not speak this protocol."""
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, bytes]] = []
        position = 0
        while len(buffer) - position >= _HEADER.size:
            kind, length = _HEADER.unpack_from(buffer, position)
            if kind > EXIT or length > MAX_PAYLOAD:
                raise SystemFailure(f"monitor protocol: frame of kind {kind} with {length} bytes")
            end = position + _HEADER.size + length
            if len(buffer) < end:
                break
            frames.append((kind, bytes(buffer[position + _HEADER.size : end])))
            position = end
        del buffer[:position]
        return frames
