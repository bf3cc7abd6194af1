"""The runtime's own mounts want their places without any link. Needs no root."""

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
