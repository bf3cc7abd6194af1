"""The engine's TLS listener: who may come in, and ends that close one by one."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyboxd.server.http import Application
from pyboxd.server.message import Body, Channel, Hijack, Request, Response, Stream
from pyboxd.server.routes import Route
from pyboxd.server.tls import warm_up


@dataclass(frozen=True)
class Identity:
    """A key and its certificate, PEM."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


def identity(name: str, issuer: Identity | None = None) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    return Identity(key, certificate)


CA = identity("ca")
SERVER = identity("engine", CA)
CLIENT = identity("hostagent", CA)
STRANGER = identity("hostagent", identity("other ca"))


def client_context(tmp_path: Path, who: Identity | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=CA.pem)
    if who is not None:
        pem = tmp_path / "client.pem"
        pem.write_text(who.pem + who.key_pem)
        context.load_cert_chain(pem)
    return context


class Peer:
    """A blocking TLS client on memory BIOs: it can say close_notify and go on reading."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="engine")
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.outgoing.read())

    def exchange(self) -> None:
        self.flush()
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("TCP ended")
        self.incoming.write(data)

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def end(self) -> None:
        """close_notify, while the other direction stays open."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def receive(self) -> bytes:
        """Some bytes; b"" at the server's close_notify."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.exchange()
            except ssl.SSLZeroReturnError:
                return b""

    def until(self, end: bytes) -> bytes:
        got = b""
        while not got.endswith(end):
            data = self.receive()
            assert data, got
            got += data
        return got


async def ping(request: Request) -> Response:
    return Body(b"OK", "text/plain")


async def shout(channel: Channel) -> None:
    while data := await channel.read():
        await channel.write(data.upper())
    await channel.write(b"bye\n")


async def attach(request: Request) -> Response:
    return Hijack(shout)


async def flood(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 65536

    return Stream(chunks())


async def count(request: Request) -> Response:
    total = 0
    async for part in request.body:
        total += len(part)
    return Body(b"%d" % total, "text/plain")


class Server:
    """The application in a thread of its own, so that the clients here can be plain and blocking."""

    def __init__(self) -> None:
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        routes = [Route("GET", "/ping", ping), Route("POST", "/attach", attach)]
        routes += [Route("GET", "/flood", flood), Route("POST", "/count", count)]
        application = Application(routes)
        self.port = await application.serve_tls(0, CA.pem, SERVER.pem, SERVER.key_pem, "127.0.0.1")
        self._ready.set()
        await self._stop.wait()
        await application.close()


def test_requests_and_keep_alive(tmp_path: Path) -> None:
    with Server() as server:
        peer = Peer(server.port, client_context(tmp_path, CLIENT))
        assert peer.tls.version() == "TLSv1.3"
        for _ in range(3):
            peer.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert peer.until(b"OK").startswith(b"HTTP/1.1 200")
        peer.end()
        assert peer.receive() == b""
        peer.socket.close()


def test_half_close(tmp_path: Path) -> None:
    with Server() as server:
        peer = Peer(server.port, client_context(tmp_path, CLIENT))
        peer.send(b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        peer.until(b"\r\n\r\n")
        peer.send(b"stdin")
        assert peer.until(b"STDIN") == b"STDIN"
        peer.end()
        assert peer.until(b"bye\n") == b"bye\n"
        assert peer.receive() == b""
        peer.socket.close()


@pytest.mark.parametrize("who", [None, STRANGER], ids=["none", "stranger"])
def test_clients_without_our_certificate_get_nothing(tmp_path: Path, who: Identity | None) -> None:
    with Server() as server:
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            peer = Peer(server.port, client_context(tmp_path, who))
            peer.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            peer.receive()
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        plain.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(4096)
        plain.close()
        peer = Peer(server.port, client_context(tmp_path, CLIENT))
        peer.socket.close()


def test_older_protocols_are_refused(tmp_path: Path) -> None:
    context = client_context(tmp_path, CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Server() as server, pytest.raises((ssl.SSLError, EOFError)):
        Peer(server.port, context)


def test_a_slow_reader_and_a_large_body(tmp_path: Path) -> None:
    with Server() as server:
        peer = Peer(server.port, client_context(tmp_path, CLIENT))
        peer.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        got = peer.until(b"\r\n0\r\n\r\n")
        assert got.count(b"x" * 65536) == 200
        size = 5_000_000
        peer.send(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(50):
            peer.send(b"y" * (size // 50))
        assert peer.until(b"%d" % size).startswith(b"HTTP/1.1 200")
        peer.socket.close()


def test_a_listener_can_be_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        application = Application([Route("GET", "/ping", ping)])
        port = await application.serve_tls(0, CA.pem, SERVER.pem, SERVER.key_pem, "127.0.0.1")
        other = identity("engine", CA)
        assert await application.serve_tls(port, CA.pem, other.pem, other.key_pem, "127.0.0.1") == port

        def visit() -> bytes | None:
            peer = Peer(port, client_context(tmp_path, CLIENT))
            peer.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            peer.until(b"OK")
            peer.socket.close()
            return peer.tls.getpeercert(binary_form=True)

        seen = await asyncio.to_thread(visit)
        assert seen == other.certificate.public_bytes(serialization.Encoding.DER)
        await application.close()

    asyncio.run(main())


def test_warming_up_leaves_the_real_listener_as_strict_as_before(tmp_path: Path) -> None:
    warm_up()
    with Server() as server, pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
        peer = Peer(server.port, client_context(tmp_path, None))
        peer.receive()
