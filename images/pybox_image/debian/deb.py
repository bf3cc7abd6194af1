"""The .deb format: an ar archive of a version, a control archive and a data archive (deb(5))."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pybox_image.errors import ImageError

_MAGIC = b"!<arch>\n"
_HEADER = 60


def ar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the members of an ar archive. Raises ImageError when it is none or is cut short."""
    if not data.startswith(_MAGIC):
        raise ImageError("not a Debian package", "the file does not begin as an ar archive")
    position = len(_MAGIC)
    while position < len(data):
        header = data[position : position + _HEADER]
        if len(header) < _HEADER or header[58:] != b"`\n":
            raise ImageError("not a Debian package", f"a member header at byte {position} is damaged")
        size = int(header[48:58])
        position += _HEADER
        if position + size > len(data):
            raise ImageError("not a Debian package", "the file is cut short")
        yield header[:16].decode("ascii").rstrip().rstrip("/"), data[position : position + size]
        position += size + size % 2


def data_archive(path: Path) -> tarfile.TarFile:
    """Return the files of a .deb as an open tar archive."""
    return _open_member(path, "data.tar")


def control_archive(path: Path) -> tarfile.TarFile:
    """Return the control files of a .deb (maintainer scripts, md5sums) as an open tar archive."""
    return _open_member(path, "control.tar")


def _open_member(path: Path, wanted: str) -> tarfile.TarFile:
    for name, content in ar_members(path.read_bytes()):
        stem, _, suffix = name.partition(".tar")
        if f"{stem}.tar" == wanted:
            return tarfile.open(fileobj=io.BytesIO(_decompress(content, suffix)), mode="r:")
    raise ImageError("not a Debian package", f"{path.name} has no {wanted}")


def _decompress(content: bytes, suffix: str) -> bytes:
    match suffix:
        case "":
            return content
        case ".xz":
            return lzma.decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case ".bz2":
            return bz2.decompress(content)
        case ".zst":
            return _zstandard(content)
    raise ImageError("not a Debian package", f"unknown compression {suffix!r}")


def _zstandard(content: bytes) -> bytes:
    # Debian compresses with xz; only derivatives use zstd, so the module is not a dependency.
    try:
        import zstandard
    except ImportError:
        raise ImageError(
            "the package is compressed with zstd", "the module zstandard is missing", "pip install zstandard"
        ) from None
    return bytes(zstandard.ZstdDecompressor().stream_reader(content).read())
