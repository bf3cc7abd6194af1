"""The folder server: `python -m pybox.share.server --socket ADDRESS --config FILE`.

One thread that takes requests from QEMU's end of the FUSE port, and answers each before it takes the next: nothing
was faster. It ends with the hostagent that started it, and by SIGTERM: then it leaves what the guest knows in a file
beside its configuration, from which a later one goes on with `--resume`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from errno import EINVAL, EIO
from pathlib import Path
from struct import error as StructError
from typing import Any

from pybox.model import Share
from pybox.share import keeping, native
from pybox.share import protocol as p
from pybox.share.operations import Session

log = logging.getLogger(__name__)
_BUFFER = 2 * p.MAX_REQUEST
_FIRST_PAUSE = 0.02  # seconds between attempts to connect
_LOST_PAUSE = 0.2  # seconds without a connection after one was lost, for the guest to see that it was
_LAST_PAUSE = 0.5
_SWEEP = 1.0  # seconds
_LAST_WORDS = 2.0  # seconds at the end for the guest to take replies
_START = 8  # bytes of a request that say whether it can be one


class Stream:
    """Whole messages out of a stream of bytes, from a secret on. Does no I/O but through `receive`, which fills a buffer."""

    def __init__(self, receive: Callable[[memoryview], int], secret: bytes) -> None:
        self._receive = receive
        self._secret = secret
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = 0
        self._end = 0
        self._skipped = 0
        self._has_begun = False

    def messages(self) -> Iterator[memoryview]:
        """Each valid until the next one; ends with the stream. Raises ProtocolError when it makes no sense."""
        while self._fill():
            if not self._has_begun:
                self._skip_to_secret()
            while self._has_begun and (message := self._next()) is not None:
                yield message

    def _fill(self) -> bool:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _BUFFER or self._start > p.MAX_REQUEST:
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        count = self._receive(self._buffer[self._end :])
        self._end += count
        return count > 0

    def _next(self) -> memoryview | None:
        """The next message, if it is there as a whole."""
        start = self._start
        if self._end - start < _START:
            return None
        length = int.from_bytes(self._buffer[start : start + 4], "little")
        opcode = int.from_bytes(self._buffer[start + 4 : start + 8], "little")
        if not p.is_plausible(length, opcode):
            raise p.ProtocolError(f"a request of {length} bytes with opcode {opcode}")
        if self._end - start < length:
            return None
        self._start += length
        return self._buffer[start : start + length]

    def _skip_to_secret(self) -> None:
        """Drop what comes before the secret, and the secret; what may be the beginning of it stays."""
        found = bytes(self._buffer[self._start : self._end]).find(self._secret)
        if found >= 0:
            self._start += found + len(self._secret)
            self._has_begun = True
            return
        kept = max(self._start, self._end - len(self._secret) + 1)
        self._skipped += kept - self._start
        self._start = kept
        if self._skipped > _BUFFER:
            raise p.ProtocolError("requests without the secret of this connection before them")


class Server:
    """Answers what comes through one connection after the other with one session, until a new kernel says INIT."""

    def __init__(self, shares: Sequence[Share], notes: Path) -> None:
        self._session = Session(shares, notes)
        self._sweep_at = 0.0
        self._is_busy = False  # in the middle of an operation
        self._shall_end = False

    def end(self, *_: object) -> None:
        """Let `serve` end by SystemExit as soon as what is under way is answered; for a signal's handler."""
        self._shall_end = True
        if not self._is_busy:
            raise SystemExit(0)

    def keep(self, path: Path) -> None:
        """Leave what the guest knows to the next server."""
        try:
            keeping.save(self._session.table, path)
        except OSError as problem:
            log.error("what the guest knows of the folders is not kept: %s", problem)

    def resume(self, path: Path) -> None:
        """Go on from what an earlier server left."""
        keeping.load(self._session.table, path)

    def serve(self, connection: socket.socket) -> None:
        """Until the other side closes. Raises OSError and ProtocolError."""
        connection.settimeout(_SWEEP)
        secret = secrets.token_bytes(p.SECRET_LENGTH)
        _send(connection, p.greeting(secret))
        stream = Stream(lambda buffer: self._receive(connection, buffer), secret)
        try:
            for message in stream.messages():
                self._is_busy = True
                self._reply(connection, message)
                self._is_busy = False
                if self._shall_end:
                    raise SystemExit(0)
                if time.monotonic() >= self._sweep_at:
                    self._sweep()
        except SystemExit:
            # What was done and not told would be done again.
            native.wait_until_taken(connection, _LAST_WORDS)
            raise
        finally:
            self._is_busy = False

    def _receive(self, connection: socket.socket, buffer: memoryview) -> int:
        while True:
            try:
                return connection.recv_into(buffer)
            except TimeoutError:
                self._sweep()

    def _sweep(self) -> None:
        self._session.table.close_idle()
        self._sweep_at = time.monotonic() + _SWEEP

    def _reply(self, connection: socket.socket, message: memoryview) -> None:
        request = p.parse_request(message)
        try:
            answer = self._session.answer(request)
        except OSError as problem:
            _send(connection, p.failure(request.unique, problem.errno or EIO))
        except (StructError, p.ProtocolError):
            log.exception("a request that cannot be read")
            _send(connection, p.failure(request.unique, EINVAL))
        except Exception:  # a bug costs one request, not everybody's folders
            log.exception("a request failed")
            _send(connection, p.failure(request.unique, EIO))
        else:
            if answer is not None:
                header = p.OUT_HEADER.pack(p.OUT_HEADER.size + len(answer), 0, request.unique)
                _send(connection, header, answer)


def _send(connection: socket.socket, *parts: bytes | memoryview) -> None:
    """Send one message; the connection's timeout is for receiving, so a slow guest is waited for."""
    total = sum(len(part) for part in parts)
    unix: Any = connection  # `sendmsg` is missing where `native.can_serve` says no
    try:
        sent = unix.sendmsg(parts)
    except TimeoutError:
        sent = 0
    if sent == total:
        return
    rest = memoryview(b"".join(parts))[sent:]
    while rest:
        with suppress(TimeoutError):
            rest = rest[connection.send(rest) :]


def connect(address: str) -> socket.socket:
    """Connect to a unix socket, or to HOST:PORT. Raises OSError."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit() and "/" not in host:
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(getattr(socket, "AF_UNIX"), socket.SOCK_STREAM)  # noqa: B009 - see `_send`
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return connection


def run(address: str, server: Server) -> None:
    """Serve for ever: connect, as often as it takes."""
    pause = _FIRST_PAUSE
    while True:
        try:
            with connect(address) as connection:
                pause = _LOST_PAUSE
                server.serve(connection)
        except p.ProtocolError as problem:
            log.error("the guest is out of step: %s; connecting again", problem)
        except OSError as problem:
            log.debug("no connection to %s: %s", address, problem)
        time.sleep(pause)
        pause = min(pause * 2, _LAST_PAUSE)


def read_config(path: Path) -> tuple[Share, ...]:
    """Read the shares from the hostagent's file. Raises OSError, ValueError, KeyError, TypeError."""
    content = json.loads(path.read_bytes())
    return tuple(Share(**share) for share in content["shares"])


def main(argv: Sequence[str]) -> int:
    """Run the server; returns only with an error."""
    parser = argparse.ArgumentParser(prog="pybox.share.server")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    if not native.can_serve():
        log.error("this system has no calls relative to a directory: folders cannot be shared safely")
        return 1
    os.umask(0)  # modes are the guest's, its own umask has been at work
    native.raise_limit()
    sys.setrecursionlimit(20_000)  # directories are opened from the top, as deep as they are
    server = Server(read_config(options.config), options.config.with_suffix(".owners"))
    nodes = options.config.with_suffix(".nodes")
    if options.resume:
        server.resume(nodes)
    signal.signal(signal.SIGTERM, server.end)
    try:
        run(options.socket, server)
    except SystemExit:
        server.keep(nodes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
