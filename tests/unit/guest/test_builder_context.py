"""The build context as a tree in memory: what its archive may say, and what is found, read and copied of it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.context import apply_ignore_file, read_dockerfile
from pyboxd.image.builder.contexttree import ContextTree, filled
from pyboxd.image.builder.copystep import is_archive
from pyboxd.image.builder.places import open_plain
from pyboxd.image.builder.sources import content_digest, find_sources
from pyboxd.image.builder.treecopy import CopyRules, TreeCopier
from pyboxd.image.builder.trees import RootTree, copy_content
from pyboxd.image.compression import decompressed
from pyboxd.image.tarread import TarError
from pyboxd.image.workers import Stop

Entry = tuple[tarfile.TarInfo, bytes]
ME = (os.getuid(), os.getgid())


def entry(name: str, content: bytes | str = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> Entry:
    data = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode, info.mtime, info.uid = len(data), kind, link, mode, 1_500_000_000, 77
    return info, data


def folder(name: str, mode: int = 0o755) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, link=target)


def hard(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def packed(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@contextlib.contextmanager
def tree(where: Path, *entries: Entry, data: bytes = b"") -> Iterator[ContextTree]:
    chunks = decompressed([data or packed(*entries)])
    spool = where / f"spool{len(os.listdir(where))}"
    with contextlib.closing(filled(chunks, str(spool))) as made:
        yield made


def listed(made: ContextTree, path: str = "") -> list[str]:
    found = []
    for name in made.names(path):
        inner = f"{path}/{name}" if path else name
        mode = made.mode(inner)
        found.append(inner)
        if mode is not None and stat.S_ISDIR(mode):
            found += listed(made, inner)
    return found


def test_finding_and_reading(tmp_path: Path) -> None:
    entries = [
        folder("./"), folder("a", 0o700), entry("a/f", "f"), entry("/x//y/z", "z"), link("l", "/a"), link("a/up", "../x/y"),
        link("far", "/../../../a/f"), link("loop", "loop"), link("gone", "nowhere"), hard("h", "a/f"),
        entry("null", kind=tarfile.CHRTYPE), entry("a/f2", "1"), entry("a/f2", "22"),
    ]  # fmt: skip
    with tree(tmp_path, *entries) as made:
        assert made.names("") == ["a", "far", "gone", "h", "l", "loop", "x"]
        assert made.read("l/f", 10) == b"f"
        assert made.read("l/up/z", 10) == b"z"
        assert made.read("far", 10) == b"f"
        assert made.read("h", 10) == b"f"
        assert made.read("a/f2", 10) == b"22"
        assert made.read("a/f2", 1) == b"2"
        assert [made.read(path, 1) for path in ("a", "gone", "loop", "a/f/x", "absent")] == [None] * 5
        assert made.mode("a") == stat.S_IFDIR | 0o700
        assert made.mode("x") == stat.S_IFDIR | 0o755
        assert made.mode("gone") is None
        assert made.names("a/f") == []
        with pytest.raises(OSError, match="symbolic links"):
            made.mode("loop")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_contexts(tmp_path: Path, pack: type[bytes]) -> None:
    with tree(tmp_path, data=pack(packed(entry("a", "x" * 300_000)))) as made:
        assert made.read("a", 1 << 20) == b"x" * 300_000


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../x")],
        [entry("a/../../x")],
        [link("d", "/tmp"), entry("d/x")],
        [link("d", "e"), folder("e"), entry("d/x")],
        [entry("f"), entry("f/x")],
        [hard("h", "absent")],
        [hard("h", "../x")],
        [folder("d"), hard("h", "d")],
        [link("d", "/tmp"), hard("h", "d/x")],
        [hard("h", "")],
    ],
)
def test_hostile_contexts(tmp_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(TarError), tree(tmp_path, *entries):
        pass


def digest(made: ContextTree | RootTree, path: str) -> str:
    (source,) = find_sources(made, [path], from_context=True)
    return content_digest(made, source, lambda _: False, Stop(), owners=False)


def test_a_tree_in_memory_means_what_it_means_unpacked(tmp_path: Path) -> None:
    """Copied out of the archive and read back, everything is as in the archive: so are the digests."""
    entries = [
        folder("top", 0o711), entry("top/empty"), entry("top/small", "s" * 100, mode=0o4755),
        entry("top/big", "b" * 300_000),
        folder("top/sub", 0o1777), link("top/sub/l", "../small"), hard("top/hard", "top/big"), entry("top/ünï", "u"),
        entry("top/fifo", kind=tarfile.FIFOTYPE),
    ]  # fmt: skip
    (tmp_path / "out").mkdir()
    with tree(tmp_path, *entries) as made, open_plain(str(tmp_path / "out")) as root:
        with made.item("top") as item:
            assert item.owner == (0, 0)
            TreeCopier(root, CopyRules(ME), Stop()).contents(item, "/copy", take_over=True)
        assert digest(made, "top") == digest(RootTree(root), "copy")
    copy = tmp_path / "out/copy"
    assert (copy / "hard").samefile(copy / "big")
    assert (copy / "small").stat().st_mtime == 1_500_000_000
    assert stat.S_IMODE((copy / "small").stat().st_mode) == 0o4755
    assert (stat.S_IMODE((copy / "sub").stat().st_mode), os.readlink(copy / "sub/l")) == (0o1777, "../small")
    assert stat.S_ISFIFO((copy / "fifo").stat().st_mode)


def test_ignore_file(tmp_path: Path) -> None:
    names = ("Dockerfile", "keep/a", "keep/b.o", "drop/a", "drop/keep", "only/x")
    text = "**/*.o\ndrop\n!drop/keep\nonly\n"
    files = [entry(name) for name in names]
    with tree(tmp_path, *files, entry(".dockerignore", text)) as made:
        apply_ignore_file(made, "Dockerfile")
        assert listed(made) == [".dockerignore", "Dockerfile", "drop", "drop/keep", "keep", "keep/a"]
    with tree(tmp_path, *files, entry(".dockerignore", text), entry("Dockerfile.dockerignore", "keep")) as made:
        apply_ignore_file(made, "Dockerfile")
        assert made.mode("keep") is None and made.mode("only") is not None


def test_where_the_dockerfile_is(tmp_path: Path) -> None:
    with tree(
        tmp_path, entry("dockerfile", "D"), entry("sub/Other", "O"), link("link", "/sub/Other"), link("out", "/etc/passwd")
    ) as made:
        assert read_dockerfile(made, "Dockerfile") == b"D"
        assert read_dockerfile(made, "./link") == b"O"
        for name, message in (
            ("absent", "Cannot locate specified Dockerfile: absent"),
            ("out", "Cannot locate specified Dockerfile: out"),
            ("sub", "Cannot locate specified Dockerfile: sub"),
            ("../x", "Forbidden path outside the build context"),
        ):
            with pytest.raises(InvalidArgument, match=message):
                read_dockerfile(made, name)


def test_archives_are_told_by_content(tmp_path: Path) -> None:
    data = packed(entry("x", "y" * 100_000))
    cases = [(data, True), (gzip.compress(data), True), (bz2.compress(data), True), (lzma.compress(data), True)]
    cases += [
        (b"", False),
        (b"text" * 1000, False),
        (gzip.compress(b"text"), False),
        (b"\x1f\x8b", False),
        (bytes(2048), False),
    ]
    with tree(tmp_path, *(entry(str(number), content) for number, (content, _) in enumerate(cases))) as made:
        for number, (_, expected) in enumerate(cases):
            with made.item(str(number)) as item:
                assert is_archive(item, Stop()) is expected, number


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 9_000_000])
def test_content_is_copied_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(b"before" + data + b"behind")
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as target:
        copy_content(source.fileno(), 6, size, target.fileno(), Stop())
    assert (tmp_path / "b").read_bytes() == data
