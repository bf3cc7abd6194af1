"""Nodes: what is the same file, how it is reached, and what never is; and single operations without a kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox.model import Share
from pybox.share import nodes as nodes_module
from pybox.share import protocol as p
from pybox.share.nodes import FIRST_SHARE, Node, NodeTable
from pybox.share.operations import Session
from pybox.share.protocol import Opcode, Request


@pytest.fixture
def table(tmp_path: Path) -> Iterator[NodeTable]:
    made = NodeTable([Share("home", str(tmp_path), str(tmp_path)), Share("again", str(tmp_path), "/again")])
    yield made
    made.close()


def look(table: NodeTable, parent: Node, name: str) -> Node:
    directory = table.directory(parent)
    node = table.learn(parent, name.encode(), os.stat(name, dir_fd=directory, follow_symlinks=False))
    node.lookups += 1
    return node


def root(table: NodeTable) -> Node:
    return table.node(FIRST_SHARE)


def errors(action: object, *arguments: object) -> int | None:
    assert callable(action)
    with pytest.raises(OSError) as caught:
        action(*arguments)
    return caught.value.errno


def test_hard_links_are_one_node_and_shares_are_apart(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "b")
    one = look(table, root(table), "a")
    assert look(table, root(table), "b") is one and len(one.places) == 2
    assert look(table, table.node(FIRST_SHARE + 1), "a") is not one
    os.unlink(tmp_path / "a")
    assert table.locate(one)[1] == b"b"


def test_replaced_file_is_another_node(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    old = look(table, root(table), "a")
    os.rename(tmp_path / "b", tmp_path / "a")
    assert errors(table.locate, old) == errno.ESTALE
    assert errors(table.file, old) == errno.ESTALE
    new = look(table, root(table), "a")
    assert new is not old and old.places == []
    os.unlink(tmp_path / "a")
    assert errors(table.locate, new) == errno.ENOENT


def test_open_file_is_read_after_it_was_replaced(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    old = look(table, root(table), "a")
    descriptor = table.file(old)
    (tmp_path / "b").write_text("new")
    os.rename(tmp_path / "b", tmp_path / "a")
    assert table.file(old) == descriptor and os.pread(descriptor, 9, 0) == b"old"


def test_renamed_folder_takes_its_content_along(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").touch()
    folder = look(table, root(table), "d")
    file = look(table, folder, "f")
    os.rename(tmp_path / "d", tmp_path / "e")
    table.renamed(root(table), b"d", root(table), b"e")
    table.close()  # nothing is reached by what is still open
    assert table.locate(file)[1] == b"f"


def test_links_are_not_followed(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    folder = look(table, root(table), "d")
    file = look(table, folder, "f")
    os.rename(tmp_path / "d", tmp_path / "real")
    os.symlink("real", tmp_path / "d")
    table.close()
    assert errors(table.directory, folder) in (errno.ENOTDIR, errno.ELOOP)
    assert errors(table.locate, file) in (errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


def test_pinned_file_lives_until_it_is_forgotten(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    node = look(table, root(table), "a")
    table.pin(node)
    os.unlink(tmp_path / "a")
    table.removed(root(table), b"a")
    assert os.pread(table.file(node), 5, 0) == b"x"
    descriptor = node.pinned
    table.forget(node.id, 1)
    assert errors(table.node, node.id) == errno.ESTALE
    assert errors(os.fstat, descriptor) == errno.EBADF


def test_node_is_forgotten_only_when_all_lookups_are(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    node = look(table, root(table), "a")
    look(table, root(table), "a")
    table.forget(node.id, 1)
    assert table.node(node.id) is node
    table.forget(node.id, 1)
    assert errors(table.node, node.id) == errno.ESTALE
    table.forget(FIRST_SHARE, 5)
    assert table.node(FIRST_SHARE)


def test_descriptors_are_bounded(table: NodeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "DIRECTORIES", 4)
    monkeypatch.setattr(nodes_module, "FILES", 3)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    parent, path, chain = root(table), tmp_path, []
    for number in range(20):
        path = path / str(number)
        path.mkdir()
        (path / "f").write_text(str(number))
        parent = look(table, parent, str(number))
        chain.append(look(table, parent, "f"))
    for number in (19, 0, 10, 19, 5):
        assert os.pread(table.file(chain[number]), 9, 0) == str(number).encode()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 7


def test_fifo_in_a_files_place_does_not_block(table: NodeTable, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    node = look(table, root(table), "a")
    os.unlink(tmp_path / "a")
    os.mkfifo(tmp_path / "a")
    assert errors(table.file, node) == errno.ESTALE
    assert errors(table.file, look(table, root(table), "a")) == errno.EBADF


# -- operations ---------------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "share").mkdir()
    shares = [Share("rw", str(tmp_path / "share"), "/rw"), Share("ro", str(tmp_path / "share"), "/ro", readonly=True)]
    made = Session(shares)
    yield made
    made.table.close()


def ask(session: Session, opcode: int, node: int, body: bytes = b"") -> bytes:
    answer = session.answer(Request(opcode, 1, node, 0, 0, memoryview(body)))
    return b"" if answer is None else bytes(answer)


def node_of(answer: bytes) -> int:
    return int(p.ENTRY_OUT.unpack_from(answer)[0])


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"../etc", b"/etc"])
def test_names_that_lead_out_are_refused(session: Session, name: bytes) -> None:
    for opcode, before in ((Opcode.LOOKUP, b""), (Opcode.UNLINK, b""), (Opcode.MKDIR, p.MKDIR_IN.pack(0o755, 0))):
        assert errors(ask, session, opcode, FIRST_SHARE, before + name + b"\0") == errno.EINVAL


def test_questions_that_are_asked_once(session: Session) -> None:
    for opcode in (Opcode.OPEN, Opcode.FLUSH, Opcode.GETXATTR, Opcode.POLL):
        assert errors(ask, session, opcode, FIRST_SHARE) == errno.ENOSYS
    assert errors(ask, session, Opcode.IOCTL, FIRST_SHARE) == errno.ENOTTY


def test_devices_are_not_made(session: Session) -> None:
    body = p.MKNOD_IN.pack(stat.S_IFCHR | 0o666, 0x103, 0, 0) + b"null\0"
    assert errors(ask, session, Opcode.MKNOD, FIRST_SHARE, body) == errno.EPERM


def test_listing_stays_what_it_was(session: Session, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "share" / f"{number:03}").touch()
    offset, found = 0, []
    while answer := ask(session, Opcode.READDIR, FIRST_SHARE, p.READ_IN.pack(0, offset, 512, 0, 0, 0, 0)):
        (tmp_path / "share" / f"new {offset}").touch()
        while answer:
            _, offset, length, _ = p.DIRENT.unpack_from(answer)
            found.append(answer[24 : 24 + length])
            answer = answer[24 + length + -length % 8 :]
    assert sorted(found) == sorted([b".", b"..", *(b"%03d" % number for number in range(100))])


def test_new_session_forgets_the_old_one_but_not_the_shares(session: Session, tmp_path: Path) -> None:
    (tmp_path / "share" / "a").touch()
    assert node_of(ask(session, Opcode.LOOKUP, 1, b"rw\0")) == FIRST_SHARE
    old = node_of(ask(session, Opcode.LOOKUP, FIRST_SHARE, b"a\0"))
    ask(session, Opcode.INIT, 0, p.INIT_IN.pack(7, 40, 0, 0))
    assert errors(ask, session, Opcode.GETATTR, old, bytes(16)) == errno.ESTALE
    assert node_of(ask(session, Opcode.LOOKUP, FIRST_SHARE, b"a\0")) > old


def test_share_that_was_made_anew(session: Session, tmp_path: Path) -> None:
    ask(session, Opcode.LOOKUP, 1, b"rw\0")
    os.rename(tmp_path / "share", tmp_path / "gone")
    assert errors(ask, session, Opcode.LOOKUP, 1, b"rw\0") == errno.ENOENT
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "new").touch()
    ask(session, Opcode.LOOKUP, 1, b"rw\0")
    assert node_of(ask(session, Opcode.LOOKUP, FIRST_SHARE, b"new\0"))


def test_no_rename_between_shares(session: Session, tmp_path: Path) -> None:
    (tmp_path / "share" / "a").touch()
    body = p.RENAME_IN.pack(FIRST_SHARE + 1) + b"a\0b\0"
    assert errors(ask, session, Opcode.RENAME, FIRST_SHARE, body) == errno.EXDEV


def test_rename_that_must_not_replace(session: Session, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "share" / name).write_text(name)
    (tmp_path / "share" / "d").mkdir()
    before = p.RENAME2_IN.pack(FIRST_SHARE, p.RENAME_NOREPLACE, 0)
    assert errors(ask, session, Opcode.RENAME2, FIRST_SHARE, before + b"a\0b\0") == errno.EEXIST
    assert errors(ask, session, Opcode.RENAME2, FIRST_SHARE, before + b"d\0b\0") == errno.EEXIST
    ask(session, Opcode.RENAME2, FIRST_SHARE, before + b"a\0c\0")
    assert sorted(os.listdir(tmp_path / "share")) == ["b", "c", "d"]
    whiteout = p.RENAME2_IN.pack(FIRST_SHARE, 4, 0) + b"b\0c\0"
    assert errors(ask, session, Opcode.RENAME2, FIRST_SHARE, whiteout) == errno.EINVAL


def test_exchanged_names(session: Session, tmp_path: Path) -> None:
    (tmp_path / "share" / "d").mkdir()
    for name in ("a", "d/b"):
        (tmp_path / "share" / name).write_text(name)
    one = node_of(ask(session, Opcode.LOOKUP, FIRST_SHARE, b"a\0"))
    folder = node_of(ask(session, Opcode.LOOKUP, FIRST_SHARE, b"d\0"))
    other = node_of(ask(session, Opcode.LOOKUP, folder, b"b\0"))
    exchange = p.RENAME2_IN.pack(folder, p.RENAME_EXCHANGE, 0)
    ask(session, Opcode.RENAME2, FIRST_SHARE, exchange + b"a\0b\0")
    assert (tmp_path / "share" / "a").read_text() == "d/b"
    assert node_of(ask(session, Opcode.LOOKUP, FIRST_SHARE, b"a\0")) == other
    assert node_of(ask(session, Opcode.LOOKUP, folder, b"b\0")) == one
    for missing in (b"a\0none\0", b"none\0b\0"):
        assert errors(ask, session, Opcode.RENAME2, FIRST_SHARE, exchange + missing) == errno.ENOENT
    assert sorted(os.listdir(tmp_path / "share")) == ["a", "d"] and os.listdir(tmp_path / "share" / "d") == ["b"]
