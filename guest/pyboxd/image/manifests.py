"""Manifests: what a registry has under a tag or a digest, read and checked (image-spec, manifest.md and image-index.md)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.frozen import frozen
from pyboxd.image import config as codec
from pyboxd.image.blobs import Blob
from pyboxd.image.distribution import Document
from pyboxd.image.reference import check_digest

_VARIANTS = {"arm64": ("v8", ""), "amd64": ("", "v1")}


@frozen
class Manifest:
    """One image in a registry; `digest` is what the reference was pulled by (an index's when there is one)."""

    digest: str
    config: Blob
    layers: tuple[Blob, ...]


def verified_digest(document: Document, expected: str) -> str:
    """The digest of what came; it must be the one that was asked for or told. InvalidArgument."""
    if not expected:
        return codec.digest_of(document.data)
    check_digest(expected)
    algorithm, _, value = expected.partition(":")
    if hashlib.new(algorithm, document.data).hexdigest() != value:
        raise InvalidArgument(f"manifest verification failed for digest {expected}")
    return expected


def parse_document(document: Document) -> dict[str, Any]:
    """The object in a manifest or an index. InvalidArgument."""
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


def image_manifest(value: dict[str, Any], digest: str) -> Manifest:
    """What the object in a manifest of one image says. InvalidArgument."""
    try:
        return Manifest(digest, _blob(value["config"]), tuple(_blob(item) for item in value["layers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"invalid manifest: {error!r}") from error


def _blob(value: dict[str, Any]) -> Blob:
    digest, size = str(value["digest"]), int(value["size"])
    check_digest(digest)
    if size < 0:
        raise ValueError("negative size")
    return Blob(digest, size, str(value.get("mediaType", "")))


def choose(manifests: list[dict[str, Any]], platform: str) -> str:
    """The digest of the entry of an index for `os/architecture[/variant]`. NotFound."""
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
