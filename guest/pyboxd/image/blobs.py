"""Under which digests registries have the layers of the store: learnt by pulling and pushing.

Layers are kept uncompressed, and a compressor would have to make a blob again to find its digest. With this a layer
that a registry has is found there by asking.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from pyboxd.database import Database
from pyboxd.frozen import frozen

GZIP_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_GZIP = (GZIP_LAYER, "application/vnd.oci.image.layer.v1.tar+gzip")
# Rows go with their layer, whoever removes it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS layer_blob (
    diff_id TEXT NOT NULL REFERENCES layer (diff_id) ON DELETE CASCADE,
    digest TEXT NOT NULL, size INTEGER NOT NULL, repository TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest, repository));
"""


@frozen
class Blob:
    """A descriptor of a manifest. `media_type` is "" where it does not matter."""

    digest: str
    size: int
    media_type: str = ""


@frozen
class Place:
    """A layer's blob in a repository ("docker.io/library/debian")."""

    blob: Blob
    repository: str


class KnownBlobs:
    """The memory. On the loop's thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(_SCHEMA)

    def of(self, diff_id: str) -> list[Place]:
        """Where the layer was seen, the latest first."""
        query = "SELECT digest, size, repository FROM layer_blob WHERE diff_id = ? ORDER BY rowid DESC"
        rows = self._database.rows(query, (diff_id,))
        return [Place(Blob(digest, size, GZIP_LAYER), repository) for digest, size, repository in rows]

    def found(self, repository: str, layers: Mapping[str, Blob], seen: Container[str]) -> None:
        """Remember the gzipped ones among the blobs of layers (by diff id) of the store.

        Of a layer that is not among the `seen` ones a manifest alone says that the blob is it; that is believed when it
        is known from elsewhere.
        """
        with self._database.transaction():
            for diff_id, blob in layers.items():
                known = self.of(diff_id)
                believed = diff_id in seen or any(place.blob.digest == blob.digest for place in known)
                new = not known or known[0].repository != repository or known[0].blob.digest != blob.digest
                if believed and new and blob.media_type in _GZIP:
                    values = (diff_id, blob.digest, blob.size, repository)
                    self._database.execute("INSERT OR REPLACE INTO layer_blob VALUES (?, ?, ?, ?)", values)

    def lost(self, diff_id: str, digest: str, repository: str) -> None:
        """Forget what a repository does not have any more."""
        statement = "DELETE FROM layer_blob WHERE diff_id = ? AND digest = ? AND repository = ?"
        self._database.execute(statement, (diff_id, digest, repository))
