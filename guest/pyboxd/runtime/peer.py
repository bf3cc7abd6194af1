"""The monitor's side of one connection: frames in, frames out through a bounded buffer."""

from __future__ import annotations

import socket
from collections.abc import Callable

from pyboxd.errors import PyboxdError

from . import codec, wire
from .eventloop import READ, WRITE, EventLoop
from .wire import Answer

HIGH_WATER = 131072  # bytes that may wait for a peer before the container's output is not read any more
_CHUNK = 65536


class Peer:
    """A connection of the engine: one that controls, or one that follows output and feeds input."""

    def __init__(
        self,
        connection: socket.socket,
        loop: EventLoop,
        on_frame: Callable[[Peer, int, bytes], None],
        on_gone: Callable[[Peer], None],
        on_room: Callable[[], None],
    ) -> None:
        self.kinds: frozenset[int] = frozenset()  # output it follows
        self.feeds = False  # its STDIN frames are the process's input
        self.attached = False
        self._connection = connection
        self._loop = loop
        self._on_frame = on_frame
        self._on_gone = on_gone
        self._on_room = on_room
        self._unpacker = wire.Unpacker()
        self._out = bytearray()
        self._reading = True
        self._ending = False
        self.gone = False
        connection.setblocking(False)
        self._update()

    @property
    def full(self) -> bool:
        """Whether so much waits for it that the container must wait too."""
        return len(self._out) > HIGH_WATER

    def send(self, kind: int, payload: bytes) -> None:
        """Queue a frame, and send what the socket takes."""
        self._out += wire.pack(kind, payload)
        self._flush()

    def answer(self, answer: Answer) -> None:
        self.send(wire.ANSWER, codec.dumps(answer, sparse=True))

    def read_more(self, more: bool) -> None:
        """Stop or go on reading: input that the process does not take must not pile up here."""
        self._reading = more
        self._update()

    def end(self) -> None:
        """Close once all that is queued has been sent.

        One that controls may have asked for something just now. If its request met a closed connection, it would not
        read what was sent before: so it is the one that closes.
        """
        self._ending = True
        self._reading = not self.attached
        self._flush()

    def drop(self) -> None:
        """Close now."""
        if not self.gone:
            self.gone = True
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._on_gone(self)

    def _update(self) -> None:
        if not self.gone:
            mask = (READ if self._reading else 0) | (WRITE if self._out else 0)
            self._loop.watch(self._connection.fileno(), mask, self._handle)

    def _handle(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE and not self.gone:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_CHUNK)
            frames = self._unpacker.feed(data)
        except BlockingIOError:
            return
        except (ConnectionError, PyboxdError):
            data, frames = b"", []
        for kind, payload in frames if not self._ending else ():
            self._on_frame(self, kind, payload)
        if not data:
            self.drop()

    def _flush(self) -> None:
        was_full = self.full
        try:
            while self._out:
                del self._out[: self._connection.send(self._out[:_CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self.drop()
            return
        if self._ending and not self._out:
            if self.attached:
                self.drop()
                return
            self._connection.shutdown(socket.SHUT_WR)
        self._update()
        if was_full and not self.full:
            self._on_room()
