"""Every compression, whole, cut and damaged, in chunks of all sizes; bombs come out in pieces."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Iterator

import pytest
import zstandard

from pyboxd.errors import InvalidArgument
from pyboxd.image.compression import PIECE, decompressed, detect

TEXT = random.Random(1).randbytes(40_000) + b"again and again " * 50_000
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(level=3).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def plain(data: bytes, size: int = 1000) -> bytes:
    return b"".join(decompressed(chunks(data, size)))


@every_kind
@pytest.mark.parametrize("size", [1, 7, 1000, 10**7])
def test_every_kind_is_recognised_and_read(kind: str, size: int) -> None:
    data = KINDS[kind](TEXT[:80_000] if size < 1000 else TEXT)
    assert detect(data) == kind
    assert plain(data, size) == (TEXT[:80_000] if size < 1000 else TEXT)


@every_kind
def test_several_streams_are_read_as_one(kind: str) -> None:
    assert plain(KINDS[kind](b"one") + KINDS[kind](b"") + KINDS[kind](b"two")) == b"onetwo"


@every_kind
def test_cut_streams_are_errors(kind: str) -> None:
    data = KINDS[kind](TEXT)
    for length in (8, len(data) // 2, len(data) - 1):
        with pytest.raises(InvalidArgument, match=f"{kind} data is damaged"):
            plain(data[:length])


@every_kind
def test_damaged_streams_are_errors(kind: str) -> None:
    data = bytearray(KINDS[kind](TEXT))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    with pytest.raises(InvalidArgument):
        if plain(bytes(data)) != TEXT:  # zstd without a checksum cannot know
            raise InvalidArgument("other content")


def test_what_is_not_compressed_passes() -> None:
    for data in (b"", b"x", b"\x1f", TEXT):
        assert plain(data) == data
    assert b"".join(decompressed(iter((b"", b"", b"BZ", b"x")))) == b"BZx"


@every_kind
def test_bombs_come_in_pieces(kind: str) -> None:
    data = KINDS[kind](bytes(64 * 1024 * 1024))
    total = 0
    for piece in decompressed(chunks(data, 100_000)):
        assert len(piece) <= PIECE
        total += len(piece)
    assert total == 64 * 1024 * 1024


def test_a_gzip_stream_may_end_in_zeros() -> None:
    assert plain(gzip.compress(b"x") + bytes(3000), 11) == b"x"
    with pytest.raises(InvalidArgument):
        plain(gzip.compress(b"x") + b"trailing")


def test_the_error_of_the_source_is_not_taken_for_damage() -> None:
    def broken() -> Iterator[bytes]:
        yield gzip.compress(TEXT)[:5000]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(decompressed(broken()))
