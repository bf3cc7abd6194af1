"""The one SQLite database of the engine, on the data disk.

One connection, one writer, WAL with `synchronous=FULL`: a transaction that returned is on the disk. Each room
brings its own tables (`CREATE TABLE IF NOT EXISTS …`) and keeps its own rows; nobody joins across rooms.
All calls come from the engine's main thread and are short.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Row = tuple[Any, ...]


class Database:
    """Open (or create) the database at `path`; ":memory:" for tests."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._depth = 0

    def define(self, schema: str) -> None:
        """Run a room's `CREATE … IF NOT EXISTS` statements."""
        self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside are kept, or none is. Nested calls join the outer transaction."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:  # whatever it is: nothing of the transaction may stay
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement; number of rows it changed."""
        return self._connection.execute(statement, parameters).rowcount

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[Row]:
        return self._connection.execute(query, parameters).fetchall()

    def row(self, query: str, parameters: Sequence[object] = ()) -> Row | None:
        found: Row | None = self._connection.execute(query, parameters).fetchone()
        return found

    def close(self) -> None:
        self._connection.close()
