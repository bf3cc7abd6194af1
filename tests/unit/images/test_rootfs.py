from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest

from pybox_image.errors import ImageError
from pybox_image.rootfs import Tree
from tests.unit.images.samples import tar


def package(**files: bytes | str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(tar({name.replace("__", "/"): data for name, data in files.items()})))


def test_files_of_the_old_folders_land_below_usr() -> None:
    tree = Tree()
    tree.add_package(package(lib__x="y", bin__sh=b"shell", etc__lib__z=b"1"))
    assert "usr/bin/sh" in tree
    assert "bin/sh" in tree  # by either name
    assert tree.read("usr/bin/sh") == b"shell"
    found = {entry.path: entry for entry in tree.entries()}
    assert found["bin"].data == b"usr/bin"
    assert found["usr/lib/x"].data == b"y"
    assert "etc/lib/z" in found


def test_folders_come_before_what_is_in_them() -> None:
    tree = Tree()
    tree.file("a/b/c/file", b"")
    paths = [entry.path for entry in tree.entries()]
    assert paths.index("a") < paths.index("a/b") < paths.index("a/b/c") < paths.index("a/b/c/file")


def test_excluded_paths_are_left_out() -> None:
    tree = Tree(["usr/share/doc/*", "*.pem"])
    tree.add_package(package(usr__share__doc__a__b=b"", etc__x=b"", **{"etc__y.pem": b""}))
    assert "usr/share/doc/a/b" not in tree
    assert "etc/y.pem" not in tree
    assert "etc/x" in tree


def test_hard_links_become_symbolic_links() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        first = tarfile.TarInfo("./sbin/mke2fs")
        first.size = 3
        archive.addfile(first, io.BytesIO(b"elf"))
        second = tarfile.TarInfo("./sbin/mkfs.ext4")
        second.type, second.linkname = tarfile.LNKTYPE, "./sbin/mke2fs"
        archive.addfile(second)
    stream.seek(0)
    tree = Tree()
    with tarfile.open(fileobj=stream) as archive:
        tree.add_package(archive)
    (entry,) = tree.matching("usr/sbin/mkfs*")
    assert stat.S_ISLNK(entry.mode)
    assert entry.data == b"/usr/sbin/mke2fs"


def test_nothing_is_written_through_a_link() -> None:
    tree = Tree()
    tree.link("var/out", "/etc")
    with pytest.raises(ImageError, match="unpacked"):
        tree.add_package(package(var__out__passwd=b"root"))


def test_names_that_climb_stay_inside() -> None:
    tree = Tree()
    tree.file("../../etc/x", b"")
    assert "etc/x" in tree


def test_devices_are_refused() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        device = tarfile.TarInfo("./dev/x")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive, pytest.raises(ImageError, match="unpacked"):
        Tree().add_package(archive)


def test_a_tree_is_written_to_a_folder(tmp_path: Path) -> None:
    tree = Tree()
    tree.file("usr/bin/a", b"program", 0o4755)
    tree.link("usr/bin/b", "a")
    for _twice in range(2):
        tree.write(tmp_path / "out")
    assert (tmp_path / "out/bin/b").read_bytes() == b"program"
    assert stat.S_IMODE((tmp_path / "out/usr/bin/a").stat().st_mode) == 0o755


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ImageError) as caught:
        Tree().read("usr/bin/busybox")
    assert "usr/bin/busybox" in caught.value.details
