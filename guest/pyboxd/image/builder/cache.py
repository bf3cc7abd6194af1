"""Which image a step made of which parent, so that the same step need not run again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pyboxd.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS build_step (parent TEXT NOT NULL, step TEXT NOT NULL, image TEXT NOT NULL,
    PRIMARY KEY (parent, step));
CREATE TABLE IF NOT EXISTS build_content (place TEXT PRIMARY KEY, digest TEXT NOT NULL);
"""


class Cache:
    """The records of all builds. A record may name an image that is gone; the caller looks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(_SCHEMA)

    def find(self, parent: str, step: str) -> str | None:
        """Id of the image that `step` made of the image `parent` ("" is scratch)."""
        row = self._database.row("SELECT image FROM build_step WHERE parent = ? AND step = ?", (parent, step))
        return str(row[0]) if row else None

    def remember(self, parent: str, step: str, image: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO build_step VALUES (?, ?, ?)", (parent, step, image))

    def content(self, place: str) -> str | None:
        """Digest of what is at a place that never changes (paths inside a stack of layers)."""
        row = self._database.row("SELECT digest FROM build_content WHERE place = ?", (place,))
        return str(row[0]) if row else None

    def remember_content(self, place: str, digest: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO build_content VALUES (?, ?)", (place, digest))

    def forget(self) -> None:
        """Drop all records (`docker builder prune`)."""
        with self._database.transaction():
            self._database.execute("DELETE FROM build_step")
            self._database.execute("DELETE FROM build_content")


def key(parts: Sequence[str]) -> str:
    """One name for a list of texts, whatever is in them."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()
