"""The API of a real machine under what its description allows and what it does not, a crowd, and clients with habits."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import socket
import struct
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import websocket
from schemathesis import GenerationMode

from tests.machine.test_machine import status
from tests.support.api_fuzz import Fuzzer, operations
from tests.support.pybox_cli import Cli
from tests.support.relay import tcp_relay
from tests.support.small_image import busybox, busybox_layer, image

IMAGE = "fuzz:1"
PATIENCE = 60.0
OPERATIONS = {operation.label: operation for operation in operations()}
CROWD = 100


@pytest.fixture(scope="module")
def machine(home: Path, cli: Cli) -> Iterator[Cli]:
    """A machine of these tests' own: they prune, and try what nobody should."""
    driver = Cli(home, "fuzz")
    driver.ok("start")
    driver.ok("load", stdin=image(busybox_layer(busybox(driver))).saved(IMAGE))
    yield driver
    driver.run("delete", "--force")


@pytest.fixture(scope="module")
def api(machine: Cli) -> Path:
    """The API's socket on this computer."""
    return Path(str(status(machine)["api_socket"]))


@pytest.fixture(scope="module")
def fuzzer(api: Path) -> Iterator[Fuzzer]:
    made = Fuzzer(api, IMAGE)
    yield made
    made.close()


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_request_is_answered_as_described_or_refused(fuzzer: Fuzzer, label: str) -> None:
    for mode, examples in ((GenerationMode.POSITIVE, 8), (GenerationMode.NEGATIVE, 4)):
        fuzzer.prepare()
        fuzzer.run(OPERATIONS[label], mode, examples)


def test_no_bug_came_up_meanwhile(fuzzer: Fuzzer, machine: Cli) -> None:
    """One that no answer shows has a traceback in the engine's log, which goes to the console."""
    assert fuzzer.call("GET", "/_ping").text == "OK"
    for name in ("fuzz-on", "fuzz-off"):
        fuzzer.call("DELETE", f"/containers/{name}?force=1")
    console = machine.home / "state" / "machines" / machine.machine / "console.log"
    assert "Traceback" not in console.read_text(errors="replace")


# -- a crowd ---------------------------------------------------------------------------------------


def descriptors(machine: Cli) -> tuple[int, int]:
    """How many files the engine and the hostagent have open."""
    find = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = pyboxd-engine ] && ls $p/fd | wc -l; done; true'
    engine = int(machine.ok("ssh", find))
    processes = json.loads((machine.home / "state" / "machines" / machine.machine / "processes.json").read_text())
    return engine, len(os.listdir(f"/proc/{processes['hostagent']['pid']}/fd"))


def test_a_hundred_clients_at_once(machine: Cli, api: Path, fuzzer: Fuzzer) -> None:
    fuzzer.prepare()
    asyncio.run(_crowd(api))  # whatever is kept for the next client is there from now on
    before = _settled(machine, (1 << 30, 1 << 30))
    asyncio.run(_crowd(api))
    assert fuzzer.call("GET", "/_ping").text == "OK"
    after = _settled(machine, before)
    assert after[0] <= before[0] and after[1] <= before[1], f"{before} before, {after} after"


def _settled(machine: Cli, wanted: tuple[int, int]) -> tuple[int, int]:
    """The open files when there are no more than `wanted`, or when waiting did not help."""
    deadline = time.monotonic() + PATIENCE
    found = descriptors(machine)
    while time.monotonic() < deadline and (found[0] > wanted[0] or found[1] > wanted[1]):
        time.sleep(0.5)
        found = descriptors(machine)
    return found


async def _crowd(path: Path) -> None:
    clients = (_reader, _follower, _half_open, _slow, _vanishing)
    async with asyncio.timeout(PATIENCE * 2):
        await asyncio.gather(*(clients[number % len(clients)](str(path), number) for number in range(CROWD)))


def _get(path: str) -> bytes:
    return f"GET /v1.51{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def _reader(path: str, number: int) -> None:
    """Several requests over one connection, answered in full."""
    paths = (
        "/info",
        "/containers/json?all=1",
        "/images/json",
        "/version",
        "/containers/fuzz-on/json",
        "/nothing",
        "/volumes",
    )
    reader, writer = await asyncio.open_unix_connection(path)
    for offset in range(5):
        writer.write(_get(paths[(number + offset) % len(paths)]))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 "))
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        json.loads(await reader.readexactly(int(length.split(b":")[1])))
    writer.close()


async def _follower(path: str, number: int) -> None:
    """Listens to events until one of its own comes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(_get("/events"))
    await reader.readuntil(b"\r\n\r\n")
    other_reader, other = await asyncio.open_unix_connection(path)
    body = json.dumps({"Name": f"crowd-{number}"}).encode()
    head = (
        f"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    other.write(head.encode() + body)
    assert (await other_reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 ")
    other.write(f"DELETE /volumes/crowd-{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(f'"crowd-{number}"'.encode())
    other.close()
    writer.close()


async def _half_open(path: str, number: int) -> None:
    """Says half of a request, ends its side, and waits what happens."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(_get("/info")[: 1 + number])
    await asyncio.sleep(0.5)
    writer.write_eof()
    await reader.read()
    writer.close()


async def _slow(path: str, number: int) -> None:
    """Asks for more than the connection holds, reads a little, and leaves."""
    reader, writer = await asyncio.open_unix_connection(path, limit=4096)
    writer.write(_get("/containers/fuzz-on/export"))
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(5):
        await reader.read(1024)
        await asyncio.sleep(0.1)
    writer.close()


async def _vanishing(path: str, number: int) -> None:
    """Asks for what takes long, and is gone without a word."""
    requests = (
        _get("/containers/fuzz-on/logs?follow=1&stdout=1"),
        _get("/containers/fuzz-on/stats"),
        _get("/events"),
        b"POST /containers/fuzz-on/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /containers/fuzz-on/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        b"POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    )
    _, writer = await asyncio.open_unix_connection(path)
    writer.write(requests[number % len(requests)])
    await asyncio.sleep(0.02 * (number % 10))
    writer.transport.abort()


# -- WebSocket -------------------------------------------------------------------------------------


def test_attach_over_a_websocket(api: Path) -> None:
    with tcp_relay(api) as port:
        client = docker.APIClient(base_url=f"tcp://127.0.0.1:{port}", version="1.45", timeout=60)
        made = client.create_container(IMAGE, ["cat"], stdin_open=True, name="ws")
        try:
            params = {"stdin": 1, "stdout": 1, "stream": 1}
            connection = client.attach_socket(made["Id"], params=params, ws=True)
            client.start(made["Id"])
            connection.send("text ")
            connection.send_binary(b"\xffbytes\n")
            opcodes, said = set(), b""
            while len(said) < len(b"text \xffbytes\n"):
                opcode, data = connection.recv_data()
                opcodes.add(opcode)
                said += data
            assert said == b"text \xffbytes\n" and opcodes == {websocket.ABNF.OPCODE_BINARY}
            connection.ping("x")
            assert connection.recv_data_frame(control_frame=True)[0] == websocket.ABNF.OPCODE_PONG
            client.kill(made["Id"])
            assert connection.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
            again = websocket.create_connection(f"ws://127.0.0.1:{port}/containers/ws/attach/ws?logs=1&stdout=1", timeout=60)
            assert again.recv_data() == (websocket.ABNF.OPCODE_BINARY, "text \ufffdbytes\n".encode())
            assert again.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
            with pytest.raises(websocket.WebSocketBadStatusException) as caught:
                websocket.create_connection(f"ws://127.0.0.1:{port}/containers/nobody/attach/ws", timeout=60)
            assert caught.value.status_code == 404
        finally:
            client.remove_container(made["Id"], force=True)
            client.close()


# -- habits of clients -----------------------------------------------------------------------------


class Wire:
    """One connection, and what is on it byte by byte."""

    def __init__(self, path: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(PATIENCE)
        self.connection.connect(str(path))
        self.file = self.connection.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        self.connection.close()

    def send(self, method: str, path: str, *fields: str, body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *fields]
        if not any(field.startswith("Transfer-Encoding") for field in fields) and method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        self.connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def head(self) -> tuple[str, dict[str, str]]:
        first, fields = self.file.readline().decode().strip(), {}
        while line := self.file.readline().decode().strip():
            name, _, value = line.partition(": ")
            fields[name] = value
        return first, fields

    def json(self) -> Any:
        _, fields = self.head()
        return json.loads(self.file.read(int(fields["Content-Length"])))

    def chunk(self) -> bytes:
        size = int(self.file.readline(), 16)
        return self.file.read(size + 2)[:-2]

    def frame(self) -> tuple[int, bytes]:
        stream, size = struct.unpack(">BxxxL", self.file.read(8))
        return stream, self.file.read(size)


@pytest.fixture
def wire(api: Path) -> Iterator[Wire]:
    with Wire(api) as made:
        yield made


@pytest.fixture
def container(fuzzer: Fuzzer) -> Iterator[str]:
    """A container that was made and not started: it says back what it is told, in capitals if that is easy."""
    body = {"Image": IMAGE, "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True}
    found = str(fuzzer.call("POST", "/containers/create", json=body).json()["Id"])
    yield found
    fuzzer.call("DELETE", f"/containers/{found}?force=1")


def test_every_answer_says_who_it_is(wire: Wire) -> None:
    wire.send("HEAD", "/_ping")
    first, fields = wire.head()
    assert first == "HTTP/1.1 200 OK"
    assert fields["Api-Version"] == "1.51" and fields["Ostype"] == "linux" and fields["Docker-Experimental"] == "false"
    assert fields["Server"].endswith("(linux)") and fields["Builder-Version"] == "1" and fields["Swarm"] == "inactive"
    assert fields["Cache-Control"] == "no-cache, no-store, must-revalidate" and fields["Pragma"] == "no-cache"
    wire.send("GET", "/v1.24/nothing")
    _, fields = wire.head()
    assert fields["Content-Type"] == "application/json" and fields["Api-Version"] == "1.51"


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v1.52/info", "client version 1.52 is too new. Maximum supported API version is 1.51"),
        ("GET", "/v1.23/info", "client version 1.23 is too old. Minimum supported API version is 1.24, "
         "please upgrade your client to a newer version"),
        ("PATCH", "/info", "page not found"),
        ("GET", "/no/such/thing", "page not found"),
        ("GET", "/containers/{id}/logs", "Bad parameters: you must choose at least one stream"),
        ("GET", "/containers/{id}/attach/ws", "bad WebSocket handshake: no upgrade to websocket was asked for"),
        ("POST", "/containers/{id}/attach?detachKeys=ctrl-5", "Invalid detach keys (ctrl-5) provided"),
        ("POST", "/containers/{id}/wait?condition=never", 'invalid condition: "never"'),
    ],
)  # fmt: skip
def test_words_of_refusals(wire: Wire, container: str, method: str, path: str, message: str) -> None:
    wire.send(method, path.format(id=container))
    assert wire.json() == {"message": message}


def test_a_start_has_no_body(wire: Wire, container: str) -> None:
    wire.send("POST", f"/containers/{container}/start", "Content-Type: application/json", body=b'{"a": "b"}')
    first, fields = wire.head()
    assert first.split()[1] == "400"
    assert "non-empty request body" in json.loads(wire.file.read(int(fields["Content-Length"])))["message"]
    wire.send("POST", f"/containers/{container}/start", "Content-Type: application/json", body=b"{}\r\n")
    assert wire.head()[0].split()[1] == "204"


def test_run_as_the_docker_cli_does_it(api: Path, wire: Wire, container: str) -> None:
    """Attach and wait before the start; the answer to wait begins at once, the connection ends with the process."""
    with Wire(api) as attach, Wire(api) as wait:
        upgrade = ("Connection: Upgrade", "Upgrade: tcp")
        attach.send("POST", f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1", *upgrade)
        first, fields = attach.head()
        assert first == "HTTP/1.1 101 UPGRADED" and fields["Connection"] == "Upgrade" and fields["Upgrade"] == "tcp"
        assert fields["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert "Transfer-Encoding" not in fields and "Content-Length" not in fields
        wait.send("POST", f"/containers/{container}/wait?condition=next-exit")
        first, fields = wait.head()
        assert first == "HTTP/1.1 200 OK" and fields["Transfer-Encoding"] == "chunked"
        wire.send("POST", f"/containers/{container}/start")
        assert wire.head()[0].split()[1] == "204"
        attach.connection.sendall(b"hello\n")
        assert attach.frame() == (1, b"hello\n")
        attach.connection.sendall(b"the end\n")
        attach.connection.shutdown(socket.SHUT_WR)
        assert attach.frame() == (1, b"the end\n") and attach.file.read() == b""
        assert json.loads(wait.chunk()) == {"StatusCode": 0} and wait.chunk() == b""


def test_stdin_in_chunks_without_an_upgrade(wire: Wire, container: str, fuzzer: Fuzzer) -> None:
    """As docker-modem sends it."""
    assert fuzzer.call("POST", f"/containers/{container}/start").status_code == 204
    wire.send("POST", f"/v1.41/containers/{container}/attach?stream=1&stdin=1&stdout=1", "Transfer-Encoding: chunked")
    first, fields = wire.head()
    assert first == "HTTP/1.1 200 OK" and fields["Content-Type"] == "application/vnd.docker.raw-stream"
    wire.connection.sendall(b"3\r\nab\n\r\n")
    assert wire.frame() == (1, b"ab\n")
    wire.connection.sendall(b"2\r\nc\n\r\n0\r\n\r\n")
    assert wire.frame() == (1, b"c\n") and wire.file.read() == b""


def test_no_output_of_an_exec_comes_with_the_header(wire: Wire, container: str, fuzzer: Fuzzer) -> None:
    """docker-py loses what does."""
    assert fuzzer.call("POST", f"/containers/{container}/start").status_code == 204
    made = fuzzer.call("POST", f"/containers/{container}/exec", json={"Cmd": ["echo", "hi"], "AttachStdout": True}).json()
    fields = ("Connection: Upgrade", "Upgrade: tcp", "Content-Type: application/json")
    wire.send("POST", f"/exec/{made['Id']}/start", *fields, body=b"{}")
    assert wire.connection.recv(65536).endswith(b"\r\n\r\n")
    assert wire.connection.recv(65536) == b"\1\0\0\0\0\0\0\3hi\n"
    assert wire.connection.recv(65536) == b""
    assert fuzzer.call("GET", f"/exec/{made['Id']}/json").json()["ExitCode"] == 0


@pytest.mark.parametrize(
    ("accept", "kind", "start"),
    [
        ("*/*", "application/json", b"{"),
        ("application/jsonl", "application/jsonl", b"{"),
        ("application/x-ndjson", "application/x-ndjson", b"{"),
        ("application/json-seq", "application/json-seq", b"\x1e{"),
    ],
)
def test_events_in_the_form_that_is_asked_for(wire: Wire, fuzzer: Fuzzer, accept: str, kind: str, start: bytes) -> None:
    wire.send("GET", "/events?filters=%7B%22type%22:%5B%22volume%22%5D%7D", f"Accept: {accept}")
    first, fields = wire.head()
    assert first == "HTTP/1.1 200 OK" and fields["Content-Type"] == kind and fields["Transfer-Encoding"] == "chunked"
    fuzzer.call("POST", "/volumes/create", json={"Name": "heard"})
    line = wire.chunk()
    fuzzer.call("DELETE", "/volumes/heard")
    assert line.startswith(start) and line.endswith(b"}\n") and line.count(b"\n") == 1
    event = json.loads(line.lstrip(b"\x1e"))
    assert (event["Type"], event["Action"], event["Actor"]["ID"], event["scope"]) == ("volume", "create", "heard", "local")


def test_an_export_is_the_tree_without_what_is_mounted_in_it(container: str, fuzzer: Fuzzer) -> None:
    assert fuzzer.call("POST", f"/containers/{container}/start").status_code == 204
    archive = fuzzer.call("GET", f"/containers/{container}/export").content
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        names = {name.removeprefix("./") for name in file.getnames()}
    assert {"bin/busybox", "proc", "sys"} <= names
    assert not any(name.startswith(("proc/", "sys/")) for name in names)


def test_names_that_are_no_text_can_be_told(wire: Wire, container: str, fuzzer: Fuzzer) -> None:
    """Files in a container may be called anything."""
    info = tarfile.TarInfo("caf\udce9")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as file:
        file.addfile(info)
    put = fuzzer.call("PUT", f"/containers/{container}/archive?path=/tmp", data=out.getvalue())
    assert put.status_code == 200
    changes = fuzzer.call("GET", f"/containers/{container}/changes")
    assert changes.status_code == 200 and len(changes.json()) == 2
    with suppress(http.client.HTTPException):
        wire.send("GET", f"/containers/{container}/archive?path=/tmp/caf%E9")
        assert wire.head()[0].split()[1] in ("200", "404")
