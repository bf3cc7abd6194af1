"""Which layers are needed, by images or by jobs whose image is still to come, and the removal of all others.

What is removed leaves the tables and the store in one go, while the loop does nothing else. Only deleting the files
takes time: that happens behind it (`bury`), at a place where nobody looks for them.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from pyboxd.database import Database
from pyboxd.image import config as codec
from pyboxd.image.layerstore import Layer, LayerStore

Keep = Callable[[Layer], Layer]


class LayerUse:
    """The use of the store's layers; the tables `image` and `layer` are those of `Images`. On the loop's thread."""

    def __init__(self, database: Database, layers: LayerStore) -> None:
        self._database = database
        self._layers = layers
        self._kept: Counter[str] = Counter()  # diff id -> jobs that need the layer and have no image yet

    @asynccontextmanager
    async def keeping(self, layers: Sequence[str] = ()) -> AsyncIterator[Keep]:
        """Nobody removes these layers inside, nor one that was given to what the block gets.

        At its end those go that no image has got: an attempt that failed.
        """
        mine = [*layers]
        self._kept.update(mine)

        def keep(layer: Layer) -> Layer:
            mine.append(layer.diff_id)
            self._kept.update((layer.diff_id,))
            return layer

        try:
            yield keep
        finally:
            self._kept.subtract(mine)
            await bury(self.drop(mine))

    def drop(self, layers: Sequence[str]) -> list[str]:
        """Take those out that no image has and nobody keeps; the folders that are left to delete."""
        used = self._used()
        graves = []
        for diff_id in dict.fromkeys(layers):
            if diff_id not in used and self._kept[diff_id] <= 0:
                self._database.execute("DELETE FROM layer WHERE diff_id = ?", (diff_id,))
                graves.append(self._layers.detach(diff_id))
        return graves

    def sweep(self) -> list[str]:
        """Take all layers out that no image has; the folders that are left to delete. For a time when no job runs."""
        used = self._used()
        for (diff_id,) in self._database.rows("SELECT diff_id FROM layer"):
            if diff_id not in used:
                self._database.execute("DELETE FROM layer WHERE diff_id = ?", (diff_id,))
        return [self._layers.detach(diff_id) for diff_id in self._layers.known() if diff_id not in used]

    def _used(self) -> set[str]:
        rows = self._database.rows("SELECT config FROM image")
        return {diff_id for (raw,) in rows for diff_id in codec.decode(raw).layers}


async def bury(graves: Sequence[str]) -> None:
    """Delete folders that were taken out of the store."""
    for grave in graves:
        await asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True)
