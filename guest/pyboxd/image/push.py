"""Pushing: the layers, the configuration and the manifest of an image from the store to a registry."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence

from pyboxd.errors import InvalidArgument, SystemFailure, Unauthorized
from pyboxd.frozen import frozen
from pyboxd.image.blobs import GZIP_LAYER, Blob, KnownBlobs, Place
from pyboxd.image.compression import gzipped
from pyboxd.image.distribution import Registry
from pyboxd.image.images import Images
from pyboxd.image.model import Image, Progress, ProgressSink, Pushed, RegistrySettings, short_id
from pyboxd.image.pull import STEP, check_platform
from pyboxd.image.reference import Reference, parse
from pyboxd.image.refusal import NoCredentials, Refused
from pyboxd.image.upload import Uploads
from pyboxd.image.workers import Stop, first_failure, run_blocking
from pyboxd.model import RegistryAuth

PARALLEL = 3  # layers at once; each compresses in a thread of its own
MOUNTS = 3  # repositories that are asked for a layer before it is sent
PIECE = 256 * 1024
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


@frozen
class _Sent:
    """What became of a layer: where it is now, where it was not, and the words for the user."""

    blob: Blob
    status: str
    missed: tuple[Place, ...] = ()


class Pusher:
    """Pushes images of a store; where their layers are is asked of `blobs`, and remembered there."""

    def __init__(self, images: Images, settings: RegistrySettings, blobs: KnownBlobs) -> None:
        self._images = images
        self._settings = settings
        self._blobs = blobs

    async def push(
        self,
        reference: str,
        *,
        platform: str = "",
        auth: RegistryAuth | None = None,
        progress: ProgressSink,
        pushed: Callable[[Pushed], None],
    ) -> None:
        """Push a tag, or all tags of a repository. Messages, and what was pushed, come on the loop.

        NotFound for an image of another platform, before any message; SystemFailure, also for unknown names, in
        Docker's words.
        """
        wanted = parse(reference)
        tags = self._tags(wanted)
        if platform:
            for tag in tags:
                check_platform(self._images.get(str(tag)).document, platform, tag)
        progress(Progress(f"The push refers to repository [{wanted.name}]"))
        if wanted.digest:
            raise InvalidArgument("cannot push a digest reference")
        if not tags:
            raise SystemFailure(self._unknown(wanted))
        registry = Registry.of(wanted, self._settings, auth, "pull,push")
        remote: dict[str, Blob] = {}  # what is in the repository by now, by diff id
        try:
            for tag in tags:
                pushed(await self._push(tag, registry, remote, progress))
        except Refused as refused:
            raise refused.told() from refused
        except NoCredentials as error:
            raise Unauthorized("no basic auth credentials") from error

    def _tags(self, wanted: Reference) -> list[Reference]:
        known = {text: parse(text) for image in self._images.list() for text in image.references}
        return sorted((tag for tag in known.values() if tag.name == wanted.name and wanted.tag in ("", tag.tag)), key=str)

    def _unknown(self, wanted: Reference) -> str:
        """Why there is nothing to push."""
        names = {parse(text) for image in self._images.list() for text in (*image.references, *image.repo_digests)}
        if all(name.name != wanted.name for name in names):
            return f"An image does not exist locally with the tag: {wanted.familiar_name}"
        if wanted.tag:
            return f"tag does not exist: {wanted.familiar}"
        return f"no tags to push for {wanted.familiar_name}"

    async def _push(self, tag: Reference, registry: Registry, remote: dict[str, Blob], progress: ProgressSink) -> Pushed:
        image = self._images.get(str(tag))
        async with self._images.keeping(image.layers):
            layers = await self._layers(image, registry, remote, progress)
        document = _manifest(image, layers)
        await run_blocking(lambda stop: _finish(Uploads(registry.with_stop(stop)), image, tag.tag, document))
        digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        self._images.remember_digest(image.id, tag.with_digest(digest))
        progress(Progress(f"{tag.tag}: digest: {digest} size: {len(document)}"))
        return Pushed(tag.tag, digest, len(document))

    async def _layers(self, image: Image, registry: Registry, remote: dict[str, Blob], progress: ProgressSink) -> list[Blob]:
        order = [*dict.fromkeys(reversed(image.layers))]  # the top one first, as Docker
        for diff_id in order:
            progress(Progress("Preparing", short_id(diff_id)))
        limit = asyncio.Semaphore(PARALLEL)

        async def send(diff_id: str) -> None:
            if limit.locked():
                progress(Progress("Waiting", short_id(diff_id)))
            async with limit:
                await self._layer(diff_id, registry, remote, progress)

        with first_failure(f"the push of {registry.reference.familiar}"):
            async with asyncio.TaskGroup() as group:
                for diff_id in order:
                    group.create_task(send(diff_id))
        return [remote[diff_id] for diff_id in image.layers]

    async def _layer(self, diff_id: str, registry: Registry, remote: dict[str, Blob], progress: ProgressSink) -> None:
        shown = short_id(diff_id)
        if diff_id in remote:
            progress(Progress("Layer already exists", shown))
            return
        loop = asyncio.get_running_loop()
        known = self._blobs.of(diff_id)
        archive = self._images.layers.archive(diff_id)

        def report(state: Progress) -> None:
            loop.call_soon_threadsafe(progress, state)

        def job(stop: Stop) -> _Sent:
            return _send(registry.with_stop(stop), known, archive, shown, report)

        sent = await run_blocking(job)
        for place in sent.missed:
            self._blobs.lost(diff_id, place.blob.digest, place.repository)
        self._blobs.found(registry.reference.name, {diff_id: sent.blob}, (diff_id,))
        remote[diff_id] = sent.blob
        progress(Progress(sent.status, shown))


def _send(registry: Registry, known: Sequence[Place], archive: str, shown: str, report: ProgressSink) -> _Sent:
    """Get a layer into the repository, in the cheapest way there is."""
    uploads = Uploads(registry)
    here = registry.reference.name
    own = [place for place in known if place.repository == here]
    missed = []
    for place in [*own, *known][:1]:
        size = uploads.size_of(place.blob.digest)
        if size is not None:
            return _Sent(Blob(place.blob.digest, size or place.blob.size, GZIP_LAYER), "Layer already exists")
        missed += own[:1]
    begun = ""
    for place in _elsewhere(known, registry.reference):
        path = parse(place.repository).path
        try:
            found = uploads.mount(place.blob.digest, path)
        except Refused:  # there is no right to read it there: it is sent
            continue
        if not found:
            return _Sent(place.blob, f"Mounted from {path}", tuple(missed))
        if begun:
            uploads.abandon(begun)
        begun = found
    blob = uploads.send(lambda: gzipped(_pieces(archive, shown, report)), begun)
    return _Sent(Blob(blob.digest, blob.size, GZIP_LAYER), "Pushed", tuple(missed))


def _elsewhere(known: Sequence[Place], target: Reference) -> list[Place]:
    """Other repositories of the same registry that have the layer; those with the longest common beginning first."""
    found = [place for place in known if place.repository != target.name and parse(place.repository).domain == target.domain]
    return sorted(found, key=lambda place: -len(os.path.commonpath([place.repository, target.name])))[:MOUNTS]


def _pieces(archive: str, shown: str, report: ProgressSink) -> Iterator[bytes]:
    """The layer's tar, with messages about how far it is."""
    size = os.path.getsize(archive)
    done = reported = 0
    with open(archive, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece
            done += len(piece)
            if done - reported >= STEP or done == size:
                report(Progress("Pushing", shown, done, size))
                reported = done


def _manifest(image: Image, layers: Sequence[Blob]) -> bytes:
    """Docker's schema 2, in the form that Docker gives it: the same image has the same digest."""

    def descriptor(kind: str, size: int, digest: str) -> dict[str, object]:
        return {"mediaType": kind, "size": size, "digest": digest}

    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, len(image.raw_config), image.id),
        "layers": [descriptor(blob.media_type, blob.size, blob.digest) for blob in layers],
    }
    return json.dumps(value, indent=3).encode()


def _finish(uploads: Uploads, image: Image, tag: str, document: bytes) -> None:
    """The configuration, then the manifest that names it."""
    if uploads.size_of(image.id) is None:
        uploads.send(lambda: iter((image.raw_config,)))
    uploads.put_manifest(tag, document, MANIFEST)
