"""Compressed streams in, plain chunks out: gzip, zstd, bzip2, xz, or none, told apart by their first bytes; and gzip out.

Everything here is blocking and pull-style (iterators), made for a worker thread. Output comes in pieces of at most
`PIECE` bytes whatever the input expands to, so a bomb costs no memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from pyboxd.errors import InvalidArgument

PIECE = 256 * 1024
_XZ_MEMORY = 256 * 1024 * 1024
_ZSTD_WINDOW = 128 * 1024 * 1024
_ZSTD_SLICE = 1024
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_LONGEST_MAGIC = 6
_GZIP_LEVEL = 6  # as everybody's: what is pushed once is pulled often
_GZIP_PIECE = 64 * 1024


class _Decoder(Protocol):
    """bz2.BZ2Decompressor and lzma.LZMADecompressor."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def detect(start: bytes) -> str:
    """Name of the compression that data beginning with `start` has, "" if none is known."""
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Plain bytes of `chunks`; raises InvalidArgument when the stream is damaged or ends early."""
    source = iter(chunks)
    start = b""
    for chunk in source:
        start += chunk
        if len(start) >= _LONGEST_MAGIC:
            break
    kind = detect(start)
    everything = chain((start,), source) if start else source
    if kind == "gzip":
        return _checked(kind, _gunzip(everything))
    if kind == "zstd":
        return _checked(kind, _unzstd(everything))
    if kind == "bzip2":
        return _checked(kind, _unbzip2(everything))
    if kind == "xz":
        return _checked(kind, _unxz(everything))
    return everything


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """gzip of `chunks`: the same for the same bytes, as its head has no time and no name."""
    encoder = zlib.compressobj(_GZIP_LEVEL, wbits=31)
    made = bytearray()
    for chunk in chunks:
        made += encoder.compress(chunk)
        if len(made) >= _GZIP_PIECE:
            yield bytes(made)
            made.clear()
    yield bytes(made) + encoder.flush()


def _checked(kind: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except (zlib.error, EOFError) as error:
        raise InvalidArgument(f"{kind} data is damaged: {error}") from error
    except OSError as error:
        if error.errno is not None:  # bz2 raises a bare OSError for damaged data
            raise
        raise InvalidArgument(f"{kind} data is damaged: {error}") from error


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    started = False
    for chunk in chunks:
        data = chunk
        while data:
            if not started:
                data = data.lstrip(b"\0")  # padding between or behind members
                if not data:
                    break
            piece = decoder.decompress(data, PIECE)
            started = True
            if piece:
                yield piece
            data = decoder.unconsumed_tail
            if decoder.eof:
                data = decoder.unused_data
                decoder = zlib.decompressobj(wbits=31)
                started = False
    if started:
        raise EOFError("unexpected end")


def _unbzip2(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import bz2  # seldom used: not worth its time at start

    return _streams(chunks, bz2.BZ2Decompressor)


def _unxz(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import lzma

    try:
        yield from _streams(chunks, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    except lzma.LZMAError as error:
        raise EOFError(str(error)) from error


def _streams(chunks: Iterator[bytes], new: Callable[[], _Decoder]) -> Iterator[bytes]:
    """bzip2 and xz: any number of streams, one behind the other."""
    decoder = new()
    started = False
    for chunk in chunks:
        data = chunk
        while True:
            if not started:
                data = data.lstrip(b"\0")
            if not data and (not started or decoder.needs_input):
                break
            piece = decoder.decompress(data, PIECE)
            started = True
            data = b""
            if piece:
                yield piece
            if decoder.eof:
                data = decoder.unused_data
                decoder = new()
                started = False
    if started:
        raise EOFError("unexpected end")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Frame by frame with the one interface of zstandard that tells a cut frame from a finished one.

    It has no bound on its output, so it gets the input in slices; a slice can expand to `_ZSTD_SLICE` / 4 blocks of
    128 KiB at most.
    """
    import zstandard  # 20 ms under emulation, and most layers are gzip

    new: Any = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
    decoder = new()
    started = False
    held = bytearray()
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), _ZSTD_SLICE):
                data = chunk[start : start + _ZSTD_SLICE]
                while data:
                    held += decoder.decompress(data)
                    started, data = not decoder.eof, decoder.unused_data
                    if decoder.eof:
                        decoder = new()
                while len(held) >= PIECE:
                    yield bytes(held[:PIECE])
                    del held[:PIECE]
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if started:
        raise EOFError("unexpected end")
    if held:
        yield bytes(held)
