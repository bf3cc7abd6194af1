"""Layers with the real mkfs.erofs, mounts and overlayfs. Needs root."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pyboxd.database import Database
from pyboxd.errors import InvalidArgument
from pyboxd.image.layerstore import LayerStore
from pyboxd.image.layeruse import bury
from pyboxd.image.model import HelperResult, HistoryEntry, Image
from pyboxd.image.room import ImageRoom
from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount, umount2
from pyboxd.locations import DATA
from pyboxd.model import ImageConfig

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.ismount(DATA), reason="needs the machine that tests/support/guest_vm.py boots"
)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep


class Helpers:
    async def run_helper(self, args: Sequence[str], stdin: bytes | None = None, timeout: float = 0) -> HelperResult:
        done = subprocess.run(args, input=stdin, capture_output=True, check=False)
        return HelperResult(done.returncode, done.stdout, done.stderr)


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.database = Database(str(folder / "engine.db"))
        self.layers = LayerStore(
            Helpers(), root=str(folder / "layers"), temporary=str(self.temporary), mounts=str(folder / "mounts")
        )
        self.images = ImageRoom(self.database, self.layers, architecture="amd64")
        self.overlays: list[str] = []

    def overlay(self, lower: Sequence[str], name: str) -> Path:
        """Mount an overlay over `lower`; its merged folder. The changes are in <folder>/<name>/upper."""
        base = self.folder / name
        for part in ("upper", "work", "merged"):
            (base / part).mkdir(parents=True)
        options = f"lowerdir={':'.join(lower)},upperdir={base}/upper,workdir={base}/work"
        mount("overlay", f"{base}/merged", "overlay", 0, options)
        self.overlays.append(f"{base}/merged")
        return base / "merged"

    def close(self) -> None:
        for target in self.overlays[::-1]:
            umount2(target, k.MNT_DETACH)
        for diff_id in self.layers.known():
            shutil.rmtree(self.layers.detach(diff_id))
        self.database.close()

    def commit(self, parent: Image | None, upper: Path) -> Image:
        return asyncio.run(
            self.images.commit(parent, str(upper), ImageConfig(), HistoryEntry(created="2024-01-01T00:00:00Z"))
        )

    def add(self, data: bytes) -> str:
        return asyncio.run(self.layers.add(lambda _: iter((data,)))).diff_id


@pytest.fixture
def lab() -> Iterator[Lab]:
    folder = Path(DATA) / f"image-test-{time.monotonic_ns()}"
    folder.mkdir()
    found = Lab(folder)
    yield found
    found.close()


def tar(*members: tuple[str, dict[str, object], bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, fields, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def folder(name: str) -> tuple[str, dict[str, object], bytes]:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755}, b""


def base() -> bytes:
    capability = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    return tar(
        folder("dir"),
        ("dir/gone", {}, b"old"),
        ("dir/kept", {}, b"kept"),
        folder("opaque"),
        ("opaque/hidden", {}, b"x"),
        ("file", {"mode": 0o4755, "uid": 1000, "gid": 70000, "mtime": 1234567890}, b"content" * 1000),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "file"}, b""),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "dir/kept"}, b""),
        ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}, b""),
        ("pipe", {"type": tarfile.FIFOTYPE}, b""),
        ("bound", {"pax_headers": capability, "mode": 0o755}, b"program"),
        ("n" * 200, {}, b"long"),
    )


def test_a_layers_files_are_what_its_tar_says(lab: Lab) -> None:
    found = Path(lab.layers.mount(lab.add(base())))
    assert lab.layers.mount(lab.layers.known()[0]) == str(found), "mounted once"
    status = (found / "file").stat()
    assert (found / "file").read_bytes() == b"content" * 1000
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o4755, 1000, 70000, 1234567890)
    assert status.st_nlink == 2 and status.st_ino == (found / "hard").stat().st_ino
    assert os.readlink(found / "link") == "dir/kept" and (found / "link").read_bytes() == b"kept"
    assert (found / "null").stat().st_rdev == os.makedev(1, 3) and stat.S_ISFIFO((found / "pipe").stat().st_mode)
    assert os.getxattr(found / "bound", "security.capability") == CAPABILITY
    assert (found / ("n" * 200)).read_bytes() == b"long"
    with pytest.raises(OSError, match="Read-only"):
        (found / "new").write_bytes(b"")


def test_whiteouts_and_opaque_folders_hide_what_is_below(lab: Lab) -> None:
    top = tar(
        folder("dir"), ("dir/.wh.gone", {}, b""), ("dir/new", {}, b"new"),
        folder("opaque"), ("opaque/.wh..wh..opq", {}, b""), ("opaque/seen", {}, b"y"), (".wh.link", {}, b""),
    )  # fmt: skip
    lower = [lab.layers.mount(lab.add(data)) for data in (top, base())]
    merged = lab.overlay(lower, "c")
    assert sorted(os.listdir(merged / "dir")) == ["kept", "new"]
    assert os.listdir(merged / "opaque") == ["seen"]
    assert not os.path.lexists(merged / "link") and (merged / "hard").exists()


def test_a_commit_brings_back_what_was_changed(lab: Lab) -> None:
    first = lab.overlay([lab.layers.mount(lab.add(tar(folder("etc"))))], "first")
    (first / "dir").mkdir()
    (first / "dir" / "a").write_bytes(b"a")
    (first / "dir" / "b").write_bytes(b"b")
    (first / "tool").write_bytes(b"tool")
    os.setxattr(first / "tool", "security.capability", CAPABILITY)
    os.setxattr(first / "tool", "user.binary", bytes(range(256)))
    os.link(first / "tool", first / "again")
    parent = lab.commit(None, lab.folder / "first" / "upper")
    lower = asyncio.run(lab.images.mount_layers(parent))
    second = lab.overlay(lower, "second")
    (second / "dir" / "a").unlink()
    (second / "dir" / "b").write_bytes(b"changed")
    (second / "tool").unlink()
    (second / "tool").mkdir()
    image = lab.commit(parent, lab.folder / "second" / "upper")
    with tarfile.open(lab.layers.archive(image.layers[-1])) as archive:
        names = archive.getnames()
    assert "dir/.wh.a" in names and not any(name.rpartition("/")[2] == "a" for name in names)
    merged = lab.overlay(asyncio.run(lab.images.mount_layers(image)), "third")
    assert os.listdir(merged / "dir") == ["b"] and (merged / "dir" / "b").read_bytes() == b"changed"
    assert (merged / "tool").is_dir() and (merged / "again").read_bytes() == b"tool"
    assert os.getxattr(merged / "again", "security.capability") == CAPABILITY
    assert os.getxattr(merged / "again", "user.binary") == bytes(range(256))


def test_a_folder_made_anew_is_opaque(lab: Lab) -> None:
    lower = lab.layers.mount(lab.add(tar(folder("d"), ("d/old", {}, b""))))
    merged = lab.overlay([lower], "c")
    (merged / "d" / "old").unlink()
    (merged / "d").rmdir()
    (merged / "d").mkdir()
    (merged / "d" / "new").write_bytes(b"")
    image = lab.commit(None, lab.folder / "c" / "upper")
    with tarfile.open(lab.layers.archive(image.layers[0])) as archive:
        assert archive.getnames() == ["d", "d/.wh..wh..opq", "d/new"]
    again = lab.overlay([lab.layers.mount(image.layers[0]), lower], "again")
    assert os.listdir(again / "d") == ["new"]


def test_a_removed_layer_stays_for_who_uses_it(lab: Lab) -> None:
    diff_id = lab.add(base())
    merged = lab.overlay([lab.layers.mount(diff_id)], "c")
    shutil.rmtree(lab.layers.detach(diff_id))
    assert not lab.layers.has(diff_id) and lab.layers.known() == []
    assert (merged / "file").read_bytes() == b"content" * 1000
    assert lab.add(base()) == diff_id, "it can come back meanwhile"
    assert (Path(lab.layers.mount(diff_id)) / "dir" / "kept").read_bytes() == b"kept"


def test_sweep_takes_what_a_crash_left(lab: Lab) -> None:
    lab.layers.mount(lab.add(base()))
    asyncio.run(bury(lab.images.sweep()))
    assert lab.layers.known() == [] and os.listdir(lab.folder / "mounts") == [] and os.listdir(lab.temporary) == []


@pytest.mark.parametrize("name", ["../escaped", "dir/../../escaped", "dir/.wh..", ".wh."])
def test_hostile_layers_leave_nothing(lab: Lab, name: str) -> None:
    with pytest.raises(InvalidArgument):
        lab.add(tar(folder("dir"), (name, {}, b"")))
    assert lab.layers.known() == [] and os.listdir(lab.temporary) == []
    assert not (lab.folder / "escaped").exists()


def test_links_in_a_layer_stay_what_they_are(lab: Lab) -> None:
    """A file "through" a symbolic link is a file of the layer or a refused layer, never one of the machine."""
    data = tar(("out", {"type": tarfile.SYMTYPE, "linkname": "/run"}, b""), ("out/escaped", {}, b"x"))
    try:
        found = lab.layers.mount(lab.add(data))
    except InvalidArgument:
        assert os.listdir(lab.temporary) == []
    else:
        assert os.path.lexists(f"{found}/out")
    assert not os.path.exists("/run/escaped")
    with pytest.raises(InvalidArgument):
        lab.add(tar(("hard", {"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"}, b"")))
    with pytest.raises(InvalidArgument):
        lab.add(tar(("hard", {"type": tarfile.LNKTYPE, "linkname": "nowhere"}, b"")))


def test_folders_that_are_only_in_names_are_not_writable_for_all(lab: Lab) -> None:
    below = lab.layers.mount(lab.add(tar(folder("usr"), folder("usr/bin"), ("usr/bin/sh", {"mode": 0o755}, b"sh"))))
    above = lab.layers.mount(lab.add(tar(("usr/bin/tool", {}, b"tool"), ("usr/.wh.gone", {}, b""))))
    merged = lab.overlay([above, below], "whole")
    for place in (Path(above), Path(above) / "usr", Path(above) / "usr/bin", merged / "usr", merged / "usr/bin"):
        status = place.stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o755, 0, 0, 0), place
    assert (merged / "usr/bin/tool").read_bytes() == b"tool" and (merged / "usr/bin/sh").read_bytes() == b"sh"


def test_an_archive_may_just_end(lab: Lab) -> None:
    whole = tar(("file", {}, b"content" * 1000))
    data = whole[: 512 + 7168]
    assert whole[len(data) :].strip(b"\0") == b""
    diff_id = lab.add(data)
    assert (Path(lab.layers.mount(diff_id)) / "file").read_bytes() == b"content" * 1000
    assert Path(lab.layers.archive(diff_id)).read_bytes() == data


def test_an_empty_layer_can_be_mounted(lab: Lab) -> None:
    for data in (bytes(1024), bytes(10240)):
        assert os.listdir(lab.layers.mount(lab.add(data))) == []
