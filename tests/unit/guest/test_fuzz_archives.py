"""Archives and Dockerfiles that somebody damaged or made to do harm: unpacked as far as they are right, or refused."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyboxd.engine import archive
from pyboxd.errors import PyboxdError
from pyboxd.image import transfer
from pyboxd.image.builder import context, ignore, parser, stages, words
from pyboxd.image.builder.places import open_plain
from pyboxd.image.compression import decompressed
from tests.support.image_lab import ImageLab, chunked, tar

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
KINDS = (
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.CONTTYPE,
)  # fmt: skip
names = st.sampled_from(
    ["a", "a/b", "a/b/c", "./a", "/a", "..", "../outside/x", "a/../../outside/x", "a/..", ".", "", "/", "a//b", "x" * 200,
     "x" * 5000, "a/" * 60 + "b", "\udce9", ".wh.a", ".wh..wh..opq", ".wh.", "b"]
)  # fmt: skip
targets = st.one_of(
    names, st.sampled_from(["/", "../outside", "../../outside/secret", "/etc/passwd", "a/./../..", "x" * 5000])
)
members = st.lists(st.tuples(names, st.sampled_from(KINDS), targets, st.binary(max_size=30)), max_size=8)


def archived(entries: list[tuple[str, bytes, str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as file:
        for name, kind, target, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o755
            info.uid = info.gid = os.getuid()
            info.size = len(content) if kind in (tarfile.REGTYPE, tarfile.CONTTYPE) else 0
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def damaged(data: bytes, seed: int, count: int) -> bytes:
    """Some bytes are others, and in the end a part is missing."""
    chance, changed = random.Random(seed), bytearray(data)
    for _ in range(count):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: len(changed) - chance.randrange(len(changed)) * (count % 2)])


def pieces(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


# -- docker cp -------------------------------------------------------------------------------------


def unpack(data: bytes, keep_kinds: bool) -> None:
    """Into a folder; the one beside it must stay as it is."""
    with tempfile.TemporaryDirectory() as work:
        outside, top = Path(work, "outside"), Path(work, "top")
        for folder in (outside, top, top / "b"):
            folder.mkdir()
        (outside / "secret").write_text("secret")
        with open_plain(str(top)) as root, contextlib.suppress(PyboxdError, OSError):
            archive.unpack(root, "/", pieces(data), None, keep_kinds)
        assert os.listdir(outside) == ["secret"] and (outside / "secret").read_text() == "secret"
        assert (outside / "secret").stat().st_nlink == 1


@relaxed
@given(members, st.booleans())
def test_no_archive_leads_out_of_its_folder(entries: list[tuple[str, bytes, str, bytes]], keep_kinds: bool) -> None:
    unpack(archived(entries), keep_kinds)


@relaxed
@given(members, st.integers(0, 2**32), st.integers(1, 6))
def test_damaged_archives_are_refused(entries: list[tuple[str, bytes, str, bytes]], seed: int, count: int) -> None:
    unpack(damaged(archived(entries), seed, count), False)


@relaxed
@given(st.sampled_from([gzip.compress, bz2.compress, lzma.compress, zstandard.compress]), st.data())
def test_damaged_compression_is_refused(compress: Callable[[bytes], bytes], data: st.DataObject) -> None:
    seed, count = data.draw(st.integers(0, 2**32)), data.draw(st.integers(1, 4))
    stream = damaged(compress(tar({"a": b"content" * 100})), seed, count)
    with contextlib.suppress(PyboxdError):
        for piece in decompressed(pieces(stream, data.draw(st.integers(1, 300)))):
            assert len(piece) <= 1 << 20


@pytest.mark.parametrize(
    ("compress", "size", "most"),
    [
        (gzip.compress, 64 << 20, 16 << 20),
        (bz2.compress, 64 << 20, 16 << 20),
        (lzma.compress, 64 << 20, 16 << 20),
        (zstandard.compress, 512 << 20, 96 << 20),  # a kilobyte of it may be 32 MB, and is there twice for a moment
    ],
)
def test_a_bomb_costs_little_memory(compress: Callable[[bytes], bytes], size: int, most: int) -> None:
    stream = compress(bytes(size))
    tracemalloc.start()
    assert sum(len(piece) for piece in decompressed(pieces(stream, 65536))) == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most


# -- docker load -----------------------------------------------------------------------------------

json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), names.filter(lambda name: "\udce9" not in name)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["Config", "Layers", "RepoTags", "manifests", "digest", "mediaType", "rootfs", "diff_ids",
                             "config", "history", "architecture", "os", "layers", "schemaVersion", "platform",
                             "annotations"]),
            inner, max_size=4),
    ),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ImageLab]:
    made = ImageLab(tmp_path)
    yield made
    made.close()


@relaxed
@given(st.sampled_from(["manifest.json", "index.json", "a"]), json_values, json_values)
def test_archives_of_no_image_leave_nothing(lab: ImageLab, name: str, first: object, second: object) -> None:
    data = tar({name: json.dumps(first).encode(), "a": json.dumps(second).encode(), "oci-layout": b"{}"})

    async def load() -> None:
        with pytest.raises(PyboxdError):
            await transfer.load(lab.images, chunked(data), lambda _: None, temporary=str(lab.temporary))

    asyncio.run(load())
    lab.assert_empty()


# -- builds ----------------------------------------------------------------------------------------

dockerfiles = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            ["FROM ", "RUN ", "COPY ", "ADD ", "ARG ", "ENV ", "LABEL ", "ONBUILD ", "HEALTHCHECK ", "EXPOSE ", "VOLUME ",
             "USER ", "SHELL ", "STOPSIGNAL ", "WORKDIR ", "CMD ", "scratch", "a", " AS ", "b", "=", '"', "'", "\\", "\n",
             "\\\n", "#", "# escape=`\n", "`\n", "$", "${a", "${a:-", "${a//b/c}", "${", "}", "<<EOF", "<<-'E'", "EOF",
             "--from=", "--mount=type=", "cache,", "--chown=", "--", "[", '["a"', "]", ",", "NONE",
             "80-90/tcp", "é", "\0", " ", "\t"]
        ),
        max_size=25,
    ).map(lambda parts: "".join(parts).encode()),
)  # fmt: skip


@relaxed
@given(dockerfiles)
def test_any_dockerfile_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(PyboxdError):
        recipe = stages.divide(parser.parse(data))
        stages.needed(stages.with_bases(recipe, {"a": "b"}), "")


@relaxed
@given(st.text(alphabet="ab$\\{}:-+?#%/*'\" `\n", max_size=30))
def test_any_word_is_expanded_or_refused(text: str) -> None:
    for expand in (words.expand, words.expand_words, words.expand_text):
        with contextlib.suppress(PyboxdError):
            expand(text, {"a": "value", "b": ""})


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "RUN " * 50_000, "RUN a \\\n" * 50_000, "FROM " + "$" * 100_000, "${a:-" * 20_000]
)
def test_long_dockerfiles(text: str) -> None:
    for data in (text, f"FROM a\nRUN {text}", f"FROM a\nENV x={text}", f'FROM a\nCMD ["{text}'):
        with contextlib.suppress(PyboxdError):
            stages.divide(parser.parse(data.encode()))


@relaxed
@given(st.text(alphabet="ab*?[]!-^\\/.#\n ", max_size=30), st.text(alphabet="ab/.", min_size=1, max_size=12))
def test_any_ignore_file_is_read_or_refused(text: str, path: str) -> None:
    with contextlib.suppress(PyboxdError):
        ignore.Patterns(ignore.read_patterns(text.encode())).matches(path.strip("/") or "a")


@relaxed
@given(members, st.integers(0, 2**32), st.integers(0, 4))
def test_any_context_is_taken_in_or_refused(entries: list[tuple[str, bytes, str, bytes]], seed: int, count: int) -> None:
    data = archived([*entries, ("Dockerfile", tarfile.REGTYPE, "", b"FROM a\n")])
    with tempfile.TemporaryDirectory() as folder:

        async def receive() -> None:
            with contextlib.suppress(PyboxdError):
                tree = await context.receive(chunked(damaged(data, seed, count) if count else data), f"{folder}/spool")
                context.read_dockerfile(tree, "Dockerfile")
                context.apply_ignore_file(tree, "Dockerfile")

        asyncio.run(receive())
