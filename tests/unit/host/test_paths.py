"""Folders, names of machines, and socket paths that stay short."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pybox.errors import MachineError, UsageProblem
from pybox.files import write_atomically
from pybox.paths import LONGEST_SOCKET_NAME, SOCKET_PATH_LIMIT, Paths


def test_one_folder_for_everything(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PYBOX_HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1"})
    everything = [paths.settings_file, paths.machine_dir("default"), paths.image_dir("amd64"), paths.downloads]
    assert all(tmp_path in path.parents for path in everything)


def test_the_session_folder_is_for_sockets() -> None:
    paths = Paths.from_environment({"XDG_RUNTIME_DIR": "/run/user/1"})
    assert paths.socket_dir("default") == Path("/run/user/1/pybox/default")


def test_long_paths_get_a_short_stand_in(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PYBOX_HOME": str(tmp_path / ("x" * 120))})
    other = Paths.from_environment({"PYBOX_HOME": str(tmp_path / ("y" * 120))})
    name = "m" * 31
    found = paths.make_socket_dir(name)
    assert len(os.fsencode(found)) + 1 + LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT
    assert found != other.socket_dir(name)
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    for folder in (found, found.parent):
        folder.rmdir()


def test_a_folder_that_others_can_enter_is_closed(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PYBOX_HOME": str(tmp_path)})
    folder = paths.socket_dir("default")
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert stat.S_IMODE(paths.make_socket_dir("default").stat().st_mode) == 0o700


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PYBOX_HOME": str(tmp_path)})
    folder = paths.socket_dir("default")
    folder.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="belongs to somebody else"):
        paths.make_socket_dir("default")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-x", "x" * 32, "a b", "ä"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageProblem):
        Paths.from_environment({"PYBOX_HOME": "/x"}).machine_dir(name)


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"one", 0o600)
    write_atomically(path, b"two", 0o600)
    assert path.read_bytes() == b"two" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()  # a folder cannot be replaced by a file
    (tmp_path / "file" / "x").touch()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file", b"data")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
