"""Rows of the engine's own tables: containers and volumes. A change is on the disk when its call has returned."""

from __future__ import annotations

from pyboxd.database import Database
from pyboxd.engine.model import Pairs, Record
from pyboxd.frozen import frozen
from pyboxd.runtime import codec

_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, volume TEXT NOT NULL);
"""


@frozen
class Volume:
    """A volume. `options` are those of Docker's `local` driver (`type`, `o`, `device`)."""

    name: str
    created: int  # nanoseconds since the epoch
    labels: Pairs = ()
    options: Pairs = ()
    anonymous: bool = False


class Store:
    """The two tables."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(_SCHEMA)

    def containers(self) -> list[Record]:
        """All containers, the oldest first."""
        rows = self._database.rows("SELECT record FROM containers")
        records = [codec.loads(Record, row[0].encode()) for row in rows]
        return sorted(records, key=lambda record: record.created)

    def save_container(self, record: Record) -> None:
        """Insert or replace one container."""
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO containers (id, name, record) VALUES (?1, ?2, ?3) "
                "ON CONFLICT (id) DO UPDATE SET name = ?2, record = ?3",
                (record.id, record.name, codec.dumps(record).decode()),
            )

    def remove_container(self, container_id: str) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def volumes(self) -> list[Volume]:
        """All volumes by name."""
        rows = self._database.rows("SELECT volume FROM volumes ORDER BY name")
        return [codec.loads(Volume, row[0].encode()) for row in rows]

    def add_volume(self, volume: Volume) -> None:
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO volumes (name, volume) VALUES (?, ?)", (volume.name, codec.dumps(volume).decode())
            )

    def remove_volume(self, name: str) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
