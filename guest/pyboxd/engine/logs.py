"""Reading a container's json-file log: the end of it, from some time on, and what comes next.

The monitor writes (`runtime/logfile.py`): `PATH`, older files `PATH.1`, `PATH.2`, …. A follower is woken by the kernel
when one of them changes; the writer does not know about it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from pyboxd.engine.containers import Container
from pyboxd.engine.timestamps import parse_rfc3339
from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.frozen import frozen
from pyboxd.linux import constants as k
from pyboxd.linux.inotify import Inotify

_BLOCK = 64 * 1024
_LONGEST = 1024 * 1024  # bytes; several times what a line of the monitor's can be. What is longer is damage
_STREAMS = {"stdout": 1, "stderr": 2}
_CHANGES = k.IN_MODIFY | k.IN_CREATE | k.IN_MOVED_TO


@frozen
class LogQuery:
    """What part of a log. Times are nanoseconds, 0 is no bound; `tail` counts lines from the end, -1 is all."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False


@dataclass(frozen=True)
class LogEntry:
    """One stored line. `time` is RFC 3339 as stored; `stream` is 1 or 2."""

    stream: int
    time: str
    text: bytes

    @property
    def padded_time(self) -> str:
        """The time with nine digits of a second, as `--timestamps` shows it."""
        whole, _, fraction = self.time.rstrip("Z").partition(".")
        return f"{whole}.{fraction.ljust(9, '0')}Z"


def check_readable(container: Container) -> None:
    """NotImplementedHere for a log driver that keeps nothing."""
    if container.record.host.log_config.type == "none":
        raise NotImplementedHere("configured logging driver does not support reading")


async def read(container: Container, path: str, query: LogQuery) -> AsyncIterator[LogEntry]:
    """The entries that `query` wants; with `follow` until the container's process ends."""
    with ExitStack() as closing:
        follower = None
        gone, follow = container.changed, query.follow and container.process is not None
        if follow:
            follower = closing.enter_context(_Follower(os.path.dirname(path)))
        reader = closing.enter_context(_Reader(path, query.tail, None if follow else _End.of(path)))
        while True:
            ended = gone.is_set() or not follow
            if follower is not None:
                follower.drain()
            for entry in reader.entries():
                if query.until and _moment(entry) > query.until:
                    return
                if _wanted(entry, query):
                    yield entry
            if ended or follower is None:
                return
            await follower.wait(gone)


def _wanted(entry: LogEntry, query: LogQuery) -> bool:
    if not (query.stdout if entry.stream == 1 else query.stderr):
        return False
    return not query.since or _moment(entry) >= query.since


def _moment(entry: LogEntry) -> int:
    """When a line was written, in nanoseconds; 0 for one whose time is damaged."""
    try:
        return parse_rfc3339(entry.time)
    except InvalidArgument:
        return 0


class _Follower:
    """Wakes up when something in a directory changes."""

    def __init__(self, directory: str) -> None:
        self._inotify = Inotify()
        self._woken = asyncio.Event()
        self._inotify.add(directory, _CHANGES)
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._woken.set)

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._inotify.fileno())
        self._inotify.close()

    def drain(self) -> None:
        """Forget the changes so far: they are read next."""
        self._woken.clear()
        while self._inotify.read():
            pass

    async def wait(self, gone: asyncio.Event) -> None:
        """Until there was a change, or `gone` is set."""
        tasks = [asyncio.ensure_future(self._woken.wait()), asyncio.ensure_future(gone.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


@frozen
class _End:
    """Where a log ended at one moment. Who does not follow reads no further: the writer may be faster than the reader."""

    device: int
    inode: int
    size: int

    @classmethod
    def of(cls, path: str) -> _End | None:
        """The end of a file, None when there is no file."""
        with suppress(FileNotFoundError):
            found = os.stat(path)
            return cls(found.st_dev, found.st_ino, found.st_size)
        return None

    def is_in(self, descriptor: int) -> bool:
        """Whether it is the end of this file, and not of one before or after it."""
        found = os.fstat(descriptor)
        return (self.device, self.inode) == (found.st_dev, found.st_ino)


class _Reader:
    """Reads a log and its rotated files in the order of writing, and goes on where it stopped, up to `end` if given."""

    def __init__(self, path: str, tail: int, end: _End | None) -> None:
        self._path = path
        self._end = end
        self._older = _rotated(path)
        self._file = -1
        self._rest = b""
        if tail >= 0:
            self._skip_to_tail(tail)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _skip_to_tail(self, tail: int) -> None:
        """Open the file that the last `tail` lines begin in, at their beginning."""
        files = [*self._older, self._path]
        for index in range(len(files) - 1, -1, -1):
            try:
                descriptor = os.open(files[index], os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            end = self._end.size if self._end is not None and self._end.is_in(descriptor) else None
            position, missing = _tail_position(descriptor, tail, end)
            if missing <= 0 or index == 0:
                os.lseek(descriptor, position, os.SEEK_SET)
                self._file = descriptor
                self._older = self._older[index + 1 :]
                return
            os.close(descriptor)
            tail = missing

    def entries(self) -> Iterator[LogEntry]:
        """All entries that are there now."""
        while True:
            if self._file < 0 and not self._open_next():
                return
            yield from self._read_file()
            if not self._moved_on():
                return
            self._close()

    def _open_next(self) -> bool:
        path = self._older.pop(0) if self._older else self._path
        with suppress(FileNotFoundError):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._file >= 0

    def _read_file(self) -> Iterator[LogEntry]:
        if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            os.lseek(self._file, 0, os.SEEK_SET)  # rotation with one file empties it in place
            self._rest = b""
        while block := os.read(self._file, self._room()):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                if (entry := _parse(line)) is not None:
                    yield entry
            if len(self._rest) > _LONGEST:
                self._rest = b""

    def _room(self) -> int:
        """How much may be read at once."""
        if self._end is None or not self._end.is_in(self._file):
            return _BLOCK
        return max(0, min(_BLOCK, self._end.size - os.lseek(self._file, 0, os.SEEK_CUR)))

    def _moved_on(self) -> bool:
        """Whether there is another file to read after the open one."""
        if self._older:
            return True
        if self._end is not None and self._end.is_in(self._file):
            return False
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return False
        opened = os.fstat(self._file)
        return (current.st_dev, current.st_ino) != (opened.st_dev, opened.st_ino)


def _rotated(path: str) -> list[str]:
    """The older files, the oldest first."""
    found: list[str] = []
    while os.path.exists(f"{path}.{len(found) + 1}"):
        found.append(f"{path}.{len(found) + 1}")
    return found[::-1]


def _tail_position(descriptor: int, count: int, end: int | None) -> tuple[int, int]:
    """Where the last `count` lines before `end` (None: the file's) begin, and how many lines are missing for that."""
    position = os.lseek(descriptor, 0, os.SEEK_END) if end is None else end
    wanted = count + 1  # the newline before the first of them
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        block = os.pread(descriptor, size, position)
        found = block.count(b"\n")
        if found >= wanted:
            return position + _after_newline(block, wanted), 0
        wanted -= found
    return 0, wanted - 1


def _after_newline(block: bytes, count: int) -> int:
    """The place after the newline that is the `count`-th from the end."""
    end = len(block)
    for _ in range(count):
        end = block.rindex(b"\n", 0, end)
    return end + 1


def _parse(line: bytes) -> LogEntry | None:
    """One line of the file; None for one that is damaged. A crash may leave zeros in front of a line that is whole."""
    try:
        value = json.loads(line.lstrip(b"\0"))
        text = value.get("log", "").encode("utf-8", "surrogateescape")
        return LogEntry(_STREAMS.get(value.get("stream", ""), 1), str(value.get("time", "")), text)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
