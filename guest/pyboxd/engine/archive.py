"""`docker cp`: what a path in a container is, its tar archive, and an archive unpacked there. Blocking parts say so."""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.frozen import frozen
from pyboxd.image.builder.accounts import owner_of
from pyboxd.image.builder.places import InRoot, Root
from pyboxd.image.compression import decompressed
from pyboxd.image.extract import Rules, extract, get_attributes
from pyboxd.image.tarread import Kind, TarEntry, TarReader, clean_name
from pyboxd.linux import constants as k
from pyboxd.linux.inroot import Owner
from pyboxd.linux.mount import filesystem_magic

_PIECE = 256 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KERNEL = (k.PROC_SUPER_MAGIC, k.SYSFS_MAGIC, k.CGROUP2_SUPER_MAGIC)  # no files, and not to be read like files
_GO_MODES = (  # Go's os.FileMode: bits for the kinds of file beside the permissions
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
    (stat.S_ISCHR, (1 << 26) | (1 << 21)),
)


@frozen
class PathStat:
    """What a path in a container is. `mode` is Go's os.FileMode, `mtime` nanoseconds since the epoch."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str = ""


@frozen
class _Place:
    """A file by its directory's descriptor and its name there; "." is the directory itself."""

    folder: int
    name: str
    shown: str  # what the top of an archive of it is called


@contextmanager
def _find(root: Root, path: str, container: str) -> Iterator[_Place]:
    """Walk to `path`: links on the way are followed, one at its end is not, unless "/" or "/." comes behind it."""
    absolute = "/" + path.lstrip("/")
    directory, base = posixpath.split(absolute)
    if base in ("", ".", ".."):
        directory, base = absolute, "."
    try:
        folder = root.open_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"Could not find the file {path} in container {container}") from None
    try:
        shown = base if base != "." else (posixpath.basename(absolute.rstrip("/")) or "/")
        yield _Place(folder, base, shown)
    finally:
        os.close(folder)


def status(root: Root, path: str, container: str) -> PathStat:
    """Look at `path`. NotFound."""
    with _find(root, path, container) as place:
        return _status(root, place, path, container)


def _status(root: Root, place: _Place, path: str, container: str) -> PathStat:
    try:
        found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        raise NotFound(f"Could not find the file {path} in container {container}") from None
    target = ""
    if stat.S_ISLNK(found.st_mode):
        text = os.readlink(place.name, dir_fd=place.folder)
        target = posixpath.normpath(posixpath.join(posixpath.dirname("/" + path.strip("/")), text))
    return PathStat(place.shown, found.st_size, go_mode(found.st_mode), found.st_mtime_ns, target)


def go_mode(mode: int) -> int:
    """A mode of stat(2) as Go's os.FileMode."""
    bits = stat.S_IMODE(mode) & 0o777
    for is_kind, bit in _GO_MODES:
        bits |= bit if is_kind(mode) else 0
    bits |= 1 << 23 if mode & stat.S_ISUID else 0
    bits |= 1 << 22 if mode & stat.S_ISGID else 0
    return bits | (1 << 20 if mode & stat.S_ISVTX else 0)


def write(root: Root, path: str, container: str) -> Iterator[bytes]:
    """The tar archive of `path`; its top is called as the path's last part. Blocking. NotFound at the first step."""
    with _find(root, path, container) as place:
        _status(root, place, path, container)
        top = "." if path.rstrip("/").endswith("/.") or path == "." else place.shown.strip("/") or "."
        yield from _Writer().entry(place.folder, place.name, top)
    yield bytes(1024)


class _Writer:
    """Writes members; hard links among them stay hard links."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}
        self._of_kernel: dict[int, bool] = {}  # devices, and whether the kernel makes up what is there

    def entry(self, folder: int, name: str, shown: str) -> Iterator[bytes]:
        """One file, or a directory with all it holds."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:  # it went while its directory was read
            return
        info = tarfile.TarInfo(shown)
        info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        info.mtime = int(status.st_mtime)
        if stat.S_ISDIR(status.st_mode):
            yield from self._directory(folder, name, info, status.st_dev)
        elif stat.S_ISREG(status.st_mode):
            yield from self._file(folder, name, info, status)
        elif not stat.S_ISSOCK(status.st_mode):
            yield self._special(folder, name, info, status)

    def _directory(self, folder: int, name: str, info: tarfile.TarInfo, device: int) -> Iterator[bytes]:
        descriptor = os.open(name, _DIRECTORY, dir_fd=folder)
        try:
            prefix = info.name
            info.type, info.name = tarfile.DIRTYPE, f"{prefix}/"
            yield _header(info, descriptor)
            if device not in self._of_kernel:
                self._of_kernel[device] = filesystem_magic(descriptor) in _KERNEL
            if self._of_kernel[device]:
                return
            for inner in sorted(os.listdir(descriptor)):
                yield from self.entry(descriptor, inner, f"{prefix}/{inner}")
        finally:
            os.close(descriptor)

    def _file(self, folder: int, name: str, info: tarfile.TarInfo, status: os.stat_result) -> Iterator[bytes]:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            info.type, info.linkname = tarfile.LNKTYPE, self._links[key]
            yield _header(info)
            return
        self._links[key] = info.name
        descriptor = os.open(name, _READ, dir_fd=folder)
        try:
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode):  # replaced meanwhile
                return
            info.size = left = opened.st_size
            yield _header(info, descriptor)
            while left and (data := os.read(descriptor, min(_PIECE, left))):
                left -= len(data)
                yield data
            yield bytes(left + -info.size % 512)  # what it shrank by, and the padding
        finally:
            os.close(descriptor)

    def _special(self, folder: int, name: str, info: tarfile.TarInfo, status: os.stat_result) -> bytes:
        if stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=folder)
        elif stat.S_ISFIFO(status.st_mode):
            info.type = tarfile.FIFOTYPE
        else:
            info.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return _header(info)


def _header(info: tarfile.TarInfo, descriptor: int = -1) -> bytes:
    if descriptor >= 0:
        attributes = get_attributes(descriptor)
        info.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in attributes.items()
        }
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def resolve_directory(root: Root, path: str, container: str) -> str:
    """Where the directory `path` really is in the container. NotFound, InvalidArgument for what is none."""
    found = root.status("/" + path.lstrip("/"))
    if found is None:
        raise NotFound(f"Could not find the file {path} in container {container}")
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidArgument("extraction point is not a directory")
    descriptor = root.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        top = os.readlink(f"/proc/self/fd/{root.fd}").rstrip("/")
        return os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(top) or "/"
    finally:
        os.close(descriptor)


def unpack(root: Root, path: str, chunks: Iterator[bytes], owner: Owner | None, keep_kinds: bool) -> None:
    """Unpack an archive (compressed or not) into the directory `path`. Blocking.

    Numbers of owners are the archive's unless there is an `owner`. With `keep_kinds` a directory does not give way to
    a file, nor a file to a directory. InvalidArgument.
    """
    data = decompressed(chunks)
    reader = _KeepingReader(data, root, path) if keep_kinds else TarReader(data)
    extract(reader, InRoot(root, path), Rules(owners=True, owner=owner, devices=True))


class _KeepingReader(TarReader):
    """Looks at what each member would replace."""

    def __init__(self, source: Iterator[bytes], root: Root, folder: str) -> None:
        super().__init__(source)
        self._root = root
        self._folder = folder

    def __iter__(self) -> Iterator[TarEntry]:
        for entry in super().__iter__():
            self._check(entry)
            yield entry

    def _check(self, entry: TarEntry) -> None:
        place = f"{self._folder}/{clean_name(entry.name)}"
        try:
            descriptor = self._root.open(place, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)
        if is_directory and entry.kind is not Kind.DIRECTORY:
            raise InvalidArgument(f'cannot overwrite directory "{place}" with non-directory "{entry.name}"')
        if not is_directory and entry.kind is Kind.DIRECTORY:
            raise InvalidArgument(f'cannot overwrite non-directory "{place}" with directory "{entry.name}"')


def user_owner(root: Root, user: str) -> Owner:
    """The numbers of a container's `User`. InvalidArgument."""
    return owner_of(user, root) if user else (0, 0)
