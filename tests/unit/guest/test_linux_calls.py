"""The doors to C that need no privilege: errors, names, watches."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

import pytest

from pyboxd.linux import caps, libc, mount, process
from pyboxd.linux import constants as k
from pyboxd.linux.inotify import Inotify


def test_an_error_names_the_call_and_the_path() -> None:
    with pytest.raises(OSError, match="mount: ") as caught:
        mount.mount("none", "/no/such/place", "tmpfs")
    assert caught.value.filename == "/no/such/place"
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)
    with pytest.raises(FileNotFoundError) as missing:
        mount.openat2(k.AT_FDCWD, "/no/such/file", os.O_RDONLY, 0)
    assert str(missing.value) == "[Errno 2] openat2: No such file or directory: '/no/such/file'"
    with pytest.raises(OSError, match="prctl: Invalid argument") as invalid:
        process.prctl(-1)
    assert invalid.value.filename is None


def test_a_call_that_no_table_has_is_an_error() -> None:
    with pytest.raises(OSError, match="nonsense: no number known"):
        libc.syscall_number("nonsense")


def test_a_library_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="libnonsense"):
        libc.load_library("libnonsense.so.9")


def test_rules_of_resolution_are_in_force(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    directory = os.open(tmp_path, os.O_PATH)
    try:
        for path, rules, reason in (
            ("link", k.RESOLVE_NO_SYMLINKS, errno.ELOOP),
            ("..", k.RESOLVE_BENEATH, errno.EXDEV),
            ("link", k.RESOLVE_BENEATH, errno.EXDEV),
            ("link", k.RESOLVE_IN_ROOT, errno.ENOENT),
        ):
            with pytest.raises(OSError) as caught:
                os.close(mount.openat2(directory, path, os.O_PATH, rules))
            assert caught.value.errno == reason
        opened = mount.openat2(directory, "/inside/../../inside", os.O_PATH, k.RESOLVE_IN_ROOT)
        assert os.readlink(f"/proc/self/fd/{opened}") == str(tmp_path / "inside")
        assert not os.get_inheritable(opened)
        os.close(opened)
    finally:
        os.close(directory)


def test_kinds_of_file_systems() -> None:
    descriptor = os.open("/proc", os.O_PATH)
    assert mount.filesystem_magic(descriptor) == k.PROC_SUPER_MAGIC
    os.close(descriptor)


def test_descriptors_are_closed_but_one() -> None:
    child = os.fork()
    if child == 0:
        kept = os.open("/", os.O_PATH)
        others = [os.open("/", os.O_PATH) for _ in range(3)]
        process.close_from(3, keep=others[1])
        left = {int(name) for name in os.listdir("/proc/self/fd")}
        os._exit(0 if left & {kept, *others} == {others[1]} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_capability_masks() -> None:
    assert caps.mask_of(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]) == 1 | 1 << 40
    assert caps.mask_of(caps.ALL) == (1 << 41) - 1
    with pytest.raises(KeyError):
        caps.mask_of(["CAP_NONSENSE"])
    status = Path("/proc/self/status").read_text()
    shown = next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm"))
    assert caps.permitted() == int(shown, 16)


def test_changes_of_files_are_told(tmp_path: Path) -> None:
    inotify = Inotify()
    try:
        assert inotify.read() == []
        watch = inotify.add(str(tmp_path), k.IN_CREATE | k.IN_MODIFY)
        (tmp_path / "new").write_text("x")
        assert select.select([inotify], [], [], 5)[0] == [inotify]
        events = inotify.read()
        assert (events[0].watch, events[0].name, events[0].mask) == (watch, "new", k.IN_CREATE)
        inotify.remove(watch)
        with pytest.raises(FileNotFoundError, match="inotify_add_watch"):
            inotify.add(str(tmp_path / "nothing"), k.IN_MODIFY)
    finally:
        inotify.close()
