"""An overlay's upper directory as a layer: what changed, in the tar form of image-spec `layer.md`.

Whiteouts (character devices 0:0) become `.wh.NAME`, opaque directories get `.wh..wh..opq`. Deterministic: sorted by
name, so the same tree gives the same bytes. Blocking, for a worker thread.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator

from pyboxd.image.workers import Stop

PIECE = 256 * 1024
_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")


def archive(upper: str, stop: Stop) -> Iterator[bytes]:
    """The tar stream of all that `upper` holds."""
    hard_links: dict[tuple[int, int], str] = {}
    for path, name in _walk(upper, ""):
        for piece in _member(path, name, hard_links):
            stop.check()
            yield piece
    yield bytes(1024)


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    """(path, name in the archive): whiteouts first, because readers apply them in order."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if _is_whiteout(entry):
            yield entry.path, f"{prefix}{entry.name}"
    for entry in found:
        if _is_whiteout(entry):
            continue
        yield entry.path, f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return False
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _member(path: str, name: str, hard_links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    status = os.lstat(path)
    mode = status.st_mode
    if stat.S_ISSOCK(mode):  # no archive holds one
        return
    if stat.S_ISCHR(mode) and status.st_rdev == 0:
        folder, _, base = name.rpartition("/")
        yield _header(_info(f"{folder}/.wh.{base}" if folder else f".wh.{base}", 0o644))
        return
    info = _info(name, stat.S_IMODE(mode))
    info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    if stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
        attributes = _attributes(path, info)
        yield _header(info)
        if attributes.get(_OPAQUE) == b"y":
            yield _header(_info(f"{name}/.wh..wh..opq", 0o644))
        return
    if status.st_nlink > 1:
        key = (status.st_dev, status.st_ino)
        if key in hard_links:
            info.type, info.linkname = tarfile.LNKTYPE, hard_links[key]
            yield _header(info)
            return
        hard_links[key] = name
    yield from _leaf(path, info, status)


def _leaf(path: str, info: tarfile.TarInfo, status: os.stat_result) -> Iterator[bytes]:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif stat.S_ISFIFO(mode):
        info.type = tarfile.FIFOTYPE
    else:
        info.size = status.st_size
    _attributes(path, info)
    yield _header(info)
    if stat.S_ISREG(mode):
        yield from _content(path, status.st_size)


def _content(path: str, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb", buffering=0) as file:
        while left and (data := file.read(min(PIECE, left))):
            left -= len(data)
            yield data
    if left:  # shrunk meanwhile; the header promised the size
        yield bytes(left)
    if size % 512:
        yield bytes(-size % 512)


def _attributes(path: str, info: tarfile.TarInfo) -> dict[str, bytes]:
    """Put the file's extended attributes into the header; all of them, overlayfs's own included, are returned."""
    found: dict[str, bytes] = {}
    for key in os.listxattr(path, follow_symlinks=False):
        value = os.getxattr(path, key, follow_symlinks=False)
        found[key] = value
        if not key.startswith(_OVERLAY):
            info.pax_headers = {
                **info.pax_headers,
                f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape"),
            }
    return found


def _info(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    if info.type == tarfile.DIRTYPE:
        info.name += "/" if not info.name.endswith("/") else ""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
