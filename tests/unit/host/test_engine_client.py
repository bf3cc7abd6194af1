"""The engine's client over a real socket: answers that break off are errors, however they are framed."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox.engine.client import EngineClient
from pybox.errors import EngineError, MachineError

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


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "It ended before the engine answered."),
        (b"HTTP/1.1 200 OK\r\nContent-", "It ended in the middle of the engine's answer."),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n[]",
            "in the middle of the engine's answer, 68 bytes before its end.",
        ),
        (CHUNKED + b"2\r\n[", "It ended in the middle of the engine's answer."),
        (CHUNKED + b"2\r\n[]", "It ended in the middle of the engine's answer."),
        (CHUNKED + b"two\r\n[]", "The engine's answer has a wrong length in it: b'two'."),
        (b"SSH-2.0-dropbear\r\n", "What came is no answer of an engine: b'SSH-2.0-dropbear"),
        (b"HTTP/1.1 20\r\n\r\n", "What came is no answer of an engine"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n", "The header of the engine's answer does not end."),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000 + b"\r\n\r\n", "It ended in the middle of the engine's answer."),
    ],
)
def test_what_was_lost_is_said_in_words(tmp_path: Path, answer: bytes, words: str) -> None:
    with pytest.raises(MachineError, match="The connection to the engine was lost") as caught:
        serve_once(tmp_path / "s", answer).get("/x")
    assert words in caught.value.details


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nOK and more", b"OK"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: Application/JSON\r\n\r\n[1]", [1]),
        (CHUNKED + b"3;x=y\r\nabc\r\n0\r\nField: ignored\r\n\r\n", b"abc"),
        (CHUNKED + b"0\r\n\r\n", None),
    ],
)
def test_bodies(tmp_path: Path, answer: bytes, value: object) -> None:
    assert serve_once(tmp_path / "s", answer).get("/x") == value


@pytest.mark.parametrize(
    ("answer", "brief"),
    [
        (b'HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\n{"message": "gone" }', "gone"),
        (b"HTTP/1.1 500 X\r\n\r\nplain words\n", "plain words"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", "Not Found"),
        (b"HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n", "599"),
    ],
)
def test_refusals(tmp_path: Path, answer: bytes, brief: str) -> None:
    with pytest.raises(EngineError, match=f"^{brief}$") as caught:
        serve_once(tmp_path / "s", answer).post("/x", body={})
    assert caught.value.status == int(answer.split()[1])
    with pytest.raises(EngineError, match=f"^{brief}$"):
        serve_once(tmp_path / "t", answer).hijack("/x")


def test_many_small_chunks(tmp_path: Path) -> None:
    lines = b"".join(b"9\r\n%07d\n\n\r\n" % number for number in range(1, 5000)).replace(b"\n\n", b" \n")
    client = serve_once(tmp_path / "s", CHUNKED + lines + b"0\r\n\r\n")
    with client.stream("GET", "/x") as response:
        pieces = list(iter(lambda: response.read1(5), b""))
    assert max(map(len, pieces)) == 5
    assert b"".join(pieces).split() == [b"%07d" % number for number in range(1, 5000)]


class Peer:
    """The engine's end of one connection, which the test drives."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def accept(self) -> socket.socket:
        with self._listener:
            return self._listener.accept()[0]


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        part = connection.recv(4096)
        assert part, data
        data += part
    return data


def test_a_body_in_pieces(tmp_path: Path) -> None:
    peer, seen = Peer(tmp_path / "s"), []

    def serve() -> None:
        with peer.accept() as connection:
            seen.append(read_until(connection, b"0\r\n\r\n"))
            connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"ok":1}\n')

    thread = threading.Thread(target=serve)
    thread.start()
    lines = EngineClient(tmp_path / "s").json_lines(
        "POST", "/load", {"q": True}, iter([b"abc", b"", b"d" * 17]), {"X-A": "b"}
    )
    assert list(lines) == [{"ok": 1}]
    thread.join()
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /v1.51/load?q=1 HTTP/1.1",
        b"Host: localhost",
        b"X-A: b",
        b"Transfer-Encoding: chunked",
    ]
    assert body == b"3\r\nabc\r\n11\r\n" + b"d" * 17 + b"\r\n0\r\n\r\n"


def test_a_refusal_before_the_body_has_ended(tmp_path: Path) -> None:
    peer, cut = Peer(tmp_path / "s"), threading.Event()

    def serve() -> None:
        with peer.accept() as connection:
            connection.recv(1)
            connection.shutdown(socket.SHUT_RD)
            connection.sendall(b'HTTP/1.1 400 Bad\r\nContent-Length: 17\r\n\r\n{"message":"bad"}')
            cut.wait(10)

    def pieces() -> Iterator[bytes]:
        yield from itertools.repeat(b"x" * 65536, 1000)

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(EngineError, match=r"^bad$"):
        list(EngineClient(tmp_path / "s").json_lines("POST", "/load", body=pieces()))
    cut.set()


def test_a_hijacked_connection(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "s")

    def serve() -> None:
        with peer.accept() as connection:
            request = read_until(connection, b'{"Tty": true}')
            assert (
                b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"
                in request
            )
            kind = b"application/vnd.docker.multiplexed-stream"
            connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: %b\r\nConnection: Upgrade\r\n\r\nfirst" % kind)
            assert read_until(connection, b"question") == b"question"
            connection.sendall(b"answer")
            assert connection.recv(1) == b""
            connection.sendall(b"last")

    thread = threading.Thread(target=serve)
    thread.start()
    stream = EngineClient(tmp_path / "s").hijack("/exec/1/start", body={"Tty": True})
    assert stream.multiplexed
    assert stream.read() == b"first"
    stream.socket.sendall(b"question")
    assert stream.read() == b"answer"
    stream.close_write()
    assert stream.read() == b"last"
    assert stream.read() == b""
    stream.close()
    thread.join()


def test_a_hijack_that_is_not_answered(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="The engine closed the connection") as caught:
        serve_once(tmp_path / "s", b"").hijack("/exec/1/start")
    assert caught.value.details == "It ended before the engine answered."


def test_nobody_listens(tmp_path: Path) -> None:
    client = EngineClient(tmp_path / "s")
    assert not client.answers()
    with pytest.raises(MachineError, match="The machine does not answer"):
        client.get("/x")
