"""The engine's client over a real socket: answers that break off are errors, however they are framed."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from pybox.engine.client import EngineClient
from pybox.errors import MachineError

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def serve_once(path: Path, answer: bytes) -> EngineClient:
    """A client whose next request gets these bytes, and then the end of the connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            connection.recv(4096)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return EngineClient(path)


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b'8\r\n{"a":1}\n\r\n0\r\n\r\n',
        CHUNKED + b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}',
    ],
)
def test_a_whole_stream(tmp_path: Path, answer: bytes) -> None:
    client = serve_once(tmp_path / "s", answer)
    assert list(client.json_lines("GET", "/events")) == [{"a": 1}]


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b'8\r\n{"a":1}\n\r\n',
        CHUNKED + b'8\r\n{"a":1}\n\r\n8\r\n{"b"',
        b'HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{"a":1}\n',
    ],
)
def test_a_stream_that_breaks_off(tmp_path: Path, answer: bytes) -> None:
    client = serve_once(tmp_path / "s", answer)
    lines = client.json_lines("GET", "/events")
    assert next(lines) == {"a": 1}
    with pytest.raises(MachineError, match="The connection to the engine was lost"):
        next(lines)
