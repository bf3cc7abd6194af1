"""`docker diff`: what a container's writable layer changes of the image below it. Blocking."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from pyboxd.image.builder.places import Root

MODIFIED, ADDED, DELETED = 0, 1, 2  # Docker's Kind


@dataclass(frozen=True)
class Change:
    """One path, absolute in the container."""

    path: str
    kind: int


def changes(upper: str, below: Root) -> list[Change]:
    """All changes in the order of their paths. `below` is the image's root."""
    return sorted(_walk(upper, "", below), key=lambda change: change.path)


def _walk(folder: str, prefix: str, below: Root) -> Iterator[Change]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                yield Change(path, DELETED)
                continue
            yield Change(path, MODIFIED if _exists(below, path) else ADDED)
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(entry.path, path, below)


def _exists(below: Root, path: str) -> bool:
    try:
        os.close(below.open(path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True
