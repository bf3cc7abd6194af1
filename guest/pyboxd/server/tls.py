"""Mutual TLS 1.3 for the engine's port, with half-close: what asyncio's own TLS transport cannot do.

A client that ends its stdin sends close_notify and goes on reading; in TLS 1.3 the directions end one by one.
`TlsProtocol` sits on a plain asyncio transport and shows the protocol above it (`StreamReaderProtocol`) a
transport on which that works: a received close_notify is `eof_received`, `write_eof` sends one. A TCP
connection that ends without close_notify was cut, and is reported as a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys

RECORD = 16 * 1024  # bytes of plain text that one TLS record can have
HANDSHAKE_TIMEOUT = 30.0  # seconds; emulated guests are slow, and nobody waits for a silent client


def server_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.3 only, clients must have a certificate of `ca` (PEM texts).

    The order of TLS 1.3 ciphers is not Python's to set; the engine is started with an OpenSSL configuration
    that puts ChaCha20 first (`boot/supervise.py`), and the server's order is the one that counts here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # connections are kept, not resumed
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_verify_locations(cadata=ca)
    descriptor = os.memfd_create("tls")  # the ssl module reads keys from files only; this one has no name
    try:
        os.write(descriptor, f"{certificate.strip()}\n{key.strip()}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def warm_up() -> None:
    """Do at leisure what the first connection would wait for: OpenSSL loads its algorithms when they are first used.

    Called before the machine's state is saved or its first client comes. There is no certificate yet, so the two ends
    that meet here, in memory, know each other by a shared key. Nothing of it is kept.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.version_info >= (3, 13):
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.minimum_version = server.minimum_version = ssl.TLSVersion.TLSv1_3
        key = os.urandom(32)
        server.set_psk_server_callback(lambda _identity: key)
        client.set_psk_client_callback(lambda _hint: ("warm-up", key))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True))
    for _ in range(2):
        for end in ends:
            with contextlib.suppress(ssl.SSLError):
                end.do_handshake()


class TlsTransport(asyncio.Transport):
    """What the protocol above writes to. Flow control is that of the plain transport below."""

    def __init__(self, owner: TlsProtocol, below: asyncio.Transport) -> None:
        super().__init__()
        self._owner = owner
        self._below = below
        self._ended = False
        self._closing = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._below.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._owner.above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._owner.above = protocol

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            raise RuntimeError("write after write_eof")
        if data and not self._closing:
            self._owner.encrypt(data)

    def writelines(self, list_of_data: object) -> None:
        self.write(b"".join(list_of_data))  # type: ignore[arg-type]

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._ended and not self._closing:
            self._ended = True
            self._owner.send_close_notify()

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()


class TlsProtocol(asyncio.Protocol):
    """TLS between a plain transport and the protocol `above`, which is connected after the handshake."""

    def __init__(self, context: ssl.SSLContext, above: asyncio.Protocol) -> None:
        self.above = above
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._below: asyncio.Transport | None = None
        self._transport: TlsTransport | None = None  # set when the handshake is done
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False  # the peer's close_notify came

    # from below

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._below = transport
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._transport is None and not self._shake_hands():
            return
        if not self._ended:
            self._decrypt()

    def eof_received(self) -> bool:
        """Keep the transport open if the peer said goodbye first: our half still stands."""
        if not self._ended and self._below is not None:
            self._below.abort()
        return self._ended

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is None:
            return
        if exc is None and not self._ended and not self._transport.is_closing():
            exc = ConnectionResetError("the connection was cut")
        self.above.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self.above.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self.above.resume_writing()

    # from above

    def encrypt(self, data: bytes | bytearray | memoryview) -> None:
        self._tls.write(data)
        self._flush()

    def send_close_notify(self) -> None:
        """End our direction. `unwrap` would also wait for the peer's end; that it has to is no error here."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    # inside

    def _shake_hands(self) -> bool:
        assert self._below is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:  # a stranger, or no TLS at all: send the alert, forget it
            self._flush()
            self._below.close()
            return False
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._transport = TlsTransport(self, self._below)
        self.above.connection_made(self._transport)
        return True

    def _decrypt(self) -> None:
        """Hand all that can be decrypted to the protocol above, and its end."""
        assert self._transport is not None
        parts: list[bytes] = []
        try:
            while part := self._tls.read(RECORD):
                parts.append(part)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError:
            self._flush()
            self._transport.abort()
            return
        self._flush()
        if parts:
            self.above.data_received(b"".join(parts))
        if self._ended:
            self.above.eof_received()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._below is not None and not self._below.is_closing():
            self._below.write(data)
