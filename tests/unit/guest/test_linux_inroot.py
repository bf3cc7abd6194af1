"""Paths inside a root: no link, no matter where it points, leads outside. Needs no root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyboxd.linux.inroot import make_in_root, open_in_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/etc").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def descriptor(root: Path) -> Iterator[int]:
    opened = os.open(root, os.O_PATH)
    before = set(os.listdir("/proc/self/fd"))
    yield opened
    assert set(os.listdir("/proc/self/fd")) == before  # nothing was left open
    os.close(opened)


def place(made: int) -> str:
    """The path behind a descriptor, which is closed."""
    path = os.readlink(f"/proc/self/fd/{made}")
    os.close(made)
    return path


@pytest.mark.parametrize(
    ("link", "path", "expected"),
    [
        (None, "/a/b/c", "a/b/c"),
        (None, "a//./b/", "a/b"),
        (None, "/a/../../../../b", "b"),
        ("/", "/link/x", "x"),
        ("../../../../../..", "/link/x", "x"),
        ("/etc", "/link/x", "etc/x"),
        ("etc", "/link/x", "etc/x"),
        ("/not/there/yet", "/link", "not/there/yet"),
        ("../outside", "/link/x", "outside/x"),
        ("/../../outside/new", "/link", "outside/new"),
    ],
)
def test_targets_are_made_inside(root: Path, descriptor: int, link: str | None, path: str, expected: str) -> None:
    if link:
        (root / "link").symlink_to(link)
    assert place(make_in_root(descriptor, path)) == str(root / expected)
    assert (root / expected).is_dir()
    assert os.listdir(root.parent / "outside") == []


def test_a_file_is_made_in_directories_that_are_made(root: Path, descriptor: int) -> None:
    made = make_in_root(descriptor, "/a/b/file", directory=False)
    assert place(made) == str(root / "a/b/file")
    assert (root / "a/b/file").is_file()
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolv.conf")
    assert place(make_in_root(descriptor, "/etc/resolv.conf", directory=False)) == str(root / "run/systemd/resolv.conf")


def test_links_that_go_round_are_an_error(root: Path, descriptor: int) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="levels of symbolic links"):
        make_in_root(descriptor, "/a/x")
    (root / "loop").symlink_to("missing/../loop")
    with pytest.raises(OSError, match="levels of symbolic links"):
        make_in_root(descriptor, "/loop")


def test_a_file_in_the_way_is_an_error(root: Path, descriptor: int) -> None:
    (root / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make_in_root(descriptor, "/file/x")


def test_magic_links_are_not_followed(root: Path) -> None:
    process = os.open("/proc/self", os.O_PATH)
    outside = os.open(root.parent, os.O_PATH)
    try:
        with pytest.raises(OSError, match="levels of symbolic links"):
            open_in_root(process, f"/fd/{outside}")
        with pytest.raises(OSError, match="levels of symbolic links"):
            open_in_root(process, "/root")
    finally:
        os.close(process)
        os.close(outside)


def test_new_directories_belong_to_whom_they_shall(root: Path, descriptor: int) -> None:
    before = os.umask(0o077)
    try:
        os.close(make_in_root(descriptor, "/a/b", owner=(os.getuid(), os.getgid())))
        os.close(make_in_root(descriptor, "/c/d"))
    finally:
        os.umask(before)
    for name, mode in (("a", 0o755), ("a/b", 0o755), ("c", 0o700), ("c/d", 0o700)):
        assert stat.S_IMODE((root / name).stat().st_mode) == mode
    assert (root / "a/b").stat().st_uid == os.getuid()
