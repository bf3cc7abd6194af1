"""Standard input to the container and its output back: two pumps over a hijacked connection.

The terminal itself (raw mode, size, signals) is behind `Console`, whose implementations live in `hostos`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pybox.engine.client import Hijacked
from pybox.engine.frames import FrameDecoder, Stream
from pybox.errors import UsageProblem

if TYPE_CHECKING:
    from pybox.hostos.interface import Console

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


class DetachKeys:
    """Finds the key sequence that leaves a container running; holds back what may be its beginning."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to send, whether the sequence is complete)."""
        out = bytearray()
        for byte in data:
            if self._sequence and byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(out), True
                continue
            out += self._sequence[: self._matched]
            self._matched = 0
            if self._sequence and byte == self._sequence[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False


def detach_keys(flags: dict[str, Any]) -> DetachKeys:
    """`--detach-keys ctrl-p,ctrl-q` -> its bytes."""
    text = flags.get("detach_keys") or DEFAULT_DETACH_KEYS
    sequence = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            sequence += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and "@" <= key[5].upper() <= "_":
            sequence.append(ord(key[5].upper()) & 0x1F)
        else:
            raise UsageProblem(f"Unknown character: '{key}'", resolution="Write --detach-keys ctrl-p,ctrl-q")
    return DetachKeys(bytes(sequence))


class Pumps:
    """Carries one attached process's streams until its output ends or the user detaches."""

    def __init__(self, stream: Hijacked, console: Console, *, stdin: bool, tty: bool, keys: DetachKeys) -> None:
        self._stream = stream
        self._console = console
        self._stdin = stdin
        self._framed = not tty
        self._keys = keys if tty else DetachKeys(b"")
        self._detached = False

    def run(self) -> bool:
        """Blocks; True when the user detached."""
        if self._stdin:
            threading.Thread(target=self._send, daemon=True).start()
        decoder = FrameDecoder()
        while data := self._stream.read():
            if self._framed:
                for stream, part in decoder.feed(data):
                    self._console.write(part, error=stream is not Stream.STDOUT)
            else:
                self._console.write(data, error=False)
        return self._detached

    def _send(self) -> None:
        try:
            while data := self._console.read():
                wanted, complete = self._keys.feed(data)
                if wanted:
                    self._stream.socket.sendall(wanted)
                if complete:
                    self._detached = True
                    self._stream.socket.shutdown(2)
                    return
            self._stream.close_write()
        except OSError:
            return  # the process ended; the reading side tells
