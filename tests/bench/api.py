"""The client of every measurement: small, the same code for both engines, one kept connection."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pybox.errors import PyboxError

_TIMEOUT = 600.0  # seconds


class ApiFailure(PyboxError):
    """The engine answered that it will not, or not at all."""


@dataclass(frozen=True)
class Address:
    """Where an engine answers: a unix socket, or a port of this computer's loopback."""

    path: Path | None = None  # of the unix socket
    port: int = 0

    def dial(self) -> socket.socket:
        """Return a new connection. Raises OSError."""
        if self.path is None:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    @property
    def docker_host(self) -> str:
        """Return the value of DOCKER_HOST."""
        return f"unix://{self.path}" if self.path else f"tcp://127.0.0.1:{self.port}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: Address) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        self.sock = self._address.dial()


class Api:
    """One engine over one connection, which is made when it is first needed and kept."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection = _Connection(address)

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object = None, stream: IO[bytes] | bytes | None = None) -> Any:
        """One request; its whole answer, decoded when it is one JSON value. `stream` is a tar archive.

        Raises ApiFailure when the engine refuses, or reports an error in its answer.
        """
        headers = {}
        payload: IO[bytes] | bytes | None = stream
        if stream is not None:
            headers["Content-Type"] = "application/x-tar"
            size = len(stream) if isinstance(stream, bytes) else stream.seek(0, 2)
            headers["Content-Length"] = str(size)
            if not isinstance(stream, bytes):
                stream.seek(0)
        elif body is not None:
            headers["Content-Type"] = "application/json"
            payload = json.dumps(body).encode()
        try:
            self._connection.request(method, path, payload, headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ApiFailure(f"{method} {path}: no answer", str(error) or type(error).__name__) from error
        if answer.status >= 400 or b'"errorDetail"' in data:
            raise ApiFailure(f"{method} {path}: {answer.status}", data[-500:].decode(errors="replace"))
        if answer.headers.get_content_type() == "application/json" and data.count(b"\n") <= 1 and data.strip():
            return json.loads(data)
        return data

    def create(self, image: str, command: Sequence[str], host: Mapping[str, Any] | None = None) -> str:
        """Create a container; its id. `host` is Docker's HostConfig."""
        wanted = dict(host or {})
        ports: dict[str, dict[str, str]] = {name: {} for name in wanted.get("PortBindings", {})}
        body = {"Image": image, "Cmd": list(command), "ExposedPorts": ports, "HostConfig": wanted}
        return str(self.call("POST", "/containers/create", body)["Id"])

    def start(self, container: str) -> None:
        self.call("POST", f"/containers/{container}/start")

    def wait(self, container: str) -> int:
        """Wait for the container's end; its exit status."""
        return int(self.call("POST", f"/containers/{container}/wait")["StatusCode"])

    def remove(self, container: str) -> None:
        self.call("DELETE", f"/containers/{container}?force=1")

    def discard(self, *containers: str) -> None:
        """Remove containers at the end of some work; a machine that is gone has none, and hides no other error."""
        with suppress(ApiFailure):
            for container in containers:
                self.remove(container)

    def output(self, container: str) -> str:
        """Return what a container without a terminal has written to its standard output."""
        data = self.call("GET", f"/containers/{container}/logs?stdout=1&stderr=1")
        return _payloads(data if isinstance(data, bytes) else json.dumps(data).encode()).decode()

    @contextmanager
    def container(self, image: str, command: Sequence[str], host: Mapping[str, Any] | None = None) -> Iterator[str]:
        """A running container, removed afterwards."""
        name = self.create(image, command, host)
        try:
            self.start(name)
            yield name
        finally:
            self.discard(name)

    def exec(self, container: str, command: Sequence[str]) -> int:
        """Run a command in a container, its output read to the end; the exit status."""
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True}
        job = self.call("POST", f"/containers/{container}/exec", body)["Id"]
        self._hijack(f"/exec/{job}/start", {"Detach": False, "Tty": False})
        return int(self.call("GET", f"/exec/{job}/json")["ExitCode"])

    def _hijack(self, path: str, body: object) -> bytes:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        with self.address.dial() as raw:
            raw.sendall(head.encode() + data)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        if b" 101 " not in answer[:20]:
            raise ApiFailure(f"POST {path}: no stream", answer[:300].decode(errors="replace"))
        return answer


def first_answer(address: Address, deadline: float) -> float:
    """Wait until `GET /_ping` is answered; time.monotonic() of that moment. Raises TimeoutError.

    A unix socket appears when the engine is there; trying to connect costs nearly nothing until then.
    """
    while True:
        try:
            with address.dial() as connection:
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if b" 200 " in connection.recv(4096)[:20]:
                    return time.monotonic()
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer from {address}")
        time.sleep(0.002)


def _payloads(data: bytes) -> bytes:
    """Take the frames off a log: 8 bytes before each piece, the last 4 its length."""
    found = []
    while len(data) >= 8:
        length = int.from_bytes(data[4:8], "big")
        found.append(data[8 : 8 + length])
        data = data[8 + length :]
    return b"".join(found)
