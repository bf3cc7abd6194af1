"""What is in directories, as it was when a listing began: whoever reads on sees no name twice and misses none."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from dataclasses import dataclass

from pybox.share import native
from pybox.share.nodes import SELF

_KEPT = 64  # listings


@dataclass(frozen=True, slots=True)
class Name:
    """One entry. `mode` has the format bits alone, or 0 when the system did not tell."""

    name: bytes
    inode: int
    mode: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The names of one directory; reading on after entry `index` asks for `cookie(index)`."""

    id: int
    node: int
    names: tuple[Name, ...]

    def cookie(self, index: int) -> int:
        return self.id << 32 | index + 1


class Listings:
    """The last listings. One that is gone is made again."""

    def __init__(self) -> None:
        self._listings: OrderedDict[int, Listing] = OrderedDict()
        self._next = 1

    def make(self, node: int, names: tuple[Name, ...]) -> Listing:
        """Keep the names of a directory as a new listing."""
        listing = Listing(self._next, node, names)
        self._next = self._next % 0x7FFF_FFFF + 1  # an offset must stay positive
        self._listings[listing.id] = listing
        if len(self._listings) > _KEPT:
            self._listings.popitem(last=False)
        return listing

    def find(self, node: int, offset: int) -> Listing | None:
        """The listing of a directory that an offset other than 0 belongs to, if it is still there."""
        listing = self._listings.get(offset >> 32)
        if listing is None or listing.node != node:
            return None
        self._listings.move_to_end(listing.id)
        return listing


def read_names(directory: int) -> tuple[Name, ...]:
    """Read an open directory. Raises OSError."""
    readable = os.open(SELF, native.LIST_DIRECTORY, dir_fd=directory)
    try:
        own = os.fstat(readable)
        names = [Name(b".", own.st_ino, stat.S_IFDIR), Name(b"..", own.st_ino, stat.S_IFDIR)]
        with os.scandir(readable) as entries:
            names += [Name(os.fsencode(entry.name), entry.inode(), _format(entry)) for entry in entries]
        return tuple(names)
    finally:
        os.close(readable)


def _format(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0
