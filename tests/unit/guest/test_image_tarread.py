"""The tar reader against Python's tarfile, GNU tar's own output, and archives that nobody should trust."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd.image.tarread import FileReader, Kind, TarEntry, TarError, TarReader, clean_name


def archive(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def info(name: str, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(found, key, value)
    return found


def entries(data: bytes, size: int = 100) -> list[TarEntry]:
    return list(TarReader(data[start : start + size] for start in range(0, len(data), size)))


def header(name: str = "a", **fields: object) -> bytes:
    return info(name, **fields).tobuf(tarfile.USTAR_FORMAT)


def patched(block: bytes, start: int, data: bytes) -> bytes:
    """The header with some bytes replaced and the checksum put right."""
    changed = bytearray(block)
    changed[start : start + len(data)] = data
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return patched(header("x", size=len(records)), 156, kind) + records + bytes(-len(records) % 512)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read(form: int) -> None:
    data = archive(
        info("dir/", type=tarfile.DIRTYPE, mode=0o755),
        info("dir/file", size=5, uid=1000, gid=1001, mtime=1234567890, mode=0o4755),
        info("hard", type=tarfile.LNKTYPE, linkname="dir/file"),
        info("soft", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        info("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        info("pipe", type=tarfile.FIFOTYPE),
        form=form,
        data=b"hello",
    )
    for size in (1, 511, 512, 10**6):
        found = entries(data, size)
        assert [entry.kind for entry in found] == [
            Kind.DIRECTORY, Kind.FILE, Kind.HARDLINK, Kind.SYMLINK, Kind.CHARACTER, Kind.FIFO]  # fmt: skip
        file = found[1]
        assert (file.name, file.size, file.uid, file.gid, file.mtime, file.mode) == (
            "dir/file", 5, 1000, 1001, 1234567890, 0o4755)  # fmt: skip
        assert found[2].link == "dir/file" and found[3].link == "/etc/passwd" and found[4].device == (1, 3)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_numbers(form: int) -> None:
    name, link = "d/" * 200 + "ä" * 60, "l" * 300
    found = entries(archive(info(name, type=tarfile.SYMTYPE, linkname=link, uid=3_000_000_000), form=form))
    assert (found[0].name, found[0].link, found[0].uid) == (name, link, 3_000_000_000)


def test_gnu_tar_and_sparse_files(tmp_path: Path) -> None:
    (tmp_path / ("n" * 200)).write_bytes(b"x" * 1000)
    for form in ("gnu", "pax", "ustar", "v7"):
        names = ["."] if form in ("gnu", "pax") else ["--exclude=n*", "."]
        done = subprocess.run(
            ["tar", "-C", str(tmp_path), f"--format={form}", "-c", *names], capture_output=True, check=True
        )
        assert entries(done.stdout)[0].kind is Kind.DIRECTORY
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    for form in ("gnu", "pax"):
        done = subprocess.run(
            ["tar", "-C", str(tmp_path), f"--format={form}", "-cS", "sparse"], capture_output=True, check=True
        )
        with pytest.raises(TarError, match="unsupported kind"):
            entries(done.stdout)


def test_extended_attributes_are_bytes() -> None:
    value = bytes(range(256)) + b"\n=\0"
    record = b" SCHILY.xattr.security.capability=" + value + b"\n"
    length = len(record) + len(str(len(record) + 3))
    data = pax(str(length).encode() + record) + header("f") + bytes(1024)
    assert entries(data)[0].xattrs == {"security.capability": value}


def test_global_records_hold_until_a_member_says_otherwise() -> None:
    data = pax(b"9 uid=77\n", b"g") + header("a") + pax(b"8 uid=5\n") + header("b") + header("c") + bytes(1024)
    assert [entry.uid for entry in entries(data)] == [77, 5, 77]


def test_payloads_may_be_read_or_left() -> None:
    data = archive(info("a", size=700), info("b", size=700), info("c", size=700), data=b"z" * 700)
    reader = TarReader(data[start : start + 99] for start in range(0, len(data), 99))
    read = {entry.name: b"".join(reader.payload()) for entry in reader if entry.name != "b"}
    assert read == {"a": b"z" * 700, "c": b"z" * 700}


def test_a_file_is_read_by_its_headers(tmp_path: Path) -> None:
    data = archive(info("a", size=700), info("n" * 200, size=700), data=b"z" * 700)
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert list(TarReader(FileReader(file))) == entries(data)
    with path.open("rb") as file:
        reader = TarReader(FileReader(file))
        assert [b"".join(reader.payload()) for _ in reader] == [b"z" * 700] * 2
    path.write_bytes(data[:900])
    with path.open("rb") as file, pytest.raises(TarError, match="unexpected end"):
        list(TarReader(FileReader(file)))


def test_every_cut_is_noticed_or_lies_between_members() -> None:
    data = archive(info("a", size=700), info("n" * 200, size=3), data=b"z" * 700)
    whole = entries(data)
    for length in range(0, len(data) - 9000, 37):
        try:
            found = entries(data[:length], 512)
        except TarError:
            continue
        assert found == whole[: len(found)]
        assert length % 512 == 0 or len(found) == len(whole)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage" * 100,
        b"x",
        header()[:-1] + b"!",  # checksum
        patched(header(), 124, b"\xff" * 12),  # negative size
        patched(header(), 124, b"99999999999\0"),  # no octal number
        patched(header(), 156, b"S"),
        patched(header(), 156, b"M"),
        pax(b"99 path=x\n") + header(),
        pax(b"path=x\n") + header(),
        pax(b"6 =ab\n") + header(),
        pax(b"12 size=1_0\n") + header(size=10) + bytes(512),
        pax(b"12 size=-10\n") + header(size=10) + bytes(512),
        pax(b"13 mtime=nan\n") + header(),
        pax(b"13 mtime=1e5\n") + header(),
        pax(b"11 uid= 10\n") + header(),
        patched(header("x", size=2 << 20), 156, b"L") + bytes(2 << 20),
        header() + bytes(512) + header("b"),
    ],
)
def test_damaged_headers_are_refused(data: bytes) -> None:
    with pytest.raises(TarError):
        entries(data + bytes(1024))


@given(st.binary(max_size=3000))
def test_no_input_leads_to_another_error(data: bytes) -> None:
    for block in (data, header() + data, patched(header(), 100, data[:100]) + data):
        with contextlib.suppress(TarError):
            entries(block + bytes(1024), 700)


@pytest.mark.parametrize(
    ("name", "clean"),
    [("a", "a"), ("./a", "a"), ("/a//b/", "a/b"), ("a/./b", "a/b"), (".", ""), ("./", ""), ("./.", ""), ("/", ""),
     ("...", "..."), ("a/..b", "a/..b"), ("./..a", "..a")],
)  # fmt: skip
def test_names_are_cleaned(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@pytest.mark.parametrize("name", ["..", "../x", "a/..", "a/../b", "/..", "./..", ".//..", "a\0b", "x" * 5000])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(TarError):
        clean_name(name)
