"""The engine's HTTP side under hostile and unlucky bytes, on a real socket: every request is answered once or refused."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import random
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyboxd.server.frames import frame
from pyboxd.server.http import Application
from pyboxd.server.message import Channel, Hijack, Json, Request, Response, Stream
from pyboxd.server.routes import Route

LIMIT = 20.0  # seconds until a hanging test fails
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Server:
    """Handlers that say what they were asked, behind a socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: list[tuple[str, str, bytes]] = []
        self.proceed, self.released = threading.Event(), threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._ready.wait(LIMIT)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        routes = [Route(method, "/echo", self._echo) for method in ("GET", "POST", "PUT")]
        routes += [Route("POST", "/lazy", self._lazy), Route("GET", "/stream", self._stream)]
        routes += [Route("POST", "/hijack", self._hijack), Route("POST", "/late", self._late)]
        application = Application(routes)
        await application.serve_unix(self.path)
        self._ready.set()
        await self._stop.wait()
        await application.close()

    async def _echo(self, request: Request) -> Response:
        body = await request.read()
        self.seen.append((request.method, request.query.text("n"), body))
        return Json({"method": request.method, "n": request.query.text("n"), "size": len(body)})

    async def _lazy(self, request: Request) -> Response:
        return Json({"read": False})

    async def _stream(self, request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"%d\n" % number

        return Stream(chunks())

    async def _hijack(self, request: Request) -> Response:
        async def run(channel: Channel) -> None:
            while data := await channel.read():
                await channel.write(frame(1, data))

        return Hijack(run)

    async def _late(self, request: Request) -> Response:
        """Takes so long that its client has left, and has something to give back."""
        await asyncio.to_thread(self.proceed.wait, LIMIT)

        async def run(channel: Channel) -> None:
            await channel.write(b"x")

        async def release() -> None:
            self.released.set()

        return Hijack(run, release=release)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(LIMIT)
        connection.connect(self.path)
        return connection

    def talk(self, *pieces: bytes) -> bytes:
        """Send the pieces, end, and read everything that comes."""
        with self.connect() as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError, OSError):
                pass  # it was refused before its end
            found = b""
            try:
                while data := connection.recv(65536):
                    found += data
            except ConnectionResetError:
                pass  # so was this
            return found

    def check_alive(self) -> None:
        found = replies(self.talk(b"GET /echo?n=alive HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert [(status, body["n"]) for status, body in found] == [(200, "alive")]


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(str(tmp_path_factory.mktemp("fuzz") / "api.sock"))
    yield made
    made.close()


@pytest.fixture
def server(_server: Server, caplog: pytest.LogCaptureFixture) -> Iterator[Server]:
    """The server; afterwards it still answers, and has not met a bug of its own."""
    _server.seen.clear()
    with caplog.at_level(logging.WARNING):
        yield _server
        _server.check_alive()
    assert caplog.text == ""


class _Bytes:
    """What http.client reads a response from: the rest of bytes that hold several."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def makefile(self, *_: Any, **__: Any) -> Any:
        return _Unclosed(self.file)


class _Unclosed(io.BufferedIOBase):
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._file.read(size)

    def read1(self, size: int = -1, /) -> bytes:
        return self._file.read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._file.readline(size)

    def close(self) -> None:
        pass


def replies(data: bytes) -> list[tuple[int, Any]]:
    """Status and JSON of every response in `data`; anything else in it fails."""
    source, found = _Bytes(data), []
    while source.file.tell() < len(data):
        response = http.client.HTTPResponse(source)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
        assert response.headers["Api-Version"] == "1.51"
        if response.status == 100:
            continue
        if response.headers["Content-Type"] == "application/json" and "Content-Length" in response.headers:
            assert len(body) == int(response.headers["Content-Length"])
            found.append((response.status, json.loads(body)))
        else:
            found.append((response.status, body))
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


# -- valid requests in any pieces ------------------------------------------------------------------


def request(number: int, body: bytes, chunks: list[int] | None) -> bytes:
    """One request; with `chunks` its body is cut there and sent chunked."""
    if chunks is None:
        head = f"POST /echo?n={number} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body
    parts = [part for part in cut(body, chunks) if part]
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return f"POST /echo?n={number} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + encoded


CUTS = st.lists(st.integers(0, 1 << 20), max_size=6)
REQUESTS = st.lists(st.tuples(st.binary(max_size=300), st.none() | CUTS), min_size=1, max_size=4)


@relaxed
@given(REQUESTS, CUTS)
def test_requests_may_be_cut_and_joined_anywhere(
    server: Server, wanted: list[tuple[bytes, list[int] | None]], cuts: list[int]
) -> None:
    server.seen.clear()
    stream = b"".join(request(number, body, chunks) for number, (body, chunks) in enumerate(wanted))
    found = replies(server.talk(*cut(stream, cuts)))
    assert found == [(200, {"method": "POST", "n": str(n), "size": len(body)}) for n, (body, _) in enumerate(wanted)]
    assert server.seen == [("POST", str(n), body) for n, (body, _) in enumerate(wanted)]


@relaxed
@given(REQUESTS, st.integers(0, 1 << 20))
def test_a_cut_off_stream_is_answered_up_to_there(
    server: Server, wanted: list[tuple[bytes, list[int] | None]], place: int
) -> None:
    stream = b"".join(request(number, body, chunks) for number, (body, chunks) in enumerate(wanted))
    found = replies(server.talk(stream[: place % len(stream)]))
    whole = [body["n"] for status, body in found if status == 200]
    assert whole == [str(number) for number in range(len(whole))]
    assert [status for status, _ in found[len(whole) :]] in ([], [400])


@relaxed
@given(st.binary(max_size=2000), CUTS)
def test_what_a_hijacked_connection_says_may_come_in_any_pieces(server: Server, data: bytes, cuts: list[int]) -> None:
    head = b"POST /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    found = server.talk(*cut(head + data, cuts))
    first, _, rest = found.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    said = b""
    while rest:
        assert rest[:4] == b"\1\0\0\0"
        size = int.from_bytes(rest[4:8], "big")
        said, rest = said + rest[8 : 8 + size], rest[8 + size :]
    assert said == data


# -- what is no request ----------------------------------------------------------------------------

GARBAGE = st.one_of(
    st.binary(max_size=400),
    st.lists(
        st.sampled_from(
            [
                b"GET ", b"POST ", b"/echo", b"/../x", b"*", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n", b"\n", b"\r",
                b"Host: x\r\n", b"Host:\r\n", b"Host: x\r\nHost: y\r\n", b"Content-Length: ", b"5", b"-1", b"0x5", b"5, 5",
                b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Expect: 100-continue\r\n",
                b"Connection: close\r\n", b"Upgrade: websocket\r\n", b" folded\r\n", b"\0", b"\xff", b": ",
                b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffffffff\r\n", b"-1\r\n", b"5;x=y\r\nhello\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ]
        ),
        max_size=20,
    ).map(b"".join),
)  # fmt: skip


@relaxed
@given(GARBAGE, CUTS)
def test_garbage_is_refused_or_understood(server: Server, garbage: bytes, cuts: list[int]) -> None:
    for status, body in replies(server.talk(*cut(garbage, cuts))):
        assert status in (200, 400, 404, 405, 501, 505)
        if status != 200:
            assert list(body) == ["message"]


@relaxed
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_damaged_request_is_answered_or_refused(server: Server, seed: int, count: int) -> None:
    chance = random.Random(seed)
    stream = bytearray(request(0, b"hello", None) + request(1, b"some more", [4]) + request(2, b"", []))
    for _ in range(count):
        stream[chance.randrange(len(stream))] = chance.randrange(256)
    for status, _ in replies(server.talk(bytes(stream))):
        assert 200 <= status < 500 or status == 501


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: " + b"9" * 30 + b"\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding\r\n: chunked\r\n",
        b"X: y\r\n folded: z\r\n\tContent-Length: 5\r\n\0: x\r\n",
    ],
)
def test_a_second_request_is_not_smuggled_in(server: Server, head: bytes) -> None:
    hidden = b"GET /echo?n=hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    stream = b"POST /echo?n=open HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\n" + hidden
    found = replies(server.talk(stream))
    assert [status // 100 for status, _ in found] in ([4], [5]) and server.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"xyz\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloEVIL\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"f" * 40 + b"\r\n",
        b"5\r\nhello",
        b"0\r\nTrailer\r\n\r\n",
    ],
)
def test_bad_chunks(server: Server, body: bytes) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert [status for status, _ in replies(server.talk(head + body))] == [400]
    assert server.seen == []


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET /" + b"x" * (2 << 20), 431),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"y" * (2 << 20), 431),
        (b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"A: y\r\n" * 300_000, 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * (2 << 20), 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 18000000\r\n\r\n" + bytes(18_000_000), 400),
    ],
    ids=["target", "field", "fields", "chunk", "body"],
)
def test_what_is_too_large_is_refused_before_it_is_kept(server: Server, stream: bytes, status: int) -> None:
    with server.connect() as connection:
        connection.sendall(stream[: len(stream) // 2])
        threading.Thread(target=_send_quietly, args=(connection, stream[len(stream) // 2 :])).start()
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == status and list(json.loads(response.read())) == ["message"]


def _send_quietly(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # it was refused
        connection.sendall(data)


@pytest.mark.parametrize(
    "path", ["/v" + "9" * 5000 + "/echo", "/v1." + "4" * 5000 + "/echo", "/v...../echo", "/v/echo", "//", "/%00", "/%", "?"]
)
def test_odd_paths(server: Server, path: str) -> None:
    found = replies(server.talk(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
    assert [status for status, _ in found] in ([400], [404])


@relaxed
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_query_is_read(server: Server, name: str, value: str) -> None:
    text = f"{name}={value}&n=1&{value}".encode("utf-8", "surrogatepass")
    raw = bytes(byte for byte in text if byte > 32 and byte != 127)
    found = replies(server.talk(b"GET /echo?" + raw + b" HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert [status for status, _ in found] in ([200], [400])


# -- clients with habits ---------------------------------------------------------------------------


def test_many_requests_and_nobody_who_reads(server: Server) -> None:
    """What was answered and not read is bounded: the server stops reading too."""
    with server.connect() as connection:
        connection.setblocking(False)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += connection.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                threading.Event().wait(0.001)
        except BlockingIOError:
            pass
        server.check_alive()
        assert sent < 64 << 20


def test_clients_that_say_half_a_request_and_stay(server: Server) -> None:
    halves = [server.connect() for _ in range(100)]
    try:
        for number, connection in enumerate(halves):
            connection.sendall(request(0, b"hello", None)[: number + 1])
        server.check_alive()
    finally:
        for connection in halves:
            connection.close()


def test_a_body_that_nobody_wants_does_not_hide_a_request(server: Server) -> None:
    first = b"POST /lazy HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
    found = replies(server.talk(first + b"GET /echo?n=2 HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert [status for status, _ in found] == [200, 200] and server.seen == [("GET", "2", b"")]


def test_what_a_hijack_holds_is_given_back_though_its_client_left_before(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /late HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    server.proceed.set()
    assert server.released.wait(LIMIT)
