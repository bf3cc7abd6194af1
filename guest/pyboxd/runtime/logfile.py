"""Docker's json-file log: one JSON object per line of output, with rotation.

A line is `{"log":"text\\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}`. A line of more than
16 KiB becomes several entries, of which only the last ends in a newline, all with the time of the first.
"""

from __future__ import annotations

import contextlib
import os
import time
from json.encoder import encode_basestring

from .spec import LogSettings
from .wire import STDERR, STDOUT

MAX_ENTRY = 16384  # bytes of output in one entry
_NAMES = {STDOUT: '"stdout"', STDERR: '"stderr"'}


class _Partial:
    """Output of one stream whose line has not ended yet."""

    def __init__(self) -> None:
        self.data = b""
        self.time = ""  # of the line's first entry, "" if there is none


class JsonLog:
    """Appends output to a file. A disk that is full loses entries, never the container."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._partials = {STDOUT: _Partial(), STDERR: _Partial()}
        self._file = -1
        self._size = 0
        if settings.driver != "none" and settings.path:
            self._open(os.O_APPEND)

    def _open(self, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._settings.path, flags, 0o640)
        self._size = os.fstat(self._file).st_size

    def write(self, stream: int, data: bytes) -> None:
        """Take output of STDOUT or STDERR; whole lines are in the file when this returns."""
        if self._file < 0:
            return
        partial = self._partials[stream]
        *whole, rest = (partial.data + data).split(b"\n")
        now = partial.time or timestamp(time.time_ns())
        entries: list[bytes] = []
        for line in whole:
            entries += _entries(line + b"\n", stream, now)
            if partial.time:
                partial.time, now = "", timestamp(time.time_ns())
        while len(rest) >= MAX_ENTRY:
            cut = _cut(rest)
            entries.append(_entry(rest[:cut], stream, now))
            rest, partial.time = rest[cut:], now
        partial.data = rest
        self._append(entries)

    def close(self) -> None:
        """Write what is left of lines that never ended."""
        for stream, partial in self._partials.items():
            if partial.data and self._file >= 0:
                self._append([_entry(partial.data, stream, partial.time or timestamp(time.time_ns()))])
            partial.data = b""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, entries: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            limit = self._settings.max_size
            if limit <= 0:
                _write_all(self._file, b"".join(entries))
                return
            for entry in entries:
                if self._size >= limit:
                    self._rotate()
                _write_all(self._file, entry)
                self._size += len(entry)

    def _rotate(self) -> None:
        path, count = self._settings.path, self._settings.max_file
        os.close(self._file)
        if count > 1:
            for number in range(count - 1, 1, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}.{number - 1}", f"{path}.{number}")
            os.rename(path, f"{path}.1")
        self._open(os.O_APPEND | os.O_TRUNC)


def timestamp(nanoseconds: int) -> str:
    """Unix time as RFC 3339 with as many digits as are needed, which is how Go writes it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{text}{digits}Z"


def _entries(line: bytes, stream: int, now: str) -> list[bytes]:
    entries = []
    while len(line) > MAX_ENTRY:
        cut = _cut(line)
        entries.append(_entry(line[:cut], stream, now))
        line = line[cut:]
    return [*entries, _entry(line, stream, now)]


def _cut(data: bytes) -> int:
    """Where an entry ends that would be too long: at MAX_ENTRY, but not inside a UTF-8 character."""
    cut = MAX_ENTRY
    while cut > MAX_ENTRY - 4 and cut < len(data) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _entry(data: bytes, stream: int, now: str) -> bytes:
    text = encode_basestring(data.decode("utf-8", "replace"))
    return f'{{"log":{text},"stream":{_NAMES[stream]},"time":"{now}"}}\n'.encode()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
