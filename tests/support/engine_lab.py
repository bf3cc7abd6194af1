"""The whole engine but for the host, for tests in a guest: a process of its own, an API socket, a busybox image.

    with EngineLab() as lab:
        lab.post("/containers/create?name=x", {"Image": "busybox", "Cmd": ["true"]})

The process can be killed and started again over the same data (`crash`). Needs root, cgroup v2 and the guest's file
system layout: it is run in the machine, not on a developer's system.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pyboxd import locations

SOCKET = locations.API_SOCKET
REFUSED_PORT = 666  # the fake host never listens there
PATIENCE = 60.0  # seconds; guests are emulated


@dataclass(frozen=True)
class Reply:
    """One answer of the API."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines() if line]


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(SOCKET)


class EngineLab:
    """The running engine, and short ways to talk to it."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or not os.path.exists("/usr/lib/pybox/manifest.json"):
            pytest.skip("needs to be root in the guest")
        self._engine: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineLab:
        self.start()
        self.load(busybox_image())
        return self

    def __exit__(self, *exception: object) -> None:
        for container in self.get("/containers/json?all=1").json:
            self.delete(f"/containers/{container['Id']}?force=1&v=1")
        self._end(signal.SIGTERM)

    # the process

    def start(self) -> None:
        """Start an engine and wait for its socket."""
        self._engine = subprocess.Popen([sys.executable, "-m", "tests.support.engine_lab"], stdout=subprocess.PIPE)
        assert self._engine.stdout is not None
        assert self._engine.stdout.readline() == b"ready\n"

    def crash(self) -> None:
        """Kill the engine as hard as it goes; containers are not touched."""
        self._end(signal.SIGKILL)

    def _end(self, signum: int) -> None:
        if self._engine is not None:
            self._engine.send_signal(signum)
            self._engine.wait(PATIENCE)
            assert self._engine.stdout is not None
            self._engine.stdout.close()
            self._engine = None

    # requests

    def request(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Reply:
        """`body` is sent as JSON unless it is bytes."""
        connection = _Connection("engine")
        fields = {"Content-Type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        connection.request(method, f"/v1.51{path}", data, fields)
        response = connection.getresponse()
        reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return reply

    def get(self, path: str) -> Reply:
        return self.request("GET", path)

    def post(self, path: str, body: object = None) -> Reply:
        return self.request("POST", path, body)

    def delete(self, path: str) -> Reply:
        return self.request("DELETE", path)

    def stream(self, path: str) -> Iterator[bytes]:
        """Lines of a GET, as they come; the connection is closed with the iterator."""
        connection = _Connection("engine")
        connection.request("GET", f"/v1.51{path}")
        response = connection.getresponse()
        assert response.status == 200
        try:
            while line := response.readline():
                yield line
        finally:
            connection.close()

    def load(self, archive: bytes) -> None:
        reply = self.request("POST", "/images/load", archive, {"Content-Type": "application/x-tar"})
        assert reply.status == 200, reply.body
        assert not any("error" in line for line in reply.lines), reply.body

    def upgrade(self, path: str, body: object = None) -> Hijacked:
        """A POST that takes the connection over; what came so far is not read yet."""
        data = b"" if body is None else json.dumps(body).encode()
        head = [
            f"POST /v1.51{path} HTTP/1.1",
            "Host: engine",
            "Connection: Upgrade",
            "Upgrade: tcp",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
        ]
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(SOCKET)
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        return Hijacked(connection)

    # containers

    def create(self, *command: str, name: str = "", **config: Any) -> str:
        """A container of the busybox image; its id."""
        body = {"Image": "busybox", "Cmd": list(command), **config}
        reply = self.post(f"/containers/create?name={name}" if name else "/containers/create", body)
        assert reply.status == 201, reply.body
        return str(reply.json["Id"])

    def run(self, *command: str, **config: Any) -> tuple[int, bytes]:
        """Run a container to its end and remove it: exit status, and all it said."""
        container = self.create(*command, **config)
        reply = self.post(f"/containers/{container}/start")
        assert reply.status == 204, reply.body
        code = self.wait(container)
        output = self.logs(container)
        assert self.delete(f"/containers/{container}?v=1").status == 204
        return code, output

    def start_container(self, *command: str, **config: Any) -> str:
        """A running container; its id."""
        container = self.create(*command, **config)
        reply = self.post(f"/containers/{container}/start")
        assert reply.status == 204, reply.body
        return container

    def wait(self, container: str, condition: str = "not-running") -> int:
        return int(self.post(f"/containers/{container}/wait?condition={condition}").json["StatusCode"])

    def logs(self, container: str, query: str = "") -> bytes:
        reply = self.get(f"/containers/{container}/logs?stdout=1&stderr=1{query}")
        return b"".join(data for _, data in frames(reply.body))

    def state(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/containers/{container}/json").json["State"]
        return found

    def until(self, container: str, **wanted: Any) -> None:
        """Wait until the container's state has these values."""
        deadline = time.monotonic() + PATIENCE
        while not wanted.items() <= self.state(container).items():
            assert time.monotonic() < deadline, self.state(container)
            time.sleep(0.05)

    def until_exists(self, container: str, path: str) -> None:
        """Wait until a program in the container has made a file."""
        deadline = time.monotonic() + PATIENCE
        while self.execute(container, "test", "-e", path)[0]:
            assert time.monotonic() < deadline, path
            time.sleep(0.1)

    def execute(self, container: str, *command: str, **config: Any) -> tuple[int, bytes]:
        """Run a command in a container: exit status, and all it said."""
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **config}
        reply = self.post(f"/containers/{container}/exec", body)
        assert reply.status == 201, reply.body
        with self.upgrade(f"/exec/{reply.json['Id']}/start", {"Tty": bool(config.get("Tty"))}) as stream:
            data = stream.read_all()
        output = data if config.get("Tty") else b"".join(part for _, part in frames(data))
        return int(self.get(f"/exec/{reply.json['Id']}/json").json["ExitCode"]), output


class Hijacked:
    """A connection that was taken over."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers: dict[str, str] = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._connection.close()

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def write_eof(self) -> None:
        self._connection.shutdown(socket.SHUT_WR)

    def read_all(self) -> bytes:
        return self._file.read()

    def read_until(self, text: bytes) -> bytes:
        """Raw output up to and with `text`."""
        found = b""
        while text not in found:
            byte = self._file.read(1)
            assert byte, found
            found += byte
        return found


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """(stream, bytes) of Docker's stream format."""
    found = []
    while data:
        stream, length = struct.unpack(">BxxxL", data[:8])
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


def tar(entries: Sequence[tuple[str, bytes | None, int]]) -> bytes:
    """(name, content or None for a directory, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content, mode in entries:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def busybox_image(tag: str = "busybox:latest", **config: Any) -> bytes:
    """What `docker save` would write of a small image: busybox, a few accounts, and a folder `/data` with a file."""
    with open("/bin/busybox", "rb") as file:
        program = file.read()
    applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as file_:
        for name in ("bin", "etc", "root", "tmp", "data", "dev", "proc", "sys"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            file_.addfile(info)
        for name, content, mode, owner in (
            ("bin/busybox", program, 0o755, 0),
            ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n", 0o644, 0),
            ("etc/group", b"root:x:0:\nuser:x:1000:\n", 0o644, 0),
            ("data/hello", b"from the image\n", 0o640, 1000),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(content), mode, owner, owner
            file_.addfile(info, io.BytesIO(content))
        for applet in applets:
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
                file_.addfile(info)
    return image_archive(tag, layer.getvalue(), {"Env": ["PATH=/bin"], "Cmd": ["sh"], **config})


def image_archive(tag: str, layer: bytes, config: dict[str, Any]) -> bytes:
    """An archive with one image of one layer."""
    import hashlib

    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": config,
        "created": "2026-01-02T03:04:05Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "test"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    return tar(
        [
            ("layer.tar", layer, 0o644),
            ("config.json", json.dumps(document).encode(), 0o644),
            ("manifest.json", json.dumps(manifest).encode(), 0o644),
        ]
    )


class _Publisher:
    """A host that listens wherever it is asked to, but for one port."""

    async def publish(self, protocol: str, host_ip: str, host_port: int, guest_port: int) -> tuple[str, int]:
        from pyboxd.errors import SystemFailure

        if host_port == REFUSED_PORT:
            address = f"{host_ip or '0.0.0.0'}:{host_port}"
            raise SystemFailure(
                f"Ports are not available: exposing port {protocol.upper()} {address} -> 127.0.0.1:0: "
                f"listen {protocol} {address}: bind: address already in use"
            )
        return host_ip or "127.0.0.1", host_port or 40000 + guest_port % 1000

    async def release(self, protocol: str, host_ip: str, host_port: int) -> None:
        pass


def main() -> int:
    """The engine's process."""
    from pyboxd.runtime.client import Runtime

    runtime = Runtime.fork()
    return asyncio.run(_serve(runtime))


async def _serve(runtime: Any) -> int:
    from pyboxd.api.paths import HostPaths
    from pyboxd.api.rooms import Rooms, prepare_directories
    from pyboxd.api.schema.system import Release
    from pyboxd.api.system import Surroundings
    from pyboxd.database import Database
    from pyboxd.image.layerstore import LayerStore
    from pyboxd.image.room import ImageRoom
    from pyboxd.model import Share
    from pyboxd.network.networks import Networks
    from pyboxd.server.http import Application

    prepare_directories()
    database = Database(locations.DATABASE)
    networks = Networks(database, _Publisher())
    await networks.setup()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    images = ImageRoom(database, LayerStore(runtime), architecture=architecture)
    paths = HostPaths([Share("home", "/home/me", "/home/me")])
    release = Release("0", "1.51", "1.24", os.uname().release, architecture, time.time_ns(), "")
    rooms = Rooms(database, runtime, images, networks, paths, release, Surroundings)
    await rooms.recover()
    application = Application(rooms.routes())
    await application.serve_unix(SOCKET)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    os.write(1, b"ready\n")
    await over.wait()
    await rooms.supervisor.close(1.0)
    await application.close()
    await networks.close()
    await runtime.close()
    database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
