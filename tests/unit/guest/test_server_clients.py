"""A real client, docker-py, against the server: what it needs of the wire, with handlers that do nothing else."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from pyboxd.errors import Conflict
from pyboxd.server.frames import STDERR, STDOUT, frame
from pyboxd.server.http import Application
from pyboxd.server.message import MULTIPLEXED_STREAM, Channel, Hijack, Json, Request, Response, Stream
from pyboxd.server.routes import Route

CONTAINER = {"Id": "c1", "Config": {"Tty": False}, "State": {}}


async def version(request: Request) -> Response:
    return Json({"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Version": "0"})


async def inspect(request: Request) -> Response:
    return Json(CONTAINER)


async def exec_create(request: Request) -> Response:
    assert (await request.json())["Cmd"] == ["echo"]
    return Json({"Id": "e1"}, 201)


async def exec_start(request: Request) -> Response:
    assert await request.json() == {"Tty": False, "Detach": False}

    async def run(channel: Channel) -> None:
        await channel.write(frame(STDOUT, b"hi\n"))
        await channel.write(frame(STDERR, b"oops\n"))

    return Hijack(run, MULTIPLEXED_STREAM)


async def attach(request: Request) -> Response:
    async def run(channel: Channel) -> None:
        while data := await channel.read():
            await channel.write(frame(STDOUT, data.upper()))
        await channel.write(frame(STDOUT, b"bye"))

    return Hijack(run, MULTIPLEXED_STREAM)


async def wait(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.05)
        yield b'{"StatusCode":3}\n'

    return Stream(chunks())


async def logs(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield frame(STDOUT, b"one\n")
        await asyncio.sleep(0.05)
        yield frame(STDOUT, b"two\n")

    return Stream(chunks(), MULTIPLEXED_STREAM)


async def events(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for action in ("create", "start"):
            yield json.dumps({"Action": action}).encode() + b"\n"
        await asyncio.Event().wait()

    return Stream(chunks())


async def build(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        size = 0
        async for part in request.body:
            size += len(part)
        yield json.dumps({"stream": f"{size > 1000} {request.query.text('t')}\n"}).encode() + b"\r\n"

    return Stream(chunks(), eager=False)


async def remove(request: Request) -> Response:
    raise Conflict("removal of container c1 is already in progress")


ROUTES = [
    Route("GET", "/version", version),
    Route("GET", "/containers/{id}/json", inspect),
    Route("POST", "/containers/{id}/exec", exec_create),
    Route("POST", "/exec/{id}/start", exec_start),
    Route("POST", "/containers/{id}/attach", attach),
    Route("POST", "/containers/{id}/wait", wait),
    Route("GET", "/containers/{id}/logs", logs),
    Route("GET", "/events", events),
    Route("POST", "/build", build),
    Route("DELETE", "/containers/{id}", remove),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[docker.APIClient]:
    path = tmp_path_factory.mktemp("api") / "docker.sock"
    ready = threading.Event()
    stops: list[Callable[[], object]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        application = Application(ROUTES)
        await application.serve_unix(str(path))
        ready.set()
        await stop.wait()
        await application.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10)
    found = docker.APIClient(base_url=f"unix://{path}", version="auto", timeout=10)
    yield found
    found.close()
    stops[0]()
    thread.join(10)


def test_version_is_negotiated(client: docker.APIClient) -> None:
    assert client.api_version == "1.51"


def test_exec_output_is_complete(client: docker.APIClient) -> None:
    for _ in range(5):  # what comes too early is lost only sometimes
        created = client.exec_create("c1", ["echo"])
        assert client.exec_start(created["Id"], demux=True) == (b"hi\n", b"oops\n")


def test_attach_with_stdin(client: docker.APIClient) -> None:
    opened: Any = client.attach_socket("c1", params={"stdin": 1, "stdout": 1, "stream": 1})
    opened._sock.sendall(b"text")
    assert opened.read(12) == frame(STDOUT, b"TEXT")
    opened._sock.shutdown(1)
    assert opened.read(11) == frame(STDOUT, b"bye")
    assert opened.read(1) == b""
    opened.close()


def test_streams(client: docker.APIClient) -> None:
    assert client.wait("c1") == {"StatusCode": 3}
    assert list(client.logs("c1", stream=True)) == [b"one\n", b"two\n"]
    found: Any = client.events(decode=True)
    assert [next(found)["Action"] for _ in range(2)] == ["create", "start"]
    found.close()


def test_build_sends_its_context_while_it_listens(client: docker.APIClient, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert list(client.build(str(tmp_path), tag="x:1", decode=True)) == [{"stream": "True x:1\n"}]


def test_errors_have_their_words(client: docker.APIClient) -> None:
    with pytest.raises(docker.errors.APIError, match="removal of container c1 is already in progress") as caught:
        client.remove_container("c1")
    assert caught.value.status_code == 409
    with pytest.raises(docker.errors.NotFound, match="page not found"):
        client.volumes()
