"""The image room's door for the engine: the store with pulling, loading and saving."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.image import transfer
from pyboxd.image.images import Images
from pyboxd.image.model import Image, ProgressSink, RegistrySettings
from pyboxd.image.reference import parse
from pyboxd.model import RegistryAuth


class ImageRoom(Images):
    """All that the engine does with images, but for building (`builder`)."""

    registries = RegistrySettings()
    """Set from the machine's configuration."""

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> Image:
        """Pull an image; see `pull.Puller`. SystemFailure when the disk is full."""
        from pyboxd.image.pull import Puller  # the HTTP and mail libraries are two megabytes

        with _disk_trouble_told():
            return await Puller(self, self.registries).pull(reference, platform=platform, auth=auth, progress=progress)

    async def load(self, chunks: AsyncIterator[bytes], progress: ProgressSink) -> Sequence[str]:
        """Load an archive; the reference (or id) of every image in it. SystemFailure when the disk is full."""
        with _disk_trouble_told():
            return await transfer.load(self, chunks, progress)

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """The archive of the named images. Blocking; read it in a worker thread."""
        wanted: dict[str, tuple[Image, list[str]]] = {}
        for name in names:
            for image, reference in self._saved(name):
                _, references = wanted.setdefault(image.id, (image, []))
                if reference and reference not in references:
                    references.append(reference)
        return transfer.save(self, [(image, tuple(references)) for image, references in wanted.values()])

    def _saved(self, name: str) -> list[tuple[Image, str]]:
        """What `docker save NAME` means: an image with one name, all tags of a repository, or an image without any."""
        try:
            wanted = parse(name)
        except InvalidArgument:
            return [(self.get(name), "")]  # an id
        if not wanted.tag and not wanted.digest:
            tags = [(image, text) for image in self.list() for text in image.references if parse(text).name == wanted.name]
            return tags or [(self.get(name), "")]
        return [(self.get(name), wanted.familiar if wanted.tag and not wanted.digest else "")]


@contextmanager
def _disk_trouble_told() -> Iterator[None]:
    """What the network does is told where it happens; other errors of the system are those of the data disk."""
    try:
        yield
    except OSError as error:
        raise SystemFailure(f"write layer: {os.strerror(error.errno or 0).lower()}") from error
