"""Archives from containers, put on this computer: where files go, and that none goes elsewhere."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from pybox.app.extraction import extract
from pybox.errors import PyboxError


def archive(*members: tuple[str, bytes, str | bytes]) -> io.BytesIO:
    """Members as (name, type, content or link)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, 0o4755, 1_000_000_000
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                tar.addfile(info)
    data.seek(0)
    return data


TREE = (
    ("top", tarfile.DIRTYPE, ""),
    ("top/file", tarfile.REGTYPE, b"text"),
    ("top/link", tarfile.SYMTYPE, "file"),
    ("top/same", tarfile.LNKTYPE, "top/file"),
    ("top/sub", tarfile.DIRTYPE, ""),
    ("top/sub/empty", tarfile.REGTYPE, b""),
)


def test_a_tree_under_another_name(tmp_path: Path) -> None:
    assert extract(archive(*TREE), tmp_path / "new", inside=False) == []
    new = tmp_path / "new"
    assert (new / "file").read_bytes() == b"text"
    assert (new / "link").readlink() == Path("file")
    assert (new / "same").stat().st_ino == (new / "file").stat().st_ino
    assert (new / "sub/empty").read_bytes() == b""
    for path in (new, new / "file", new / "sub"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755  # without the bit that gives rights
        assert path.stat().st_mtime == 1_000_000_000


def test_the_content_of_a_tree_and_the_folder_it_goes_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    content = archive(("./", tarfile.DIRTYPE, ""), ("./a", tarfile.REGTYPE, b"1"), ("b", tarfile.REGTYPE, b"2"))
    extract(content, tmp_path, inside=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_files_are_replaced_and_folders_are_kept(tmp_path: Path) -> None:
    extract(archive(*TREE), tmp_path / "new", inside=False)
    (tmp_path / "new" / "own").write_text("mine")
    (tmp_path / "new" / "file").write_text("older")
    extract(archive(*TREE), tmp_path / "new", inside=False)
    assert (tmp_path / "new" / "file").read_bytes() == b"text"
    assert (tmp_path / "new" / "own").read_text() == "mine"


def test_kinds_are_not_exchanged(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PyboxError, match="cannot overwrite non-directory"):
        extract(archive(("x", tarfile.DIRTYPE, "")), tmp_path / "file", inside=False)
    with pytest.raises(PyboxError, match="cannot overwrite directory"):
        extract(archive(("folder", tarfile.REGTYPE, b"")), tmp_path, inside=True)


def test_a_link_that_stands_in_the_way_of_a_file_is_replaced(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").symlink_to(outside)
    extract(archive(("x", tarfile.REGTYPE, b"new")), tmp_path / "in", inside=True)
    assert outside.read_text() == "untouched"
    assert (tmp_path / "in" / "x").read_text() == "new"


@pytest.mark.parametrize(
    "members",
    [
        (("top/../../evil", tarfile.REGTYPE, b"x"),),
        (("/evil", tarfile.REGTYPE, b"x"),),
        (("top", tarfile.DIRTYPE, ""), ("top/way", tarfile.SYMTYPE, "../.."), ("top/way/evil", tarfile.REGTYPE, b"x")),
        (("top", tarfile.SYMTYPE, ".."), ("top/evil", tarfile.REGTYPE, b"x")),
        (("top", tarfile.SYMTYPE, ".."), ("top/evil/deep", tarfile.REGTYPE, b"x")),
        (("top", tarfile.DIRTYPE, ""), ("top/evil", tarfile.LNKTYPE, "../secret")),
        (("top", tarfile.DIRTYPE, ""), ("top/w", tarfile.SYMTYPE, "../.."), ("top/evil", tarfile.LNKTYPE, "top/w/secret")),
        (("top", tarfile.DIRTYPE, ""), ("top/w", tarfile.SYMTYPE, ".."), ("top/w", tarfile.DIRTYPE, "")),
    ],
)
def test_nothing_leaves_the_folder(tmp_path: Path, members: tuple[tuple[str, bytes, str | bytes], ...]) -> None:
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    with pytest.raises(PyboxError):
        extract(archive(*members), place / "top", inside=False)
    assert not list(tmp_path.rglob("evil*"))
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "a"}


def test_a_hard_link_to_a_link_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    members = (("l", tarfile.SYMTYPE, str(tmp_path / "secret")), ("h", tarfile.LNKTYPE, "l"), ("h", tarfile.REGTYPE, b"x"))
    (tmp_path / "in").mkdir()
    extract(archive(*members), tmp_path / "in", inside=True)
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_pipes_are_made_and_devices_are_named(tmp_path: Path) -> None:
    left_out = extract(archive(("p", tarfile.FIFOTYPE, ""), ("null", tarfile.CHRTYPE, "")), tmp_path, inside=True)
    assert left_out == ["null"]
    assert stat.S_ISFIFO(os.lstat(tmp_path / "p").st_mode)


def test_an_archive_that_breaks_off(tmp_path: Path) -> None:
    data = archive(("f", tarfile.REGTYPE, os.urandom(100_000))).getvalue()[:60_000]
    with pytest.raises(tarfile.ReadError):
        extract(io.BytesIO(data), tmp_path, inside=True)
