"""The one SQLite database of the engine, on the data disk.

One connection, one writer, WAL with `synchronous=FULL`: a transaction that returned is on the disk. Each room
brings its own tables (`CREATE TABLE IF NOT EXISTS …`) and keeps its own rows; nobody joins across rooms.
All calls come from the engine's main thread and are short; only opening it may be another thread's work.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pyboxd.errors import SystemFailure

Row = tuple[Any, ...]
_LOG_SPACE = 5 * 1024 * 1024  # bytes; SQLite starts the log over after 1000 pages of 4 KiB


class Database:
    """Open (or create) the database at `path`; ":memory:" for tests."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._depth = 0

    def reserve(self) -> None:
        """Take the space that the log of transactions needs: on a full disk containers must still be able to end, and
        people to remove what fills it. No error when the disk is full already."""
        with suppress(OSError):
            _take_space(f"{self._path}-wal")

    def define(self, schema: str) -> None:
        """Run a room's `CREATE … IF NOT EXISTS` statements."""
        self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside are kept, or none is. Nested calls join the outer transaction.

        SystemFailure when the disk is full.
        """
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
            self._commit()

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._connection.in_transaction:  # else nobody could begin another one
                self._connection.execute("ROLLBACK")
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise SystemFailure("write to the engine's database: no space left on device") from error
            raise

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


def _take_space(log: str) -> None:
    """Make the log as large as it gets; SQLite overwrites it from its start and takes zeros for its end. OSError."""
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(descriptor).st_size < _LOG_SPACE:
            os.posix_fallocate(descriptor, 0, _LOG_SPACE)
    finally:
        os.close(descriptor)
