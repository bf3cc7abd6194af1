"""A cable between the machine and a server of this computer, to be held or cut in the middle of an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Wire:
    """Passes TCP connections on to 127.0.0.1:`target`. Once the server has sent `limit` bytes in all, no more bytes
    go through until `release`, or, with `cut`, all connections end and nobody listens any more.

        with Wire(port, limit=1_000_000) as wire:
            …wire.port…
            wire.reached.wait(60)
    """

    def __init__(self, target: int, limit: int, *, cut: bool = False) -> None:
        self._target = target
        self._left = limit
        self._cut = cut
        self._lock = threading.Lock()
        self._go = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.reached = threading.Event()

    def __enter__(self) -> Wire:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed = True
        self.release()
        self._end_all()

    def release(self) -> None:
        """Let everything through from now on."""
        with self._lock:
            self._left = 1 << 62
        self._go.set()

    def _start(self, job: object, *args: object) -> None:
        threading.Thread(target=job, args=args, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._forward, client, server, False)
            self._start(self._forward, server, client, True)

    def _forward(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                if counted and not self._may_pass(len(data)):
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _may_pass(self, length: int) -> bool:
        """Count bytes; wait, or end everything, when there were too many."""
        with self._lock:
            self._left -= length
            if self._left >= 0:
                return True
        self.reached.set()
        if self._cut:
            self._end_all()
            return False
        self._go.wait()
        return not self._closed

    def _end_all(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for item in sockets:
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
