"""The build context as a tree that is never unpacked: contents in one file, names and the rest in memory.

A hostile archive finds no file system to play with, and a build whose steps are all cached writes one file in all.
Links of the archive lead inside the context, whatever their text.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyboxd.image.builder.ignore import Patterns
from pyboxd.image.builder.trees import Item, copy_content
from pyboxd.image.extract import nanoseconds
from pyboxd.image.tarread import Kind, TarEntry, TarError, TarReader, clean_name
from pyboxd.image.workers import Stop
from pyboxd.linux.inroot import MAX_LINKS, Owner, components

_PIECE = 256 * 1024
_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.SYMLINK: stat.S_IFLNK, Kind.FIFO: stat.S_IFIFO, Kind.DIRECTORY: stat.S_IFDIR}
_NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class _Node:
    mode: int
    time: int = 0  # nanoseconds
    link: str = ""
    offset: int = 0  # of the content in the spool
    size: int = 0
    digest: bytes = b""
    attributes: Mapping[str, bytes] = field(default_factory=lambda: _NOTHING)
    names: int = 1
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class ContextTree:
    """Filled once with `fill`, then read. `spool` is the path of a new file for the contents."""

    def __init__(self, spool: str) -> None:
        self._spool = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._top = _Node(stat.S_IFDIR | 0o755)

    def close(self) -> None:
        os.close(self._spool)

    def fill(self, archive: TarReader) -> None:
        """Read the whole archive. Blocking. TarError, OSError for a full disk."""
        with os.fdopen(os.dup(self._spool), "wb", buffering=1 << 20) as spool:
            offset = 0
            for entry in archive:
                name = clean_name(entry.name)
                if not name or entry.kind in (Kind.CHARACTER, Kind.BLOCK):
                    continue
                digest = hashlib.sha256()
                if entry.kind is Kind.FILE:
                    for piece in archive.payload():
                        digest.update(piece)
                        spool.write(piece)
                self._add(name, entry, offset, digest.digest())
                offset += entry.size

    def prune(self, patterns: Patterns) -> None:
        """Take out what a .dockerignore names."""
        self._prune(self._top, "", patterns)

    def read(self, path: str, limit: int) -> bytes | None:
        """The first bytes of a regular file; None if there is none."""
        try:
            node = self._find(path)
        except OSError:
            return None
        if node is None or not stat.S_ISREG(node.mode):
            return None
        return os.pread(self._spool, min(node.size, limit), node.offset)

    # -- Tree ------------------------------------------------------------------------------------

    def mode(self, path: str) -> int | None:
        node = self._find(path)
        return None if node is None else node.mode

    def names(self, folder: str) -> list[str]:
        node = self._find(folder)
        return sorted(node.children) if node is not None else []

    def item(self, path: str) -> contextlib.AbstractContextManager[Item]:
        node = self._find(path)
        if node is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return contextlib.nullcontext(_ContextItem(os.path.basename(path), node, self._spool))

    # -- inside ----------------------------------------------------------------------------------

    def _find(self, path: str) -> _Node | None:
        """What a path leads to, links followed as if the context were `/`. OSError(ELOOP)."""
        stack = [self._top]
        todo = components(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                stack = stack[:-1] or stack
                continue
            node = stack[-1].children.get(name)
            if node is None:
                return None
            if stat.S_ISLNK(node.mode):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                stack = stack[:1] if node.link.startswith("/") else stack
                todo += components(node.link)
                continue
            stack = [*stack, node]
        return stack[-1]

    def _add(self, name: str, entry: TarEntry, offset: int, digest: bytes) -> None:
        parent, base = self._parent(name)
        old = parent.children.get(base)
        if entry.kind is Kind.HARDLINK:
            target = self._plain(clean_name(entry.link))
            if target is None or target.is_directory:
                raise TarError(f"invalid hard link in archive: {name[:200]!r} to {entry.link[:200]!r}")
            if old is not target:
                target.names += 1
                parent.children[base] = target
            return
        mode = _FORMATS[entry.kind] | entry.mode
        if entry.kind is Kind.DIRECTORY and old is not None and old.is_directory:
            old.mode, old.time, old.attributes = mode, nanoseconds(entry.mtime), entry.xattrs
            return
        parent.children[base] = _Node(
            0o777 | stat.S_IFLNK if entry.kind is Kind.SYMLINK else mode,
            nanoseconds(entry.mtime),
            entry.link if entry.kind is Kind.SYMLINK else "",
            offset,
            entry.size,
            digest,
            entry.xattrs,
        )

    def _parent(self, name: str) -> tuple[_Node, str]:
        """The directory of a new entry; what is missing of it is made. No link may be on the way."""
        folder, _, base = name.rpartition("/")
        here = self._top
        for part in folder.split("/") if folder else ():
            inner = here.children.get(part)
            if inner is None:
                inner = here.children[part] = _Node(stat.S_IFDIR | 0o755)
            here = inner
            if not here.is_directory:
                raise TarError(f"cannot extract {name[:200]!r}: {part[:200]!r} is not a directory")
        return here, base

    def _plain(self, name: str) -> _Node | None:
        here: _Node | None = self._top
        for part in name.split("/") if name else ():
            here = here.children.get(part) if here is not None else None
        return here

    def _prune(self, folder: _Node, path: str, patterns: Patterns) -> None:
        for name, node in list(folder.children.items()):
            inner = f"{path}/{name}" if path else name
            ignored = patterns.matches(inner)
            if ignored and not (node.is_directory and patterns.has_exceptions):
                del folder.children[name]
                continue
            if node.is_directory:
                self._prune(node, inner, patterns)
                if ignored and not node.children:  # it would stay only for exceptions in it
                    del folder.children[name]


class _ContextItem:
    """A node while a walk stands at it. All belongs to root, whoever packed the archive."""

    def __init__(self, name: str, node: _Node, spool: int) -> None:
        self.name = name
        self._node = node
        self._spool = spool

    @property
    def mode(self) -> int:
        return self._node.mode

    @property
    def owner(self) -> Owner:
        return 0, 0

    @property
    def device(self) -> int:
        return 0

    @property
    def times(self) -> tuple[int, int]:
        return self._node.time, self._node.time

    @property
    def identity(self) -> object | None:
        return self._node if self._node.names > 1 else None

    def link(self) -> str:
        return self._node.link

    def attributes(self) -> Mapping[str, bytes]:
        return self._node.attributes

    def digest(self, _stop: Stop) -> bytes:
        return self._node.digest

    def chunks(self, stop: Stop) -> Iterator[bytes]:
        for start in range(0, self._node.size, _PIECE):
            stop.check()
            yield os.pread(self._spool, min(_PIECE, self._node.size - start), self._node.offset + start)

    def write_to(self, target: int, stop: Stop) -> None:
        copy_content(self._spool, self._node.offset, self._node.size, target, stop)

    def children(self) -> Iterator[Item]:
        for name, node in sorted(self._node.children.items()):
            yield _ContextItem(name, node, self._spool)


def filled(chunks: Iterable[bytes], spool: str) -> ContextTree:
    """The tree of an uncompressed archive. Blocking."""
    tree = ContextTree(spool)
    with contextlib.ExitStack() as undo:
        undo.callback(tree.close)
        tree.fill(TarReader(chunks))
        undo.pop_all()
    return tree
