"""Pulling: a manifest, its configuration and its layers from a registry into the store."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

from pyboxd.errors import InvalidArgument, NotFound, PyboxdError, SystemFailure, Unauthorized
from pyboxd.image import config as codec
from pyboxd.image.blobs import Blob, KnownBlobs
from pyboxd.image.distribution import Registry
from pyboxd.image.images import Images
from pyboxd.image.layerstore import Layer
from pyboxd.image.manifests import Manifest, choose, image_manifest, parse_document, verified_digest
from pyboxd.image.model import Image, ImageDocument, Progress, ProgressSink, RegistrySettings, short_id
from pyboxd.image.reference import Reference, parse
from pyboxd.image.refusal import Refused
from pyboxd.image.workers import first_failure, run_blocking
from pyboxd.model import RegistryAuth

PARALLEL = 3  # layers at once, as Docker
STEP = 512 * 1024  # bytes between two messages of progress


class Puller:
    """Pulls images into a store; where their layers came from is remembered in `blobs`."""

    def __init__(self, images: Images, settings: RegistrySettings, blobs: KnownBlobs) -> None:
        self._images = images
        self._settings = settings
        self._blobs = blobs
        self._read: set[str] = set()  # diff ids of the layers whose blobs came and were checked

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> Image:
        """Pull `reference`; messages of progress come on the loop. Nothing is kept of a pull that fails."""
        wanted = parse(reference).with_default_tag()
        registry = Registry.of(wanted, self._settings, auth)
        try:
            image, fresh = await self._pull(registry, platform, progress)
        except Refused as refused:
            raise _translated(refused, registry) from refused
        progress(_status(wanted.familiar, fresh))
        return image

    async def pull_all(
        self, repository: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> None:
        """Pull what all tags of a repository name. The first that fails ends it; those before it are kept."""
        wanted = parse(repository)
        registry = Registry.of(wanted, self._settings, auth)
        fresh = False
        try:
            for tag in await run_blocking(lambda stop: registry.with_stop(stop).tags()):
                _, new = await self._pull(registry.for_tag(tag), platform, progress)
                fresh = fresh or new
        except Refused as refused:
            raise _translated(refused, registry) from refused
        progress(_status(wanted.familiar, fresh))

    async def _pull(self, registry: Registry, platform: str, progress: ProgressSink) -> tuple[Image, bool]:
        """The image, and whether it or its name is new."""
        wanted = registry.reference
        loop = asyncio.get_running_loop()

        def report(state: Progress) -> None:
            loop.call_soon_threadsafe(progress, state)

        manifest, raw = await run_blocking(lambda _: self._describe(registry, platform), registry.stop)
        document = codec.decode(raw)
        if len(document.layers) != len(manifest.layers):
            raise InvalidArgument("invalid image: the manifest and the configuration name different layers")
        check_platform(document, platform, wanted)
        progress(Progress(f"Pulling from {wanted.path}", wanted.tag or wanted.digest))
        known = self._known(codec.digest_of(raw))
        async with self._images.keeping(document.layers):
            layers = await self._layers(manifest, document, registry, report, progress)
            image = self._images.add(raw, layers)
            self._blobs.found(wanted.name, dict(zip(document.layers, manifest.layers, strict=True)), self._read)
        fresh = self._name(image, wanted, manifest.digest) or not known
        progress(Progress(f"Digest: {manifest.digest}"))
        return self._images.get(image.id), fresh

    async def _layers(
        self, manifest: Manifest, document: ImageDocument, registry: Registry, report: ProgressSink, progress: ProgressSink
    ) -> list[Layer]:
        limit = asyncio.Semaphore(PARALLEL)

        async def fetch(blob: Blob, diff_id: str) -> Layer:
            async with limit:
                return await self._layer(blob, diff_id, registry, report, progress)

        blobs = dict(zip(document.layers, manifest.layers, strict=True))  # an image may have the same layer twice
        with first_failure(f"the pull of {registry.reference.familiar}"):
            async with asyncio.TaskGroup() as group:
                tasks = {diff_id: group.create_task(fetch(blob, diff_id)) for diff_id, blob in blobs.items()}
        return [tasks[diff_id].result() for diff_id in document.layers]

    def _known(self, identity: str) -> bool:
        try:
            self._images.get(identity)
        except NotFound:
            return False
        return True

    def _name(self, image: Image, wanted: Reference, digest: str) -> bool:
        """Tag what was pulled; whether the name meant another image before."""
        self._images.remember_digest(image.id, wanted.with_digest(digest))
        if wanted.digest:
            return False
        moved = wanted.familiar not in image.references
        self._images.tag(image.id, str(wanted))
        return moved

    async def _layer(
        self, blob: Blob, diff_id: str, registry: Registry, report: ProgressSink, progress: ProgressSink
    ) -> Layer:
        shown = short_id(blob.digest)
        if (layer := self._images.layer(diff_id)) is not None:
            progress(Progress("Already exists", shown))
            return layer
        progress(Progress("Pulling fs layer", shown))
        layer = await self._images.layers.add(lambda stop: _verified(registry.with_stop(stop), blob, report), diff_id)
        self._read.add(diff_id)
        progress(Progress("Pull complete", shown))
        return layer

    def _describe(self, registry: Registry, platform: str) -> tuple[Manifest, bytes]:
        reference = registry.reference
        document = registry.manifest(reference.digest or reference.tag)
        digest = verified_digest(document, reference.digest or document.digest)
        value = parse_document(document)
        if "manifests" in value:
            chosen = choose(value["manifests"], platform or f"linux/{self._images.architecture}")
            inner = registry.manifest(chosen)
            verified_digest(inner, chosen)
            value = parse_document(inner)
        manifest = image_manifest(value, digest)
        raw = registry.document(manifest.config.digest, manifest.config.size)
        if codec.digest_of(raw) != manifest.config.digest:
            raise InvalidArgument(f"image configuration verification failed for digest {manifest.config.digest}")
        return manifest, raw


def _verified(registry: Registry, blob: Blob, report: ProgressSink) -> Iterator[bytes]:
    """The blob's bytes; after the last one the digest is checked, before anybody may believe them."""
    digest = hashlib.new(blob.digest.partition(":")[0])
    shown = short_id(blob.digest)
    done = reported = 0
    for piece in registry.blob(blob.digest, blob.size):
        digest.update(piece)
        done += len(piece)
        if done - reported >= STEP:
            report(Progress("Downloading", shown, done, blob.size))
            reported = done
        yield piece
    report(Progress("Verifying Checksum", shown))
    if digest.hexdigest() != blob.digest.partition(":")[2] or done != blob.size:
        raise InvalidArgument(f"filesystem layer verification failed for digest {blob.digest}")
    report(Progress("Download complete", shown))


def _status(name: str, fresh: bool) -> Progress:
    return Progress(f"Status: {'Downloaded newer image' if fresh else 'Image is up to date'} for {name}")


def _translated(refused: Refused, registry: Registry) -> PyboxdError:
    """What a registry said, in Docker's words (moby, translatePullError)."""
    reference = registry.reference
    said = refused.words
    if refused.code == "NAME_UNKNOWN":
        return NotFound(f"repository {reference.familiar_name} not found: {said}")
    if refused.status == 404:
        return NotFound(f"manifest for {reference.familiar} not found: {said or 'manifest unknown: manifest unknown'}")
    if refused.code == "UNAUTHORIZED" and registry.client.login.given:
        return Unauthorized(said)
    if refused.status in (401, 403):
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {said}"
        )
    return SystemFailure(str(refused))


def check_platform(document: ImageDocument, platform: str, reference: Reference) -> None:
    """NotFound unless the image is for `platform`, or none was asked for."""
    wanted = platform.split("/")
    actual = [document.os, document.architecture, document.variant]
    if platform and wanted[:2] != actual[:2]:
        raise NotFound(
            f"image with reference {reference.familiar} was found but does not match the specified platform: "
            f"wanted {platform}, actual: {'/'.join(filter(None, actual))}"
        )
