"""The image room's door for the engine: the store with what registries are used for, loading and saving.

What speaks to registries is imported when it is needed first: the HTTP and mail libraries are two megabytes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.image import transfer
from pyboxd.image.images import Images
from pyboxd.image.model import Image, ProgressSink, Pushed, RegistrySettings, RemoteImage, SearchResult
from pyboxd.image.reference import parse
from pyboxd.image.workers import run_blocking
from pyboxd.model import RegistryAuth

if TYPE_CHECKING:
    from pyboxd.image.blobs import KnownBlobs


class ImageRoom(Images):
    """All that the engine does with images, but for building (`builder`)."""

    registries = RegistrySettings()
    """Set from the machine's configuration."""

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> Image:
        """Pull an image; see `pull.Puller`. SystemFailure when the disk is full."""
        from pyboxd.image.pull import Puller

        with _disk_trouble_told():
            puller = Puller(self, self.registries, self._blobs)
            return await puller.pull(reference, platform=platform, auth=auth, progress=progress)

    async def pull_all(
        self, repository: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> None:
        """Pull all tags of a repository; see `pull.Puller`. SystemFailure when the disk is full."""
        from pyboxd.image.pull import Puller

        with _disk_trouble_told():
            puller = Puller(self, self.registries, self._blobs)
            await puller.pull_all(repository, platform=platform, auth=auth, progress=progress)

    async def push(
        self,
        reference: str,
        *,
        platform: str = "",
        auth: RegistryAuth | None = None,
        progress: ProgressSink,
        pushed: Callable[[Pushed], None],
    ) -> None:
        """Push a tag, or all tags of a repository; see `push.Pusher`."""
        from pyboxd.image.push import Pusher

        pusher = Pusher(self, self.registries, self._blobs)
        await pusher.push(reference, platform=platform, auth=auth, progress=progress, pushed=pushed)

    async def sign_in(self, auth: RegistryAuth) -> str:
        """Try a login; see `inquiry.sign_in`."""
        from pyboxd.image import inquiry

        return await run_blocking(lambda stop: inquiry.sign_in(auth, self.registries, stop))

    async def describe(self, name: str, auth: RegistryAuth | None) -> RemoteImage:
        """What a registry has under a name; see `inquiry.describe`."""
        from pyboxd.image import inquiry

        return await run_blocking(lambda stop: inquiry.describe(name, self.registries, auth, stop))

    async def search(self, term: str, limit: int, auth: RegistryAuth | None) -> Sequence[SearchResult]:
        """Repositories of a registry; see `inquiry.search`."""
        from pyboxd.image import inquiry

        return await run_blocking(lambda stop: inquiry.search(term, limit, self.registries, auth, stop))

    @asynccontextmanager
    async def fetched(self, address: str, report: Callable[[int, int], None]) -> AsyncIterator[str]:
        """The path of the file at an address inside of the block; see `webfile.fetched`."""
        from pyboxd.image import webfile

        with _disk_trouble_told():
            async with webfile.fetched(address, self.registries, self.layers.temporary, report) as path:
                yield path

    @functools.cached_property
    def _blobs(self) -> KnownBlobs:
        from pyboxd.image.blobs import KnownBlobs

        return KnownBlobs(self._database)

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
