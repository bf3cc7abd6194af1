"""Paths inside a root: no link, no matter where it points, leads outside. Needs no root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyboxd.runtime import rootpath


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
    assert place(rootpath.target(descriptor, path, directory=True)) == str(root / expected)
    assert (root / expected).is_dir()
    assert os.listdir(root.parent / "outside") == []


def test_a_file_is_made_in_directories_that_are_made(root: Path, descriptor: int) -> None:
    made = rootpath.target(descriptor, "/a/b/file", directory=False)
    assert place(made) == str(root / "a/b/file")
    assert (root / "a/b/file").is_file()
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolv.conf")
    assert place(rootpath.target(descriptor, "/etc/resolv.conf", directory=False)) == str(root / "run/systemd/resolv.conf")


def test_links_that_go_round_are_an_error(root: Path, descriptor: int) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="levels of symbolic links"):
        rootpath.target(descriptor, "/a/x", directory=True)
    (root / "loop").symlink_to("missing/../loop")
    with pytest.raises(OSError, match="levels of symbolic links"):
        rootpath.target(descriptor, "/loop", directory=True)


def test_a_file_in_the_way_is_an_error(root: Path, descriptor: int) -> None:
    (root / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        rootpath.target(descriptor, "/file/x", directory=True)


def test_magic_links_are_not_followed(root: Path) -> None:
    process = os.open("/proc/self", os.O_PATH)
    outside = os.open(root.parent, os.O_PATH)
    try:
        with pytest.raises(OSError, match="levels of symbolic links"):
            rootpath.open_in_root(process, f"/fd/{outside}")
        with pytest.raises(OSError, match="levels of symbolic links"):
            rootpath.open_in_root(process, "/root")
    finally:
        os.close(process)
        os.close(outside)


@pytest.mark.parametrize("link", ["/etc", "etc", "/nowhere", "../../outside", "."])
def test_the_runtimes_own_mounts_want_an_ordinary_directory(root: Path, descriptor: int, link: str) -> None:
    (root / "proc").symlink_to(link)
    with pytest.raises(OSError, match='"/proc" must be mounted on ordinary directory'):
        rootpath.ordinary_directory(descriptor, "/proc")
    (root / "sys").write_text("a file")
    with pytest.raises(OSError, match='"/sys" must be mounted on ordinary directory'):
        rootpath.ordinary_directory(descriptor, "/sys")


def test_an_ordinary_directory_is_made(root: Path, descriptor: int) -> None:
    assert place(rootpath.ordinary_directory(descriptor, "/proc")) == str(root / "proc")
    assert place(rootpath.ordinary_directory(descriptor, "/new/deep")) == str(root / "new/deep")


def test_a_link_in_the_middle_is_no_ordinary_directory(root: Path, descriptor: int) -> None:
    (root / "dev").symlink_to("etc")
    with pytest.raises(OSError, match="ordinary directory"):
        rootpath.ordinary_directory(descriptor, "/dev/pts")
