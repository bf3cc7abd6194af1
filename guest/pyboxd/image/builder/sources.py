"""What a COPY means on the side it copies from: wildcards, and a digest of the content. Blocking."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.ignore import component_regex
from pyboxd.image.builder.places import Root
from pyboxd.image.extract import get_attributes
from pyboxd.image.workers import Stop

_WILDCARDS = set("*?[\\")
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True)
class Source:
    """One thing to copy: a path inside the root, which a link may lead to."""

    path: str  # clean and relative, "" for the root itself
    directory: bool

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


class SourceMissing(InvalidArgument):
    """A source path that leads nowhere; `path` is as the Dockerfile says."""

    def __init__(self, path: str) -> None:
        super().__init__(f"stat {path}: file does not exist")
        self.path = path


def find_sources(root: Root, patterns: Sequence[str], *, from_context: bool) -> list[Source]:
    """The things that the patterns mean, in order. SourceMissing, InvalidArgument."""
    found: dict[str, Source] = {}
    for pattern in patterns:
        path = _clean(pattern, from_context=from_context)
        matches = list(_matches(root, path.split("/"), "")) if _WILDCARDS & set(path) else [path]
        for match in matches:
            status = root.status(match)
            if status is None:
                if match != path:
                    continue  # a dangling link that a wildcard met
                raise SourceMissing(pattern)
            if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
                raise InvalidArgument(f"cannot copy {pattern}: it is neither a file nor a directory")
            found[match] = Source(match, stat.S_ISDIR(status.st_mode))
    if not found:
        raise InvalidArgument("no source files were specified")
    return list(found.values())


def _clean(pattern: str, *, from_context: bool) -> str:
    path = posixpath.normpath(pattern) if pattern else "."
    if from_context and (path == ".." or path.startswith("../")):
        raise InvalidArgument(f"forbidden path outside the build context: {pattern} ()")
    path = posixpath.normpath("/" + path).strip("/")
    if "\0" in path:
        raise InvalidArgument(f"invalid path: {pattern!r}")
    return path


def _matches(root: Root, components: list[str], folder: str) -> Iterator[str]:
    """Paths under `folder` that match, one pattern per component."""
    pattern, rest = components[0], components[1:]
    if not _WILDCARDS & set(pattern):
        names = [pattern] if root.status(f"{folder}/{pattern}") is not None else []
    else:
        regex = component_regex(pattern)
        names = [name for name in _names(root, folder) if regex.fullmatch(name)]
    for name in names:
        path = f"{folder}/{name}" if folder else name
        if rest:
            yield from _matches(root, rest, path)
        else:
            yield path


def _names(root: Root, folder: str) -> list[str]:
    try:
        descriptor = root.open_directory(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


class Hash(Protocol):
    """An object of hashlib."""

    def update(self, data: bytes, /) -> None: ...


def content_digest(root: Root, source: Source, excluded: Callable[[str], bool], stop: Stop, *, owners: bool) -> str:
    """Hex digest of names, kinds, modes, contents, attributes and (if asked) owners; never of times."""
    digest = hashlib.sha256()
    descriptor = root.open(source.path, _READ)
    try:
        _Digester(digest, excluded, stop, owners=owners).top(descriptor)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


class _Digester:
    def __init__(self, digest: Hash, excluded: Callable[[str], bool], stop: Stop, *, owners: bool) -> None:
        self._digest = digest
        self._excluded = excluded
        self._stop = stop
        self._owners = owners

    def top(self, descriptor: int) -> None:
        self._open(descriptor, os.fstat(descriptor), "")

    def _open(self, descriptor: int, status: os.stat_result, path: str) -> None:
        """A file or directory that is open."""
        self._header(status, path)
        for key, value in sorted(get_attributes(descriptor).items()):
            self._field(key.encode(), value)
        if stat.S_ISREG(status.st_mode):
            self._field(b"size", str(status.st_size).encode())
            while data := os.read(descriptor, 1 << 20):
                self._stop.check()
                self._digest.update(data)
            return
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            inner = f"{path}/{name}" if path else name
            if not self._excluded(inner):
                self._entry(descriptor, name, inner)

    def _entry(self, parent: int, name: str, path: str) -> None:
        self._stop.check()
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            descriptor = os.open(name, _READ | os.O_NOFOLLOW, dir_fd=parent)
            try:
                self._open(descriptor, os.fstat(descriptor), path)
            finally:
                os.close(descriptor)
            return
        self._header(status, path)
        if stat.S_ISLNK(status.st_mode):
            self._field(b"link", os.fsencode(os.readlink(name, dir_fd=parent)))

    def _header(self, status: os.stat_result, path: str) -> None:
        self._field(b"path", os.fsencode(path))
        self._field(b"mode", b"%o %x" % (status.st_mode, status.st_rdev))
        if self._owners:
            self._field(b"owner", b"%d:%d" % (status.st_uid, status.st_gid))

    def _field(self, name: bytes, value: bytes) -> None:
        self._digest.update(b"%d:%s%d:%s" % (len(name), name, len(value), value))
