"""Tar archives read as a stream: headers become `TarEntry`, payloads are handed on or skipped. Blocking, no extraction.

Reads ustar, PAX (`x`, `g`, SCHILY.xattr.*) and GNU long names; sparse and multi-volume entries are refused.
Format: POSIX.1-2001 pax, and the GNU tar manual "Basic Tar Format". Whether a name may be used is decided by
`clean_name`, and what to do with an entry by the caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import BinaryIO

from pyboxd.errors import InvalidArgument

BLOCK = 512
MAX_METADATA = 1024 * 1024  # bytes of one PAX or long-name record, as in Go's archive/tar
MAX_PATH = 4096
_PIECE = 256 * 1024
_ZERO = bytes(BLOCK)
_XATTR = "SCHILY.xattr."
_SECONDS = re.compile(r"-?[0-9]{1,20}(\.[0-9]*)?")


class TarError(InvalidArgument):
    """The archive is damaged, or holds what must not be used."""


class Kind(Enum):
    FILE = "0"
    HARDLINK = "1"
    SYMLINK = "2"
    CHARACTER = "3"
    BLOCK = "4"
    DIRECTORY = "5"
    FIFO = "6"


_KINDS = {kind.value.encode(): kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}


@dataclass(frozen=True)
class TarEntry:
    """One member of an archive, as its headers say; nothing in it is checked for safety."""

    name: str
    kind: Kind
    mode: int = 0o644  # permission bits only
    uid: int = 0
    gid: int = 0
    size: int = 0  # bytes of payload; 0 for all but FILE
    mtime: float = 0.0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


class ChunkReader:
    """Exact reads over an iterator of chunks of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._current = memoryview(b"")

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the stream."""
        if len(self._current) >= size:
            piece = bytes(self._current[:size])
            self._current = self._current[size:]
            return piece
        pieces = []
        while size and self._fill():
            piece = bytes(self._current[:size])
            self._current = self._current[len(piece) :]
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """`size` bytes in pieces as they came; TarError if the stream ends before."""
        while size:
            if not self._fill():
                raise TarError("unexpected end of the archive")
            piece = self._current[:size]
            self._current = self._current[len(piece) :]
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        for _ in self.pieces(size):
            pass

    def drain(self) -> None:
        """Read to the end of the stream."""
        while self._fill():
            self._current = memoryview(b"")

    def _fill(self) -> bool:
        while not self._current:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._current = memoryview(chunk)
        return True


class FileReader(ChunkReader):
    """The same over an open file; what is skipped is not read."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(())
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            data = self._file.read(min(size, _PIECE))
            if not data:
                raise TarError("unexpected end of the archive")
            size -= len(data)
            yield memoryview(data)

    def skip(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise TarError("unexpected end of the archive")
        self._file.seek(size, os.SEEK_CUR)

    def drain(self) -> None:
        self._file.seek(0, os.SEEK_END)


class TarReader:
    """Iterate over the entries; between two steps the payload may be read once with `payload`."""

    def __init__(self, source: Iterable[bytes] | FileReader) -> None:
        self._input = source if isinstance(source, FileReader) else ChunkReader(source)
        self._payload = 0  # bytes of the current entry's payload not yet read
        self._padding = 0
        self._global: dict[str, str] = {}
        self.end = 0
        """Bytes up to the end of the last entry seen, its padding included."""

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self._next()) is not None:
            yield entry
        self._input.drain()

    def payload(self) -> Iterator[memoryview]:
        """What is left of the current entry's content."""
        while self._payload:
            for piece in self._input.pieces(self._payload):
                self._payload -= len(piece)
                yield piece

    def _next(self) -> TarEntry | None:
        pax: dict[str, str] = {}
        name = link = None
        while True:
            self._input.skip(self._payload + self._padding)
            self._payload = self._padding = 0
            block = self._input.read(BLOCK)
            if block == _ZERO or not block:
                self._end()
                return None
            _check_sum(block)
            self.end += BLOCK
            kind = block[156:157]
            if kind in b"xgLK":
                record = self._metadata(_number(block[124:136]))
                if kind == b"x":
                    pax |= _pax(record)
                elif kind == b"g":
                    self._global |= _pax(record)
                elif kind == b"L":
                    name = _text(record)
                else:
                    link = _text(record)
                continue
            entry = _entry(block, self._global | pax if self._global else pax, name, link)
            self._payload = entry.size
            self._padding = -entry.size % BLOCK
            self.end += self._payload + self._padding
            return entry

    def _end(self) -> None:
        """Behind the first block of zeros only a second one (or nothing) may come."""
        block = self._input.read(BLOCK)
        if block.strip(b"\0"):
            raise TarError("invalid tar header")

    def _metadata(self, size: int) -> bytes:
        if size > MAX_METADATA:
            raise TarError("tar header record is larger than 1 MiB")
        record = self._input.read(size)
        if len(record) < size:
            raise TarError("unexpected end of the archive")
        self._padding = -size % BLOCK
        self.end += size + self._padding
        return record


def clean_name(name: str) -> str:
    """`a/b` of `./a//b/` or `/a/b`, "" for the root; TarError for a name that could lead out."""
    if "\0" in name or len(name) > MAX_PATH:
        raise TarError(f"invalid name in archive: {name[:80]!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise TarError(f"invalid name in archive: {name!r} leads out of its folder")
    return "/".join(parts)


def _check_sum(block: bytes) -> None:
    if len(block) < BLOCK:
        raise TarError("unexpected end of the archive")
    stored = _number(block[148:156])
    actual = sum(block) - sum(block[148:156]) + 256
    if stored != actual:
        raise TarError("invalid tar header")


def _entry(block: bytes, pax: Mapping[str, str], long_name: str | None, long_link: str | None) -> TarEntry:
    flag = block[156:157]
    name = pax.get("path") or long_name or _header_name(block)
    kind = _KINDS.get(flag)
    if kind is None or any(key.startswith("GNU.sparse") for key in pax):
        raise TarError(f"unsupported kind of tar entry {flag.decode('latin-1')!r}: {name[:200]!r}")
    if kind is Kind.FILE and name.endswith("/"):
        kind = Kind.DIRECTORY
    try:
        size = _decimal(pax["size"]) if "size" in pax else _number(block[124:136])
        return TarEntry(
            name=name,
            kind=kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=_decimal(pax["uid"]) if "uid" in pax else _number(block[108:116]),
            gid=_decimal(pax["gid"]) if "gid" in pax else _number(block[116:124]),
            size=_checked_size(size) if kind is Kind.FILE else 0,
            mtime=_seconds(pax["mtime"]) if "mtime" in pax else _number(block[136:148]),
            link=pax.get("linkpath") or long_link or _text(block[157:257]),
            device=(_number(block[329:337]), _number(block[337:345])),
            xattrs=_xattrs(pax),
        )
    except ValueError as error:
        raise TarError(f"invalid tar header of {name[:200]!r}: {error}") from error


def _decimal(text: str) -> int:
    """Digits only: what Python's int() takes besides, other readers of the same archive do not."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"not a number: {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"not a time: {text[:40]!r}")
    return float(text)


def _checked_size(size: int) -> int:
    if size < 0:
        raise TarError("invalid tar header: negative size")
    return size


def _header_name(block: bytes) -> str:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:  # the prefix field is something else in GNU's format
        return _text(block[345:500]) + "/" + name
    return name


def _xattrs(pax: Mapping[str, str]) -> Mapping[str, bytes]:
    if not pax:
        return MappingProxyType({})
    return MappingProxyType({key[len(_XATTR) :]: _raw(value) for key, value in pax.items() if key.startswith(_XATTR)})


def _pax(record: bytes) -> dict[str, str]:
    """Records `length key=value\\n`; a later key wins, an empty value unsets."""
    found: dict[str, str] = {}
    position = 0
    while position < len(record):
        space = record.find(b" ", position, position + 20)
        digits = record[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise TarError("invalid PAX record")
        end = position + int(digits)
        key, equals, value = record[space + 1 : end - 1].partition(b"=")
        if end > len(record) or end <= space or record[end - 1 : end] != b"\n" or not equals or not key:
            raise TarError("invalid PAX record")
        found[_decode(key)] = _decode(value)
        position = end
    return found


def _number(field_bytes: bytes) -> int:
    """Octal digits, or base 256 when the first bit is set (GNU)."""
    first = field_bytes[0]
    if first & 0x80:
        value = int.from_bytes(field_bytes, "big") & ((1 << (len(field_bytes) * 8 - 1)) - 1)
        return value - (1 << (len(field_bytes) * 8 - 1)) if first & 0x40 else value
    digits = field_bytes.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise TarError("invalid tar header") from error


def _text(field_bytes: bytes) -> str:
    return _decode(field_bytes.split(b"\0", 1)[0])


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
