"""The file formats: .deb, cpio, kernel packages."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybox_image import cpio, guestcode, kernel
from pybox_image.debian import deb
from pybox_image.errors import ImageError
from tests.unit.images.samples import ar, make_deb, module, tar, write

ENTRIES = [
    cpio.folder("d", 0o1777),
    cpio.file("d/a", b"hello", 0o640),
    cpio.file("d/empty", b""),
    cpio.link("l", "d/a"),
    cpio.Entry("tty", stat.S_IFCHR | 0o600, b"", 0, 5, (5, 1)),
]


def test_a_package_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.deb", make_deb({"usr/bin/a": b"program", "usr/bin/b": "a"}))
    with deb.data_archive(path) as archive:
        assert archive.getnames() == ["./usr/bin/a", "./usr/bin/b"]
    with deb.control_archive(path) as archive:
        assert archive.getnames() == ["./control"]


def test_every_compression(tmp_path: Path) -> None:
    import zstandard

    plain = tar({"x": b"y"})
    for suffix, data in {
        "": plain,
        ".gz": gzip.compress(plain),
        ".xz": lzma.compress(plain),
        ".zst": zstandard.compress(plain),
    }.items():
        path = write(tmp_path / "a.deb", ar({"debian-binary": b"2.0\n", f"data.tar{suffix}/": data}))
        with deb.data_archive(path) as archive:
            assert archive.getnames() == ["./x"]


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", make_deb({"a": b"b"})[:-1000], ar({"debian-binary": b"2.0\n"}), ar({"data.tar.7z": b""})],
    ids=["empty", "other", "cut", "no data", "compression"],
)
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ImageError, match="not a Debian package"):
        deb.data_archive(write(tmp_path / "a.deb", content))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_dpkg_reads_what_the_tests_make(tmp_path: Path) -> None:
    path = write(tmp_path / "a.deb", make_deb({"usr/bin/a": b"program"}))
    listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(listing)) as archive:
        assert archive.getnames() == ["./usr/bin/a"]


def test_cpio_round_trip() -> None:
    assert list(cpio.unpack(cpio.pack(ENTRIES))) == ENTRIES


def test_archives_one_behind_the_other() -> None:
    both = cpio.pack(ENTRIES[:2]) + bytes(512) + cpio.pack(ENTRIES[2:])
    assert list(cpio.unpack(both)) == ENTRIES


def test_cut_archives_are_refused() -> None:
    archive = cpio.pack(ENTRIES)
    with pytest.raises(ValueError, match="cpio"):
        list(cpio.unpack(b"x" * 200))
    with pytest.raises(ValueError, match="cut short"):
        list(cpio.unpack(archive[: archive.index(b"hello") + 2]))


PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1)


@given(st.dictionaries(PATHS, st.binary(max_size=300)))
def test_any_content_survives(files: Mapping[str, bytes]) -> None:
    entries = [cpio.file(name, data) for name, data in files.items() if name != "TRAILER!!!"]
    assert list(cpio.unpack(cpio.pack(entries))) == entries


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_unpacks_what_we_pack(tmp_path: Path) -> None:
    archive = cpio.pack(ENTRIES[:4])
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "d/a").read_bytes() == b"hello"
    assert stat.S_IMODE((tmp_path / "d/a").stat().st_mode) == 0o640
    assert (tmp_path / "l").readlink() == Path("d/a")


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_we_unpack_what_cpio_packs(tmp_path: Path) -> None:
    write(tmp_path / "d/a", b"hello")
    (tmp_path / "l").symlink_to("d/a")
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], input=b"d\nd/a\nl\n", cwd=tmp_path, capture_output=True, check=True
    ).stdout
    found = {entry.path: entry.data for entry in cpio.unpack(archive)}
    assert found == {"d": b"", "d/a": b"hello", "l": b"d/a"}


def test_guest_code_is_packed_without_leftovers(tmp_path: Path) -> None:
    write(tmp_path / "pyboxd/__init__.py", b"")
    write(tmp_path / "pyboxd/api/x.py", b"x = 1\n")
    write(tmp_path / "pyboxd/api/__pycache__/x.cpython-311.pyc", b"old")
    write(tmp_path / "other/y.py", b"")
    packed = guestcode.pack(tmp_path)
    found = {entry.path: entry.data for entry in cpio.unpack(packed)}
    assert found["pyboxd-code/pyboxd/api/x.py"] == b"x = 1\n"
    assert not [path for path in found if "pycache" in path or "other" in path]
    assert b"/usr/lib/python3/dist-packages" in found["pyboxd-code/__main__.py"]
    assert guestcode.pack(tmp_path) == packed


def kernel_package(modules: Mapping[str, bytes], image: bytes = b"kernel", builtin: bytes = b"") -> tarfile.TarFile:
    base = "usr/lib/modules/6.12-test"
    files: dict[str, bytes | str] = {"boot/vmlinuz-6.12-test": image, f"{base}/modules.builtin": builtin}
    files |= {f"{base}/{path}.xz": lzma.compress(data) for path, data in modules.items()}
    return tarfile.open(fileobj=io.BytesIO(tar(files)))


MODULES = {
    "kernel/net/bridge/bridge.ko": module(depends="llc,stp", alias=["rtnl-link-bridge"]),
    "kernel/net/802/stp.ko": module(depends="llc"),
    "kernel/net/llc/llc.ko": module(depends=""),
    "kernel/net/netfilter/nf-tables.ko": module(depends="nfnetlink,built-in"),
    "kernel/net/netfilter/nfnetlink.ko": module(depends=""),
    "kernel/fs/ext4/ext4.ko": module(depends="", softdep=["pre: crc32c-x absent post: llc"]),
    "kernel/lib/crc32c-x.ko": module(softdep="pre: ext4"),
}


def test_module_closure_is_in_load_order() -> None:
    with kernel_package(MODULES, builtin=b"kernel/lib/built-in.ko\n") as archive:
        linux = kernel.read(archive)
        assert [m.name for m in linux.closure(["bridge", "built-in".replace("-", "_")])] == ["llc", "stp", "bridge"]
        assert [m.name for m in linux.closure(["kernel/net/netfilter/*"])] == ["nfnetlink", "nf_tables"]
        assert [m.name for m in linux.closure(["ext4"])] == ["crc32c_x", "ext4"]
        with pytest.raises(ImageError, match="no module wifi"):
            linux.closure(["wifi"])
        assert (linux.release, linux.image) == ("6.12-test", b"kernel")


def test_module_tables() -> None:
    with kernel_package(MODULES) as archive:
        modules = kernel.read(archive).closure(["bridge"])
    lines = kernel.dependency_file(modules).decode().splitlines()
    # The last one is loaded first, and each line names everything that is needed.
    assert "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko" in lines
    assert "kernel/net/llc/llc.ko:" in lines
    assert kernel.alias_file(modules) == b"alias rtnl-link-bridge bridge\n"
    assert modules[0].data.startswith(b"\x7fELF")


def test_a_module_that_is_no_elf_file_is_refused() -> None:
    with pytest.raises(ImageError, match="module"):
        kernel.modinfo(b"text")


def test_the_plain_kernel_is_taken_out_of_an_efi_image() -> None:
    packed = gzip.compress(b"plain kernel")
    image = b"MZ\0\0zimg" + struct.pack("<II", 64, len(packed)) + bytes(8) + b"gzip".ljust(40, b"\0") + packed
    with kernel_package({}, image) as archive:
        assert kernel.read(archive).image == b"plain kernel"


def test_the_elf_kernel_inside_a_bzimage() -> None:
    data = b"\x28\xb5\x2f\xfd" + b"compressed"
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x248:0x250] = struct.pack("<II", 16, len(data) + 4)
    found = kernel.payload(bytes(image) + bytes(16) + data + struct.pack("<I", 1234))
    assert found == kernel.Payload(data, 1234)
    assert kernel.payload(b"\0" * 0x1000) is None
