"""TLS 1.3 to the engine over a plain TCP stream, with what asyncio's own lacks: the two directions end one by one.

A client of Docker's API that ends its input goes on reading; `docker run -i` depends on it. In TLS that end is a
close_notify, and the connection below stays open until both sides have sent theirs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path

from pybox import hostos

CHUNK = 256 * 1024
_HANDSHAKE_TIMEOUT = 20.0  # seconds; an emulated guest under load takes one


def client_context(ca: Path, client: Path) -> ssl.SSLContext:
    """Return what authenticates both sides: the engine by `ca`, this side by the file `client`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=ca)
    context.load_cert_chain(client)
    return context


class TlsStream:
    """One connection to the engine. One task may read while another writes."""

    def __init__(
        self, context: ssl.SSLContext, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._decrypted: list[bytes] = []
        self._ended = False  # the engine's close_notify came
        self._write_ended = False

    @classmethod
    async def connect(cls, context: ssl.SSLContext, name: str, port: int) -> TlsStream:
        """Connect to a port of 127.0.0.1. Raises OSError (ssl.SSLError is one) when the engine is not there."""
        async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)
            stream = cls(context, name, reader, writer)
            try:
                await stream._shake_hands()
            except BaseException:
                stream.abort()
                raise
            return stream

    async def read(self) -> bytes:
        """Return what the engine sent, b"" after its end. Raises ConnectionError when the connection was cut."""
        while not self._decrypted and not self._ended:
            self._decrypt()
            if not self._decrypted and not self._ended:
                await self._receive()
        if not self._decrypted:
            return b""
        data, self._decrypted = b"".join(self._decrypted), []
        return data

    async def write(self, data: bytes) -> None:
        """Send; returns when there is room for more."""
        self._tls.write(data)
        self._flush()
        await self._writer.drain()

    def write_eof(self) -> None:
        """End this direction; reading goes on."""
        if self._write_ended:
            return
        self._write_ended = True
        # `unwrap` also looks for the other side's end, and would stumble over data that comes before it.
        self._decrypt()
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    async def wait_closed(self) -> None:
        """Wait until the engine has closed the connection, after its end of data."""
        while await self._reader.read(CHUNK):
            pass

    def is_cut(self) -> bool:
        """Say whether the engine has closed a connection that nobody used yet."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """End both directions."""
        if not self._writer.is_closing():
            self.write_eof()
            self._writer.close()

    def abort(self) -> None:
        """Cut the connection: the engine sees that this client is gone, even one that has ended its input."""
        if not self._writer.is_closing():
            connection = self._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hostos.current().reset_on_close)
        self._writer.transport.abort()

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                await self._receive()
            else:
                self._flush()
                return

    async def _receive(self) -> None:
        data = await self._reader.read(CHUNK)
        if not data:
            raise ConnectionResetError("the engine cut the connection")
        self._incoming.write(data)

    def _decrypt(self) -> None:
        """Take all that is there out of OpenSSL, record by record."""
        while not self._ended:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._decrypted.append(data)
            else:
                self._ended = True

    def _flush(self) -> None:
        if (data := self._outgoing.read()) and not self._writer.is_closing():
            self._writer.write(data)
