"""The image room's door for the engine: the store with pulling, loading and saving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from pyboxd.image import transfer
from pyboxd.image.distribution import RegistrySettings
from pyboxd.image.images import Images
from pyboxd.image.model import Image, ProgressSink
from pyboxd.image.pull import Puller
from pyboxd.model import RegistryAuth


class ImageRoom(Images):
    """All that the engine does with images, but for building (`builder`)."""

    registries = RegistrySettings()
    """Set from the machine's configuration."""

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> Image:
        """Pull an image; see `pull.Puller`."""
        return await Puller(self, self.registries).pull(reference, platform=platform, auth=auth, progress=progress)

    async def load(self, chunks: AsyncIterator[bytes], progress: ProgressSink) -> Sequence[str]:
        """Load an archive; the reference (or id) of every image in it."""
        return await transfer.load(self, chunks, progress)

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """The archive of the named images. Blocking; read it in a worker thread."""
        found = [(self.get(name), name) for name in names]
        return transfer.save(self, [(image, (name,) if self.is_reference(name, image) else ()) for image, name in found])
