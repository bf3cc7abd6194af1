"""Archives, hostile ones too, unpacked into a folder."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyboxd.image.builder.places import InRoot, open_plain
from pyboxd.image.extract import Rules, extract, nanoseconds
from pyboxd.image.tarread import TarError, TarReader

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "", **fields: int) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = kind, link, len(content), 1_500_000_000
    if kind == tarfile.DIRTYPE:
        info.mode = 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, **fields: int) -> Member:
    return member(name, tarfile.DIRTYPE, b"", "", **fields)


def link(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, link=target)


def hard(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, link=target)


def unpack(top: Path, *members: Member, rules: Rules | None = None) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    with open_plain(str(top)) as root:
        extract(TarReader([buffer.getvalue()]), InRoot(root, "/"), rules or Rules())


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """The folder to unpack into; beside it is one that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "top").mkdir()
    yield tmp_path / "top"
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert (tmp_path / "outside/secret").read_text() == "secret"
    assert (tmp_path / "outside/secret").stat().st_nlink == 1


def test_ordinary_entries(top: Path) -> None:
    unpack(
        top,
        folder("./"),
        folder("a", mode=0o750, mtime=1000),
        member("a/file", content=b"content", mode=0o4755, mtime=2000),
        member("/b//c/./deep", content=b"x" * 300_000),
        link("a/link", "/anywhere"),
        hard("a/hard", "a/file"),
        member("fifo", tarfile.FIFOTYPE, mode=0o600),
    )
    assert (top / "a/file").read_bytes() == b"content"
    assert stat.S_IMODE((top / "a/file").stat().st_mode) == 0o4755
    assert (top / "a/file").stat().st_mtime == 2000
    assert (stat.S_IMODE((top / "a").stat().st_mode), (top / "a").stat().st_mtime) == (0o750, 1000)
    assert (top / "b/c/deep").stat().st_size == 300_000
    assert os.readlink(top / "a/link") == "/anywhere"
    assert (top / "a/hard").samefile(top / "a/file")
    assert stat.S_ISFIFO((top / "fifo").stat().st_mode)
    assert (top / "a/file").stat().st_uid == os.getuid()


def test_later_entries_win(top: Path) -> None:
    unpack(top, member("x", content=b"1"), member("x", content=b"2"), folder("x"), member("x/y"), member("x", content=b"3"))
    assert (top / "x").read_bytes() == b"3"
    unpack(top, folder("x"), member("x/y", content=b"y"))
    assert (top / "x/y").read_bytes() == b"y"


def test_a_link_in_place_of_a_file_is_replaced(top: Path, tmp_path: Path) -> None:
    unpack(top, link("x", str(tmp_path / "outside/secret")), member("x", content=b"new"))
    assert (top / "x").read_bytes() == b"new" and not (top / "x").is_symlink()


def test_a_link_in_place_of_a_directory_is_one(top: Path, tmp_path: Path) -> None:
    unpack(top, folder("real"), link("d", "/real"), folder("d", mode=0o700), member("d/y"), hard("h", "d/y"))
    assert (top / "d").is_symlink() and (top / "real/y").samefile(top / "h")
    unpack(top, link("e", "/nowhere"), folder("e"), member("e/y"))
    assert (top / "e/y").exists() and not (top / "e").is_symlink()


Maker = Callable[[Path], list[Member]]


@pytest.mark.parametrize(
    "members",
    [
        lambda out: [link("d", str(out)), member("d/new")],
        lambda out: [link("d", f"{'../' * 40}{str(out)[1:]}"), member("d/new")],
        lambda out: [link("d", str(out)), link("e", "d"), member("e/new")],
        lambda out: [link("d", str(out)), folder("d/new")],
        lambda out: [link("d", str(out)), link("d/new", "x")],
        lambda out: [link("d", str(out)), folder("d", mode=0o700, mtime=1)],
        lambda out: [member("a"), link("d", str(out)), hard("d/new", "a")],
    ],
)
def test_links_lead_inside(top: Path, tmp_path: Path, members: Maker) -> None:
    before = (tmp_path / "outside").stat()
    unpack(top, *members(tmp_path / "outside"))
    after = (tmp_path / "outside").stat()
    assert (before.st_mtime_ns, before.st_mode) == (after.st_mtime_ns, after.st_mode)


def test_hard_links_to_links_stay_links(top: Path, tmp_path: Path) -> None:
    unpack(top, link("l", str(tmp_path / "outside/secret")), hard("h", "l"))
    assert (top / "h").is_symlink()


@pytest.mark.parametrize(
    "members",
    [
        lambda out: [member("../outside/new")],
        lambda out: [member("a/../../outside/new")],
        lambda out: [folder("..")],
        lambda out: [link("d", str(out)), hard("new", "d/secret")],
        lambda out: [hard("new", "../outside/secret")],
        lambda out: [hard("new", str(out / "secret"))],
        lambda out: [hard("new", "absent")],
        lambda out: [folder("d"), hard("new", "d")],
        lambda out: [hard("new", "/")],
        lambda out: [member("f"), member("f/x")],
        lambda out: [member("n" * 300)],
    ],
)
def test_hostile_archives(top: Path, tmp_path: Path, members: Maker) -> None:
    with pytest.raises(TarError):
        unpack(top, *members(tmp_path / "outside"))


def test_a_directory_that_became_a_link_gets_no_times_through_it(top: Path, tmp_path: Path) -> None:
    before = (tmp_path / "outside").stat().st_mtime_ns
    unpack(top, folder("d", mtime=5, mode=0o700), link("d", str(tmp_path / "outside")))
    assert (tmp_path / "outside").stat().st_mtime_ns == before


def test_devices_are_left_out(top: Path) -> None:
    unpack(top, member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), member("x"))
    assert os.listdir(top) == ["x"]


def test_overlay_attributes_are_left_out(top: Path) -> None:
    info, content = member("x", content=b"c")
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.mine": "v"}
    unpack(top, (info, content))
    try:
        names = os.listxattr(top / "x")
    except OSError:
        names = []
    assert "trusted.overlay.opaque" not in names


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, 0),
        (1.5, 1_500_000_000),
        (float("nan"), 0),
        (float("inf"), ((1 << 34) - 1) * 10**9),
        (-1e30, -(1 << 31) * 10**9),
    ],
)
def test_times(seconds: float, expected: int) -> None:
    assert nanoseconds(seconds) == expected
