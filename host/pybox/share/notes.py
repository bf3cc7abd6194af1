"""Owners of files that take no extended attribute: in memory, and in a file that outlives the server."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from pybox.files import write_atomically

log = logging.getLogger(__name__)
_GROWTH = 1000  # lines that say what a later line says anew, before the file is written anew


class Owner(NamedTuple):
    """What the guest shall see instead of the host's numbers."""

    uid: int
    gid: int
    mode: int | None = None  # permission bits; None: the host's


class Key(NamedTuple):
    """What tells one file of a share from those that had its inode number before it, as far as the system can."""

    share: str  # path of the shared folder
    inode: int
    format: int
    born: int  # ms since the epoch; 0 where files have no time of birth


def key_of(share: str, status: os.stat_result) -> Key:
    """The key of a file with these attributes."""
    return Key(share, status.st_ino, stat.S_IFMT(status.st_mode), int(getattr(status, "st_birthtime", 0) * 1000))


class Notes:
    """The owners. The file has one JSON array per line, a key and its owner or nothing; the last line of a key counts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._owners: dict[Key, Owner] = {}
        self._read()

    def __bool__(self) -> bool:
        return bool(self._owners)

    def get(self, key: Key) -> Owner | None:
        return self._owners.get(key)

    def put(self, key: Key, owner: Owner | None) -> None:
        """Remember an owner, or None for "no more"."""
        if self._owners.get(key) == owner:
            return
        if owner is None:
            del self._owners[key]
        else:
            self._owners[key] = owner
        if self._path is None:
            return
        try:
            with self._path.open("a") as file:
                file.write(_line(key, owner))
        except OSError as error:
            log.error("an owner is not remembered beyond this run: %s", error)

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            lines = self._path.read_text().split("\n")
        except FileNotFoundError:
            return
        is_torn = lines.pop() != ""  # by a server that died while it wrote
        for line in lines:
            try:
                key, owner = _parse(json.loads(line))
            except (ValueError, TypeError):
                log.error("%s has a line that is not its own: %r", self._path, line)
                continue
            self._owners.pop(key, None)
            if owner is not None:
                self._owners[key] = owner
        if is_torn or len(lines) > len(self._owners) + _GROWTH:
            text = "".join(_line(key, owner) for key, owner in self._owners.items())
            write_atomically(self._path, text.encode(), 0o600)


def _line(key: Key, owner: Owner | None) -> str:
    return json.dumps([key, owner]) + "\n"


def _parse(content: Any) -> tuple[Key, Owner | None]:
    key, owner = content
    return Key(*key), None if owner is None else Owner(*owner)
