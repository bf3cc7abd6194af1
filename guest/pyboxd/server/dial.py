"""The way of the API's clients into the guest: connections that the engine makes to the host, and the host uses.

The host's process listens on its loopback, which the guest reaches through its gateway. A few connections are made
and authenticated before anybody wants one (CONTROL.md has the words); the first byte that comes over one belongs to a
client, from then on it is that client's, and another connection is made in its place.

Nothing is encrypted: the bytes never leave the host's loopback, where nobody but its administrator can read them.
Both sides prove that they know the key of `configure`, which travels over the machine's private control channel.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
from collections.abc import Callable
from weakref import WeakSet

from pyboxd.boot.configuration import ApiWay

NONCE = 16  # bytes
PROOF = 32
SPARE = 3  # connections that wait for a client
MOST = 64  # of them, when many clients come at once
HANDSHAKE_TIMEOUT = 20.0  # seconds; an emulated guest under load is slow
FIRST_PAUSE = 0.1  # seconds after a connection that failed; doubled up to LAST_PAUSE
LAST_PAUSE = 5.0
# Seconds of silence after which the kernel asks whether the other side is there. QEMU's network forgets a connection
# with one ended direction after ten minutes without a packet, and a client may well be silent for longer.
KEEPALIVE = 60

log = logging.getLogger(__name__)
MakeProtocol = Callable[[], asyncio.Protocol]


def proof(key: bytes, who: bytes, guest_nonce: bytes, host_nonce: bytes) -> bytes:
    """What shows that `who` (b"guest" or b"host") knows the key, in this conversation alone."""
    return hmac.digest(key, who + guest_nonce + host_nonce, "sha256")


class Dialer:
    """Keeps connections ready. Clients that come before `serve` wait for it. For the event loop's thread."""

    def __init__(self) -> None:
        self.above: MakeProtocol | None = None
        self._way: ApiWay | None = None
        self._waiting: set[Line] = set()  # connections that are being made, or wait for a client or for `serve`
        self._used: WeakSet[asyncio.Transport] = WeakSet()  # those that clients have
        self._pause = FIRST_PAUSE
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, way: ApiWay) -> None:
        """Connect to this host from now on. Connections to another are given up: it is gone, and so are its clients."""
        if way == self._way:
            return
        self.close()
        for transport in tuple(self._used):
            transport.abort()
        self._way = way
        self._pause = FIRST_PAUSE
        self.want(self._spare())

    def serve(self, above: MakeProtocol) -> None:
        """Serve clients from now on: `above` makes the protocol of one."""
        self.above = above
        for line in tuple(self._waiting):
            line.serve()
        self.want(self._spare())

    def close(self) -> None:
        """Make no more connections, and give up those that nobody uses."""
        self._way = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for line in tuple(self._waiting):
            line.give_up()
        self._waiting.clear()

    def want(self, count: int) -> None:
        """Have so many connections ready or on their way."""
        if self._way is not None:
            for _ in range(min(count, MOST) - len(self._waiting)):
                self._dial(self._way)

    def _spare(self) -> int:
        """How many connections there are when nobody asks for more. The first shall not wait for others."""
        return 1 if self.above is None else SPARE

    def _dial(self, way: ApiWay) -> None:
        line = Line(self, way.key)
        self._waiting.add(line)
        task = asyncio.get_running_loop().create_task(self._connect(line, way))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, line: Line, way: ApiWay) -> None:
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                connection.setsockopt(socket.IPPROTO_TCP, option, KEEPALIVE)
            await loop.sock_connect(connection, (way.address, way.port))
            await loop.create_connection(lambda: line, sock=connection)
        except OSError as error:
            connection.close()
            log.info("the host's side of the API: %s", error)
            self.lost(line)

    def lost(self, line: Line) -> None:
        """A connection ended before a client used it: another one is tried after a pause."""
        self._waiting.discard(line)
        if self._way is not None and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again)
            self._pause = min(self._pause * 2, LAST_PAUSE)

    def _try_again(self) -> None:
        self._retry = None
        self.want(self._spare())

    def proved(self) -> None:
        """A connection is ready: whatever was wrong is over."""
        self._pause = FIRST_PAUSE

    def used(self, line: Line, transport: asyncio.Transport) -> None:
        """A client has come."""
        self._waiting.discard(line)
        self._used.add(transport)
        self.want(self._spare())


class Line(asyncio.Protocol):
    """One connection until its client comes: then the protocol above takes its place."""

    def __init__(self, owner: Dialer, key: bytes) -> None:
        self._owner = owner
        self._key = key
        self._nonce = os.urandom(NONCE)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = b""
        self._proved = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, transport.abort)
        transport.write(self._nonce)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._proved and not self._shake_hands():
            return
        self.serve()

    def _shake_hands(self) -> bool:
        """Check the host's proof and give ours; False when there is none yet, or a wrong one."""
        assert self._transport is not None
        if len(self._received) < NONCE + PROOF:
            return False
        nonce, found = self._received[:NONCE], self._received[NONCE : NONCE + PROOF]
        if not hmac.compare_digest(found, proof(self._key, b"host", self._nonce, nonce)):
            log.warning("somebody who is not the host answers for it")
            self._transport.abort()
            return False
        self._received = self._received[NONCE + PROOF :]
        self._proved = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.write(proof(self._key, b"guest", self._nonce, nonce))
        self._owner.proved()
        return True

    def serve(self) -> None:
        """Give the client that has come, if one has, to its protocol."""
        if not self._proved or not self._received:
            return
        assert self._transport is not None
        if self._owner.above is None:
            self._transport.pause_reading()
            return
        self._transport.resume_reading()
        above = self._owner.above()
        self._owner.used(self, self._transport)
        self._transport.set_protocol(above)
        above.connection_made(self._transport)
        above.data_received(self._received)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._owner.lost(self)

    def give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()
