"""The monitor's ends of a process's stdin, stdout and stderr: pipes, or the master of a terminal."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable

from .eventloop import READ, WRITE, EventLoop
from .peer import Peer

_CHUNK = 65536
_ENOUGH = 65536  # input that may wait here before its sender is not read any more
_LINE_END = 0.005  # seconds for a terminal's line to get its end
_PIPE_LIMIT = 1 << 20  # the most that a pipe can hold, /proc/sys/fs/pipe-max-size


class Output:
    """One stream of output; `on_data` gets what comes, and b"" once at its end. A terminal's lines come whole where
    they can: the kernel hands over a line and its end one after the other.
    """

    def __init__(
        self,
        loop: EventLoop,
        descriptor: int,
        kind: int,
        on_data: Callable[[Output, bytes], None],
        *,
        terminal: bool = False,
    ) -> None:
        self.kind = kind
        self._terminal = terminal
        self.closed = False
        self._loop = loop
        self._descriptor = descriptor
        self._on_data = on_data
        os.set_blocking(descriptor, False)
        self.resume()

    def pause(self) -> None:
        """Leave what comes in the pipe, so that the process waits."""
        if not self.closed:
            self._loop.watch(self._descriptor, 0, self._handle)

    def resume(self) -> None:
        if not self.closed:
            self._loop.watch(self._descriptor, READ, self._handle)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.forget(self._descriptor)
            os.close(self._descriptor)

    def drain(self) -> None:
        """Take what is there, and close: whoever still holds the other end has had the time."""
        taken = 0
        while not self.closed and taken < _PIPE_LIMIT:
            data = self._read()
            if data is None:
                break
            taken += len(data)
            self._pass_on(data)
        self.close()

    def _handle(self, _events: int) -> None:
        data = self._read()
        if data is None:
            return
        if self._terminal and data and not data.endswith(b"\n") and select.select([self._descriptor], [], [], _LINE_END)[0]:
            data += self._read() or b""  # an end is told again by the next read
        self._pass_on(data)

    def _read(self) -> bytes | None:
        """Bytes, b"" at the end, None if there is nothing now."""
        try:
            return os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal says that nobody has it open any more
                raise
            return b""

    def _pass_on(self, data: bytes) -> None:
        if not data:
            self.close()
        self._on_data(self, data)


class Input:
    """The process's stdin; what it does not take at once waits here, and then in the senders' sockets."""

    def __init__(self, loop: EventLoop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._held: list[Peer] = []
        self._ending = False
        self._closed = False
        os.set_blocking(descriptor, False)

    def feed(self, data: bytes, sender: Peer) -> None:
        """Pass bytes on. After the end, or when the process has closed its stdin, they are dropped."""
        if self._closed or self._ending:
            return
        self._buffer += data
        self._flush()
        if len(self._buffer) > _ENOUGH:
            self._held.append(sender)
            sender.read_more(False)

    def end(self) -> None:
        """Close the process's stdin once it has taken what waits."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        """Close it now."""
        if not self._closed:
            self._closed = True
            self._buffer.clear()
            self._loop.forget(self._descriptor)
            os.close(self._descriptor)
            self._let_go()

    def _flush(self, _events: int = 0) -> None:
        if self._closed:
            return
        try:
            with contextlib.suppress(BlockingIOError):
                while self._buffer:
                    del self._buffer[: os.write(self._descriptor, self._buffer[:_CHUNK])]
        except OSError:  # the process closed its stdin, or hung up the terminal
            self.close()
            return
        if self._ending and not self._buffer:
            self.close()
            return
        self._loop.watch(self._descriptor, WRITE if self._buffer else 0, self._flush)
        if len(self._buffer) <= _ENOUGH:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for sender in held:
            if not sender.gone:
                sender.read_more(True)
