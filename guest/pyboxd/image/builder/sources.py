"""What a COPY means on the side it copies from: wildcards, and a digest of the content. Blocking."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from typing import Protocol

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image.builder.ignore import component_regex
from pyboxd.image.builder.trees import Excluded, Item, Tree, is_left_out
from pyboxd.image.workers import Stop

_WILDCARDS = set("*?[\\")


@frozen
class Source:
    """One thing to copy: a path inside the tree, which a link may lead to."""

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


def find_sources(tree: Tree, patterns: Sequence[str], *, from_context: bool) -> list[Source]:
    """The things that the patterns mean, in order. SourceMissing, InvalidArgument, OSError."""
    found: dict[str, Source] = {}
    for pattern in patterns:
        path = _clean(pattern, from_context=from_context)
        matches = list(_matches(tree, path.split("/"), "")) if _WILDCARDS & set(path) else [path]
        for match in matches:
            mode = tree.mode(match)
            if mode is None:
                if match != path:
                    continue  # a dangling link that a wildcard met
                raise SourceMissing(pattern)
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise InvalidArgument(f"cannot copy {pattern}: it is neither a file nor a directory")
            found[match] = Source(match, stat.S_ISDIR(mode))
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


def _matches(tree: Tree, components: list[str], folder: str) -> Iterator[str]:
    """Paths under `folder` that match, one pattern per component."""
    pattern, rest = components[0], components[1:]
    if not _WILDCARDS & set(pattern):
        names = [pattern] if tree.mode(f"{folder}/{pattern}") is not None else []
    else:
        regex = component_regex(pattern)
        names = [name for name in tree.names(folder) if regex.fullmatch(name)]
    for name in names:
        path = f"{folder}/{name}" if folder else name
        if rest:
            yield from _matches(tree, rest, path)
        else:
            yield path


class _Hash(Protocol):
    """An object of hashlib."""

    def update(self, data: bytes, /) -> None: ...


def content_digest(tree: Tree, source: Source, excluded: Excluded, stop: Stop, *, owners: bool) -> str:
    """Hex digest of names, kinds, modes, contents, attributes and (if asked) owners; never of times."""
    digest = hashlib.sha256()
    with tree.item(source.path) as item:
        _Digester(digest, excluded, stop, owners=owners).add(item, "")
    return digest.hexdigest()


class _Digester:
    def __init__(self, digest: _Hash, excluded: Excluded, stop: Stop, *, owners: bool) -> None:
        self._digest = digest
        self._excluded = excluded
        self._stop = stop
        self._owners = owners

    def add(self, item: Item, path: str) -> None:
        self._stop.check()
        mode = item.mode
        owner = item.owner if self._owners else ""
        self._fields(os.fsencode(path), b"%o %x %b" % (mode, item.device, str(owner).encode()))
        if stat.S_ISLNK(mode):
            self._fields(os.fsencode(item.link()))
        elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            for key, value in sorted(item.attributes().items()):
                self._fields(key.encode(), value)
        if stat.S_ISREG(mode):
            self._fields(item.digest(self._stop))
        elif stat.S_ISDIR(mode):
            for child in item.children():
                inner = f"{path}/{child.name}" if path else child.name
                if not self._excluded(inner) and not is_left_out(child.mode, child.device):
                    self.add(child, inner)

    def _fields(self, *values: bytes) -> None:
        """Add values so that their ends can be told."""
        for value in values:
            self._digest.update(b"%d:%b" % (len(value), value))
