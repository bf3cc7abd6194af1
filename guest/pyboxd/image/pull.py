"""Pulling: a manifest, its configuration and its layers from a registry into the store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Any

from pyboxd.errors import InvalidArgument, NotFound, PyboxdError
from pyboxd.frozen import frozen
from pyboxd.image import config as codec
from pyboxd.image.distribution import Document, Registry
from pyboxd.image.images import Images
from pyboxd.image.layerstore import Layer
from pyboxd.image.model import Image, ImageDocument, Progress, ProgressSink, RegistrySettings, short_id
from pyboxd.image.reference import Reference, check_digest, parse
from pyboxd.image.workers import Stopped, run_blocking
from pyboxd.model import RegistryAuth

log = logging.getLogger(__name__)
PARALLEL = 3  # layers at once, as Docker
STEP = 512 * 1024  # bytes between two messages of progress
_VARIANTS = {"arm64": ("v8", ""), "amd64": ("", "v1")}


@frozen
class Blob:
    """A descriptor of a manifest."""

    digest: str
    size: int


@frozen
class Manifest:
    """One image in a registry; `digest` is what the reference was pulled by (an index's when there is one)."""

    digest: str
    config: Blob
    layers: tuple[Blob, ...]


class Puller:
    """Pulls images into a store."""

    def __init__(self, images: Images, settings: RegistrySettings) -> None:
        self._images = images
        self._settings = settings

    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> Image:
        """Pull `reference`; messages of progress come on the loop. Nothing is kept of a pull that fails."""
        wanted = parse(reference).with_default_tag()
        loop = asyncio.get_running_loop()

        def report(state: Progress) -> None:
            loop.call_soon_threadsafe(progress, state)

        registry = Registry(wanted, self._settings, auth)
        manifest, raw = await run_blocking(lambda _: self._describe(registry, platform), registry.stop)
        document = codec.decode(raw)
        if len(document.layers) != len(manifest.layers):
            raise InvalidArgument("invalid image: the manifest and the configuration name different layers")
        _check_platform(document, platform, wanted)
        progress(Progress(f"Pulling from {wanted.path}", wanted.tag or wanted.digest))
        known = self._known(codec.digest_of(raw))
        async with self._images.keeping(document.layers):
            layers = await self._layers(manifest, document, registry, report, progress)
            image = self._images.add(raw, layers)
        fresh = self._name(image, wanted, manifest.digest) or not known
        progress(Progress(f"Digest: {manifest.digest}"))
        what = "Downloaded newer image" if fresh else "Image is up to date"
        progress(Progress(f"Status: {what} for {wanted.familiar}"))
        return self._images.get(image.id)

    async def _layers(
        self, manifest: Manifest, document: ImageDocument, registry: Registry, report: ProgressSink, progress: ProgressSink
    ) -> list[Layer]:
        limit = asyncio.Semaphore(PARALLEL)

        async def fetch(blob: Blob, diff_id: str) -> Layer:
            async with limit:
                return await self._layer(blob, diff_id, registry, report, progress)

        blobs = dict(zip(document.layers, manifest.layers, strict=True))  # an image may have the same layer twice
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {diff_id: group.create_task(fetch(blob, diff_id)) for diff_id, blob in blobs.items()}
        except ExceptionGroup as failures:
            first, *others = failures.exceptions  # these say the same, or ended because of it, unless they are bugs
            for error in others:
                if not isinstance(error, (Stopped, OSError, PyboxdError)):
                    log.error("a bug in the pull of %s", registry.reference.familiar, exc_info=error)
            raise first from None
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
        progress(Progress("Pull complete", shown))
        return layer

    def _describe(self, registry: Registry, platform: str) -> tuple[Manifest, bytes]:
        reference = registry.reference
        document = registry.manifest(reference.digest or reference.tag)
        digest = _digest(document, reference.digest or document.digest)
        value = _parse(document)
        if "manifests" in value:
            chosen = _choose(value["manifests"], platform or f"linux/{self._images.architecture}")
            inner = registry.manifest(chosen)
            _digest(inner, chosen)
            value = _parse(inner)
        manifest = _manifest(value, digest)
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


def _digest(document: Document, expected: str) -> str:
    """The digest of what came; it must be the one that was asked for or told."""
    if not expected:
        return codec.digest_of(document.data)
    check_digest(expected)
    algorithm, _, value = expected.partition(":")
    if hashlib.new(algorithm, document.data).hexdigest() != value:
        raise InvalidArgument(f"manifest verification failed for digest {expected}")
    return expected


def _parse(document: Document) -> dict[str, Any]:
    try:
        value = json.loads(document.data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid manifest: {error}") from error
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:
        raise InvalidArgument("unsupported manifest: only schema version 2 and OCI manifests can be pulled")
    items = value.get("manifests", [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidArgument("invalid manifest: manifests is not a list of objects")
    if "manifests" in value and ("layers" in value or "config" in value):
        raise InvalidArgument("invalid manifest: it is both an index and an image")
    return value


def _manifest(value: dict[str, Any], digest: str) -> Manifest:
    try:
        return Manifest(digest, _blob(value["config"]), tuple(_blob(item) for item in value["layers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"invalid manifest: {error!r}") from error


def _blob(value: dict[str, Any]) -> Blob:
    digest, size = str(value["digest"]), int(value["size"])
    check_digest(digest)
    if size < 0:
        raise ValueError("negative size")
    return Blob(digest, size)


def _check_platform(document: ImageDocument, platform: str, reference: Reference) -> None:
    """NotFound unless the image is for `platform`, or none was asked for."""
    wanted = platform.split("/")
    actual = [document.os, document.architecture, document.variant]
    if platform and wanted[:2] != actual[:2]:
        raise NotFound(
            f"image with reference {reference.familiar} was found but does not match the specified platform: "
            f"wanted {platform}, actual: {'/'.join(filter(None, actual))}"
        )


def _choose(manifests: list[dict[str, Any]], platform: str) -> str:
    """The digest of the entry for `os/architecture[/variant]`."""
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    found = []
    for item in manifests:
        offered = item.get("platform")
        if not isinstance(offered, dict):
            continue
        if offered.get("os") == system and offered.get("architecture") == architecture:
            found.append((str(offered.get("variant", "")), str(item.get("digest", ""))))
    order = (variant,) if variant else ("", *_VARIANTS.get(architecture, ()))
    for wanted in order:
        for offered_variant, digest in found:
            if offered_variant == wanted:
                check_digest(digest)
                return digest
    if found and not variant:
        check_digest(found[0][1])
        return found[0][1]
    raise NotFound(f"no matching manifest for {platform} in the manifest list entries")
