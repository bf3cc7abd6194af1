"""What the guest knows of the folders goes from one folder server to the next, for a machine that was suspended."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.frozen import as_dict
from pybox.model import Share
from pybox.share import keeping, native
from pybox.share import protocol as p
from pybox.share.nodes import FIRST_SHARE, NodeTable
from pybox.share.operations import Session
from pybox.share.protocol import Opcode, Request

pytestmark = pytest.mark.skipif(not native.can_serve(), reason="this system shares no folders")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A shared folder with a few files."""
    made = tmp_path / "shared"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "file").write_text("content")
    (made / os.fsdecode(b"\xff")).touch()
    return made


@pytest.fixture
def session(folder: Path) -> Iterator[Session]:
    made = Session(shares(folder))
    yield made
    made.table.close()


def shares(folder: Path) -> list[Share]:
    return [Share("other", "/", "/"), Share("home", str(folder), str(folder))]


def request(opcode: Opcode, node: int, body: bytes) -> Request:
    return Request(opcode, 1, node, 0, 0, memoryview(body))


def look_up(session: Session, node: int, name: bytes) -> int:
    answer = session.answer(request(Opcode.LOOKUP, node, name + b"\0"))
    assert answer is not None
    number: int = struct.unpack_from("<Q", answer)[0]
    return number


def read(session: Session, node: int) -> bytes:
    answer = session.answer(request(Opcode.READ, node, struct.pack("<QQIIQII", 0, 0, 100, 0, 0, 0, 0)))
    assert answer is not None
    return bytes(answer)


def errors(session: Session, node: int) -> int | None:
    with pytest.raises(OSError) as caught:
        read(session, node)
    return caught.value.errno


def test_nodes_are_the_same_afterwards(session: Session, folder: Path, tmp_path: Path) -> None:
    root = look_up(session, p.ROOT_ID, b"home")
    sub = look_up(session, root, b"sub")
    file, odd = look_up(session, sub, b"file"), look_up(session, root, b"\xff")
    os.link(folder / "sub" / "file", folder / "linked")
    assert look_up(session, root, b"linked") == file
    keeping.save(session.table, tmp_path / "nodes")

    later = Session(shares(folder))
    keeping.load(later.table, tmp_path / "nodes")
    assert read(later, file) == b"content"
    assert (look_up(later, root, b"sub"), look_up(later, sub, b"file")) == (sub, file)
    assert look_up(later, root, b"\xff") == odd
    (folder / "sub" / "file").unlink()
    assert read(later, file) == b"content"  # by its other name
    (folder / "linked").unlink()
    (folder / "new").touch()
    assert look_up(later, root, b"new") not in (root, sub, file, odd)
    later.answer(request(Opcode.FORGET, file, struct.pack("<Q", 3)))
    assert errors(later, file) == errno.ESTALE
    later.table.close()


def test_what_changed_meanwhile_is_noticed(session: Session, folder: Path, tmp_path: Path) -> None:
    root = look_up(session, p.ROOT_ID, b"home")
    file = look_up(session, look_up(session, root, b"sub"), b"file")
    gone = look_up(session, root, b"\xff")
    keeping.save(session.table, tmp_path / "nodes")
    (folder / "sub" / "file").rename(folder / "sub" / "old")
    (folder / "sub" / "file").write_text("another")
    (folder / os.fsdecode(b"\xff")).unlink()
    later = Session(shares(folder))
    keeping.load(later.table, tmp_path / "nodes")
    assert errors(later, file) == errno.ESTALE
    assert errors(later, gone) == errno.ENOENT
    assert look_up(later, look_up(later, root, b"sub"), b"file") != file
    later.table.close()


def test_a_disk_that_got_another_number(session: Session, folder: Path, tmp_path: Path) -> None:
    """As after a restart of the host."""
    sub = look_up(session, look_up(session, p.ROOT_ID, b"home"), b"sub")
    keeping.save(session.table, tmp_path / "nodes")
    content = json.loads((tmp_path / "nodes").read_bytes())
    device = content["devices"][1]
    content["devices"][1] = device + 1
    for node in content["nodes"]:
        assert node[2][1] == device
        node[2][1] = device + 1
    (tmp_path / "nodes").write_text(json.dumps(content))
    later = Session(shares(folder))
    keeping.load(later.table, tmp_path / "nodes")
    assert look_up(later, FIRST_SHARE + 1, b"sub") == sub
    later.table.close()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 9}', '{"format": 1, "devices": [], "nodes": []}'])
def test_a_file_that_cannot_be_read_costs_only_what_it_held(folder: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "nodes").write_text(content)
    table = NodeTable(shares(folder))
    keeping.load(table, tmp_path / "nodes")
    keeping.load(table, tmp_path / "missing")
    assert table.known() == []


class Guest:
    """The other side of a real server: sends requests as a kernel does."""

    def __init__(self, tmp_path: Path, *more: str) -> None:
        config = tmp_path / "share.json"
        config.write_text(json.dumps({"shares": [as_dict(share) for share in shares(tmp_path / "shared")]}))
        listener = hostos.current().listen(tmp_path / "fuse.sock")
        command = [
            sys.executable,
            "-m",
            "pybox.share.server",
            "--socket",
            str(tmp_path / "fuse.sock"),
            "--config",
            str(config),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.server = subprocess.Popen([*command, *more], env=environment)
        self.connection, _ = listener.accept()
        listener.close()
        self.connection.settimeout(20)
        greeting = self._message()
        self.connection.sendall(greeting[p.OUT_HEADER.size :])

    def ask(self, opcode: Opcode, node: int, body: bytes) -> bytes:
        self.send(opcode, node, body)
        answer = self._message()
        assert struct.unpack_from("<Ii", answer)[1] == 0
        return answer[p.OUT_HEADER.size :]

    def send(self, opcode: Opcode, node: int, body: bytes) -> None:
        head = p.IN_HEADER.pack(p.IN_HEADER.size + len(body), opcode, 7, node, 0, 0, 0, 0, 0)
        self.connection.sendall(head + body)

    def look_up(self, node: int, name: bytes) -> int:
        number: int = struct.unpack_from("<Q", self.ask(Opcode.LOOKUP, node, name + b"\0"))[0]
        return number

    def _message(self) -> bytes:
        length = self.connection.recv(4, socket.MSG_WAITALL)
        return length + self.connection.recv(int.from_bytes(length, "little") - 4, socket.MSG_WAITALL)

    def end(self) -> int:
        self.server.send_signal(signal.SIGTERM)
        return self.server.wait(20)


def test_a_server_that_is_ended_leaves_what_it_knows(folder: Path, tmp_path: Path) -> None:
    first = Guest(tmp_path)
    sub = first.look_up(FIRST_SHARE + 1, b"sub")
    # What it has begun it ends: somebody takes the answer, or the kernel would ask for the same again.
    first.send(Opcode.MKDIR, sub, struct.pack("<II", 0o755, 0) + b"made\0")
    while not (folder / "sub" / "made").exists():
        pass
    first.server.send_signal(signal.SIGTERM)
    assert struct.unpack_from("<Ii", first._message())[1] == 0
    assert first.server.wait(20) == 0
    first.connection.close()

    second = Guest(tmp_path, "--resume")
    assert second.look_up(sub, b"file") and second.look_up(FIRST_SHARE + 1, b"sub") == sub
    assert second.end() == 0
    second.connection.close()
