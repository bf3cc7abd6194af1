"""The engine's HTTP server on a real socket: keep-alive, streams both ways, hijacks, errors, clients that go."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pyboxd.errors import Conflict, NotFound, NotModified
from pyboxd.server.http import Application
from pyboxd.server.message import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Body,
    Channel,
    ClientGone,
    Empty,
    Hijack,
    Json,
    Request,
    Response,
    Stream,
)
from pyboxd.server.routes import Route

LIMIT = 10.0  # seconds until a hanging test fails


class Client:
    """Bytes to and from a server, with the few words of HTTP that the tests need."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    def get(self, path: str, method: str = "GET", extra: str = "") -> None:
        self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n")

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = raw.strip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in fields.items()}

    async def whole(self) -> tuple[int, dict[str, str], bytes]:
        status, fields = await self.head()
        return status, fields, await self.reader.readexactly(int(fields.get("content-length", "0")))

    async def chunk(self) -> bytes:
        size = int((await self.reader.readline()).strip(), 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data

    def leave(self) -> None:
        self.writer.close()


Test = Callable[[Client], Awaitable[None]]


def serve(tmp_path: Path, routes: list[Route], *tests: Test) -> None:
    """Run an application with `routes` on a socket and each of `tests` with its own client, one by one."""

    async def main() -> None:
        application = Application(routes)
        path = str(tmp_path / "api.sock")
        await application.serve_unix(path)
        try:
            for test in tests:
                client = Client(*await asyncio.open_unix_connection(path))
                async with asyncio.timeout(LIMIT):
                    await test(client)
                client.leave()
        finally:
            await application.close()

    asyncio.run(main())


def route(handler: Callable[[Request], Awaitable[Response]], pattern: str = "/x", method: str = "GET") -> Route:
    return Route(method, pattern, handler)


async def pong(request: Request) -> Response:
    return Body(b"OK", "text/plain; charset=utf-8", headers={"Builder-Version": "1"})


def test_every_response_says_who_it_is(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        client.get("/_ping")
        status, fields, body = await client.whole()
        assert (status, body) == (200, b"OK")
        assert fields["api-version"] == "1.51"
        assert fields["ostype"] == "linux"
        assert fields["docker-experimental"] == "false"
        assert fields["server"].endswith("(linux)")
        assert fields["builder-version"] == "1"
        assert fields["content-type"] == "text/plain; charset=utf-8"

    serve(tmp_path, [route(pong, "/_ping")], test)


def test_head_has_no_body_and_the_connection_lives_on(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        client.get("/_ping", "HEAD")
        status, fields = await client.head()
        assert status == 200 and fields["content-length"] == "2"
        client.get("/_ping")
        assert (await client.whole())[2] == b"OK"

    serve(tmp_path, [route(pong, "/_ping"), route(pong, "/_ping", "HEAD")], test)


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def echo(request: Request) -> Response:
        return Json({"q": request.query.text("q")})

    async def test(client: Client) -> None:
        for number in range(3):
            client.get(f"/x?q={number}")
        for number in range(3):
            assert json.loads((await client.whole())[2]) == {"q": str(number)}

    serve(tmp_path, [route(echo)], test)


def test_requests_behind_a_stream_wait_for_it(tmp_path: Path) -> None:
    async def lines(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one\n"
            await asyncio.sleep(0.05)
            yield b"two\n"

        return Stream(chunks())

    async def test(client: Client) -> None:
        client.get("/s")
        client.get("/_ping")
        await client.head()
        assert [await client.chunk() for _ in range(3)] == [b"one\n", b"two\n", b""]
        assert (await client.whole())[2] == b"OK"
        client.get("/s")
        await client.head()
        assert [await client.chunk() for _ in range(3)] == [b"one\n", b"two\n", b""]

    serve(tmp_path, [route(lines, "/s"), route(pong, "/_ping")], test)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotFound("No such container: x"), 404, "No such container: x"),
        (Conflict("in use"), 409, "in use"),
        (ZeroDivisionError("oops"), 500, "internal error"),
        (ConnectionRefusedError("registry"), 500, "internal error"),
    ],
)
def test_errors(tmp_path: Path, error: Exception, status: int, message: str, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        raise error

    async def test(client: Client) -> None:
        client.get("/x")
        got, fields, body = await client.whole()
        assert got == status
        assert fields["content-type"] == "application/json"
        words = json.loads(body)["message"]
        assert words.startswith(message)
        if status == 500:
            assert words.split()[2].rstrip(":") in caplog.text and "Traceback" in caplog.text
        client.get("/x")
        assert (await client.whole())[0] == status

    serve(tmp_path, [route(fail)], test)


def test_not_modified_has_no_body(tmp_path: Path) -> None:
    async def already(request: Request) -> Response:
        raise NotModified("")

    async def test(client: Client) -> None:
        client.get("/x", "POST", "Content-Length: 0\r\n")
        status, fields = await client.head()
        assert status == 304 and "content-type" not in fields
        client.get("/x", "POST", "Content-Length: 0\r\n")
        assert (await client.head())[0] == 304

    serve(tmp_path, [route(already, method="POST")], test)


@pytest.mark.parametrize(
    ("path", "method", "status", "words"),
    [
        ("/nothing", "GET", 404, "page not found"),
        ("/x", "PUT", 404, "page not found"),
        ("/v1.99/x", "GET", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v1.12/x", "GET", 400, "client version 1.12 is too old. Minimum supported API version is 1.24, "),
        ("/v1.99/nothing", "GET", 404, "page not found"),
    ],
)
def test_routes_and_versions(tmp_path: Path, path: str, method: str, status: int, words: str) -> None:
    async def test(client: Client) -> None:
        client.get(path, method, "Content-Length: 0\r\n" if method == "PUT" else "")
        got, _, body = await client.whole()
        assert got == status
        assert json.loads(body)["message"].startswith(words)

    serve(tmp_path, [route(pong)], test)


def test_a_request_carries_version_parameters_and_headers(tmp_path: Path) -> None:
    async def show(request: Request) -> Response:
        return Json([request.version, dict(request.parameters), request.headers["x-test"], request.path])

    async def test(client: Client) -> None:
        for prefix, version in (("/v1.44", [1, 44]), ("", [1, 51])):
            client.get(f"{prefix}/i/a%2Fb/c/json", extra="X-Test: yes\r\n")
            assert json.loads((await client.whole())[2]) == [
                version,
                {"name": "a/b/c"},
                "yes",
                "/i/a/b/c/json",
            ]

    serve(tmp_path, [route(show, "/i/{name:path}/json")], test)


async def count(request: Request) -> Response:
    total = 0
    async for part in request.body:
        total += len(part)
    return Json({"total": total})


def test_chunked_request_bodies(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        client.get("/x", "POST", "Transfer-Encoding: chunked\r\n")
        for size in (3, 70000, 1):
            client.send(b"%x\r\n%s\r\n" % (size, b"x" * size))
        client.send("0\r\n\r\n")
        assert json.loads((await client.whole())[2]) == {"total": 70004}

    serve(tmp_path, [route(count, method="POST")], test)


def test_expect_100_continue(tmp_path: Path) -> None:
    async def refuse(request: Request) -> Response:
        raise Conflict("no")

    async def invited(client: Client) -> None:
        client.get("/x", "POST", "Content-Length: 3\r\nExpect: 100-continue\r\n")
        assert (await client.head())[0] == 100
        client.send("abc")
        assert json.loads((await client.whole())[2]) == {"total": 3}

    async def refused(client: Client) -> None:
        client.get("/no", "POST", "Content-Length: 3\r\nExpect: 100-continue\r\n")
        assert (await client.whole())[0] == 409
        assert await client.reader.read() == b""

    serve(tmp_path, [route(count, method="POST"), route(refuse, "/no", "POST")], invited, refused)


def test_the_rest_of_a_refused_body_is_skipped(tmp_path: Path) -> None:
    async def refuse(request: Request) -> Response:
        raise Conflict("no")

    async def test(client: Client) -> None:
        client.get("/x", "POST", "Content-Length: 300000\r\n")
        client.send(b"x" * 300000)
        assert (await client.whole())[0] == 409
        client.get("/x", "POST", "Content-Length: 0\r\n")
        assert (await client.whole())[0] == 409

    serve(tmp_path, [route(refuse, method="POST")], test)


def test_body_and_response_run_at_the_same_time(tmp_path: Path) -> None:
    async def build(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            async for part in request.body:
                yield b"got " + part
            yield b"end"

        return Stream(chunks(), eager=False)

    async def test(client: Client) -> None:
        client.get("/x", "POST", "Transfer-Encoding: chunked\r\n")
        client.send("3\r\none\r\n")
        assert (await client.head())[0] == 200
        assert await client.chunk() == b"got one"
        client.send("3\r\ntwo\r\n")
        assert await client.chunk() == b"got two"
        client.send("0\r\n\r\n")
        assert await client.chunk() == b"end"
        assert await client.chunk() == b""
        client.get("/_ping")
        assert (await client.whole())[2] == b"OK"

    serve(tmp_path, [route(build, method="POST"), route(pong, "/_ping")], test)


def test_an_eager_stream_sends_its_header_first(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def wait(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            await go.wait()
            yield b"{}"

        return Stream(chunks())

    async def test(client: Client) -> None:
        client.get("/x")
        status, fields = await client.head()
        assert status == 200 and fields["transfer-encoding"] == "chunked"
        go.set()
        assert await client.chunk() == b"{}"

    serve(tmp_path, [route(wait)], test)


def test_a_lazy_stream_can_still_fail_with_a_status(tmp_path: Path) -> None:
    async def pull(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            if request.query.flag("late"):
                yield b"first"
                raise ZeroDivisionError
            raise NotFound("no such image")
            yield b""

        return Stream(chunks(), eager=False)

    async def early(client: Client) -> None:
        client.get("/x")
        status, fields, body = await client.whole()
        assert (status, fields["content-type"]) == (404, "application/json")
        assert json.loads(body) == {"message": "no such image"}

    async def late(client: Client) -> None:
        client.get("/x?late=1")
        assert (await client.head())[0] == 200
        assert await client.chunk() == b"first"
        assert await client.reader.read() == b""  # no last chunk: the client knows that it was cut

    serve(tmp_path, [route(pull)], early, late)


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
def test_a_stream_ends_when_its_client_leaves(tmp_path: Path, half: bool) -> None:
    ended = asyncio.Event()

    async def follow(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"line"
                await asyncio.Event().wait()
            finally:
                ended.set()

        return Stream(chunks())

    async def test(client: Client) -> None:
        client.get("/x")
        await client.head()
        await client.chunk()
        if half:
            client.writer.write_eof()
        else:
            client.leave()
        await ended.wait()

    serve(tmp_path, [route(follow)], test)


def test_a_body_that_breaks_off_ends_its_reader(tmp_path: Path) -> None:
    seen: list[Exception] = []
    ended = asyncio.Event()

    async def load(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for _ in request.body:
                    yield b"x"
            except ClientGone as error:
                seen.append(error)
                raise
            finally:
                ended.set()

        return Stream(chunks())

    async def test(client: Client) -> None:
        client.get("/x", "POST", "Content-Length: 100000\r\n")
        client.send("abc")
        await client.head()
        client.leave()
        await ended.wait()
        assert len(seen) == 1

    serve(tmp_path, [route(load, method="POST")], test)


def test_a_slow_client_slows_the_stream(tmp_path: Path) -> None:
    produced = 0

    async def flood(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            nonlocal produced
            for _ in range(1000):
                produced += 1
                yield b"x" * 65536

        return Stream(chunks())

    async def test(client: Client) -> None:
        client.get("/x")
        await client.head()
        await asyncio.sleep(0.2)
        assert produced < 100
        while await client.chunk():
            pass
        assert produced == 1000

    serve(tmp_path, [route(flood)], test)


UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


async def shout(channel: Channel) -> None:
    """Answers in capitals what it reads, and says bye at the end of it."""
    await channel.write(b"hello\n")
    while data := await channel.read():
        await channel.write(data.upper())
    await channel.write(b"bye\n")


def attach(run: Callable[[Channel], Awaitable[None]] = shout) -> Route:
    async def handler(request: Request) -> Response:
        await request.json()
        return Hijack(run, MULTIPLEXED_STREAM)

    return route(handler, method="POST")


def test_hijack_with_upgrade(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        body = '{"Tty": false}'
        client.get("/x", "POST", f"{UPGRADE}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n")
        client.send(body + "early ")
        first = await client.reader.readuntil(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        for line in (f"Content-Type: {MULTIPLEXED_STREAM}", "Connection: Upgrade", "Upgrade: tcp"):
            assert f"\r\n{line}\r\n".encode() in first
        assert b"Transfer-Encoding" not in first and b"Content-Length" not in first
        assert await client.reader.readexactly(12) == b"hello\nEARLY "
        client.send("more")
        assert await client.reader.readexactly(4) == b"MORE"
        client.writer.write_eof()
        assert await client.reader.read() == b"bye\n"

    serve(tmp_path, [attach()], test)


def test_hijack_without_upgrade(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        client.get("/x", "POST", "Content-Length: 0\r\n")
        status, fields = await client.head()
        assert (status, fields["content-type"]) == (200, RAW_STREAM)
        assert "transfer-encoding" not in fields and "upgrade" not in fields
        client.send("raw")
        client.writer.write_eof()
        assert await client.reader.read() == b"hello\nRAWbye\n"

    serve(tmp_path, [attach()], test)


def test_hijack_with_a_chunked_request_body(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        return Hijack(shout)

    async def test(client: Client) -> None:
        client.get("/x", "POST", "Transfer-Encoding: chunked\r\n")
        assert (await client.head())[0] == 200
        client.send("3\r\nabc\r\n")
        assert await client.reader.readexactly(9) == b"hello\nABC"
        client.send("2\r\nde\r\n0\r\n\r\n")
        assert await client.reader.read() == b"DEbye\n"

    serve(tmp_path, [route(handler, method="POST")], test)


def test_the_first_output_does_not_share_a_packet_with_the_header(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        client.get("/x", "POST", UPGRADE + "Content-Length: 0\r\n")
        assert (await client.reader.read(65536)).endswith(b"\r\n\r\n")
        assert await client.reader.read(65536) == b"hello\n"

    serve(tmp_path, [attach()], test)


def test_the_connection_closes_when_the_process_ends(tmp_path: Path) -> None:
    async def once(channel: Channel) -> None:
        await channel.write(b"done")

    async def test(client: Client) -> None:
        client.get("/x", "POST", UPGRADE + "Content-Length: 0\r\n")
        client.send("input that nobody reads")
        assert (await client.reader.read()).endswith(b"\r\n\r\ndone")

    serve(tmp_path, [attach(once)], test)


def test_output_after_a_broken_connection_ends_the_hijack(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def endless(channel: Channel) -> None:
        try:
            while True:
                await channel.write(b"x" * 1000)
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async def test(client: Client) -> None:
        client.get("/x", "POST", UPGRADE + "Content-Length: 0\r\n")
        await client.head()
        client.leave()
        await ended.wait()

    serve(tmp_path, [attach(endless)], test)


def test_a_bug_in_a_hijack_closes_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(channel: Channel) -> None:
        raise ZeroDivisionError

    async def test(client: Client) -> None:
        client.get("/x", "POST", UPGRADE + "Content-Length: 0\r\n")
        await client.head()
        assert await client.reader.read() == b""
        assert "ZeroDivisionError" in caplog.text

    serve(tmp_path, [attach(broken)], test)


@pytest.mark.parametrize("garbage", ["\x16\x03\x01 this is no HTTP\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"])
def test_garbage_is_refused(tmp_path: Path, garbage: str) -> None:
    async def test(client: Client) -> None:
        client.send(garbage)
        status, _, body = await client.whole()
        assert status == 400
        assert "malformed request" in json.loads(body)["message"]
        assert await client.reader.read() == b""

    serve(tmp_path, [route(pong)], test)


def test_a_long_head_is_taken_and_a_huge_one_refused(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        client.get("/x?q=" + "a" * 500_000)
        assert (await client.whole())[0] == 200

    async def huge(client: Client) -> None:
        client.get("/x?q=" + "a" * 2_000_000)
        assert (await client.whole())[0] == 431

    serve(tmp_path, [route(pong)], test, huge)


def test_http_1_0_gets_an_unchunked_stream(tmp_path: Path) -> None:
    async def lines(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        return Stream(chunks())

    async def test(client: Client) -> None:
        client.send("GET /x HTTP/1.0\r\n\r\n")
        _, fields = await client.head()
        assert "transfer-encoding" not in fields
        assert await client.reader.read() == b"one two"

    serve(tmp_path, [route(lines)], test)


def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    async def main() -> None:
        application = Application([route(pong)])
        await application.serve_unix(str(path))
        mode = os.stat(path).st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
        client = Client(*await asyncio.open_unix_connection(str(path)))
        client.get("/x")
        assert (await client.whole())[0] == 200
        await application.close()
        assert await client.reader.read() == b""
        client.leave()

    asyncio.run(main())


def test_an_empty_response(tmp_path: Path) -> None:
    async def empty(request: Request) -> Response:
        return Empty()

    async def test(client: Client) -> None:
        client.get("/x", "DELETE")
        status, fields = await client.head()
        assert status == 204 and "content-length" not in fields and "transfer-encoding" not in fields
        client.get("/x", "DELETE")
        assert (await client.head())[0] == 204

    serve(tmp_path, [route(empty, method="DELETE")], test)


def test_requests_may_be_cut_anywhere(tmp_path: Path) -> None:
    stream = (
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n"
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345"
    )

    def cut_at(place: int) -> Test:
        async def test(client: Client) -> None:
            client.send(stream[:place])
            await client.writer.drain()
            await asyncio.sleep(0)
            client.send(stream[place:])
            assert json.loads((await client.whole())[2]) == {"total": 7}
            assert json.loads((await client.whole())[2]) == {"total": 5}

        return test

    serve(tmp_path, [route(count, method="POST")], *map(cut_at, range(0, len(stream), 3)))
