"""Archives of images: `load` reads Docker's and OCI's forms, `save` writes one that both worlds read.

Read: manifest.json with any paths (docker save of all ages), an OCI layout with or without it, whole archives
compressed. Written: an OCI layout with manifest.json, layers as plain tars.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from io import RawIOBase
from typing import Any

from pyboxd import locations
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image import config as codec
from pyboxd.image.compression import decompressed, detect
from pyboxd.image.digest import StreamDigest
from pyboxd.image.images import Images
from pyboxd.image.layerstore import Layer, LayerStore
from pyboxd.image.model import Image, ImageDocument, Progress, ProgressSink, short_id
from pyboxd.image.reference import parse
from pyboxd.image.tarread import Kind, TarReader, clean_name
from pyboxd.image.workers import Stop, consume

PIECE = 256 * 1024
MAX_DOCUMENT = 8 * 1024 * 1024  # bytes of a JSON member
_MAX_NESTING = 4  # of indexes
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_INDEX = "application/vnd.oci.image.index.v1+json"


@frozen
class _Entry:
    """One image of an archive: names of members, and the references it shall get."""

    config: str
    layers: tuple[str, ...]
    references: tuple[str, ...]


class _Spool:
    """The members of an archive as files of a temporary folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._files: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._digests: dict[str, str] = {}

    def fill(self, chunks: Iterable[bytes]) -> None:
        reader = TarReader(decompressed(chunks))
        for entry in reader:
            name = clean_name(entry.name)
            if entry.kind is Kind.FILE:
                path = f"{self.folder}/{len(self._files)}"
                digest = self._write(path, reader.payload())
                if digest:
                    self._digests[path] = digest
                self._files[name] = path
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = os.path.normpath(os.path.join(os.path.dirname(name), entry.link))
            elif entry.kind is Kind.HARDLINK:
                self._links[name] = clean_name(entry.link)

    @staticmethod
    def _write(path: str, pieces: Iterator[memoryview]) -> str:
        """Write a member; its digest, or "" for a compressed one, whose digest nobody asks for."""
        compressed = False
        with StreamDigest() as digest, open(path, "wb", buffering=0) as file:
            for number, piece in enumerate(pieces):
                compressed = bool(detect(bytes(piece[:8]))) if number == 0 else compressed
                if not compressed:
                    digest.update(piece)
                _write_all(file, piece)
            return "" if compressed else f"sha256:{digest.hexdigest()}"

    async def add(self, layers: LayerStore, name: str, diff_id: str) -> Layer:
        """Add the member `name` as a layer: renamed if it is the layer's tar as it stands, else uncompressed."""
        path = self.path(name)
        if self._digests.get(path) == diff_id and os.path.exists(path):
            return await layers.adopt(path, diff_id)
        return await layers.add(self._opener(name), diff_id)

    def has(self, name: str) -> bool:
        return self._links.get(name, name) in self._files

    def path(self, name: str) -> str:
        name = os.path.normpath(name)
        try:
            return self._files[self._links.get(name, name)]
        except KeyError:
            raise InvalidArgument(f"invalid archive: {name} is missing") from None

    def chunks(self, name: str) -> Iterator[bytes]:
        with open(self.path(name), "rb", buffering=0) as file:
            while data := file.read(PIECE):
                yield data

    def _opener(self, name: str) -> Callable[[Stop], Iterator[bytes]]:
        def chunks(stop: Stop) -> Iterator[bytes]:
            for piece in self.chunks(name):
                stop.check()
                yield piece

        return chunks

    def data(self, name: str) -> bytes:
        if os.path.getsize(self.path(name)) > MAX_DOCUMENT:
            raise InvalidArgument(f"invalid archive: {name} is larger than 8 MiB")
        return b"".join(self.chunks(name))

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.data(name))
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"invalid archive: {name}: {error}") from error


async def load(
    images: Images, chunks: AsyncIterator[bytes], progress: ProgressSink, *, temporary: str = locations.TEMPORARY
) -> list[str]:
    """Add all images of an archive; the reference (or id) of each. InvalidArgument for what is no such archive."""
    folder = f"{temporary}/load-{secrets.token_hex(16)}"
    os.makedirs(folder)
    try:
        spool = _Spool(folder)
        await consume(chunks, spool.fill)
        entries = list(_entries(spool, images.architecture))
        if not entries:
            raise InvalidArgument("invalid archive: it holds no image")
        loaded: list[str] = []
        for entry in entries:
            loaded += await _add(images, spool, entry, progress)
        return loaded
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _add(images: Images, spool: _Spool, entry: _Entry, progress: ProgressSink) -> list[str]:
    names = [_name(text) for text in entry.references]
    raw = spool.data(entry.config)
    document = codec.decode(raw)
    if len(document.layers) != len(entry.layers):
        raise InvalidArgument("invalid manifest, layers length mismatch")
    async with images.keeping(document.layers):
        image = images.add(raw, await _add_layers(images, spool, entry, document, progress))
    for name in names:
        images.tag(image.id, name)
    return names or [image.id]


def _name(text: str) -> str:
    """A name of an archive in its familiar form, checked before anything is stored under it."""
    reference = parse(text).with_default_tag()
    if reference.digest:
        raise InvalidArgument(f"invalid archive: {text!r} is no tag")
    return reference.familiar


async def _add_layers(
    images: Images, spool: _Spool, entry: _Entry, document: ImageDocument, progress: ProgressSink
) -> list[Layer]:
    layers: dict[str, Layer] = {}
    for name, diff_id in zip(entry.layers, document.layers, strict=True):
        known = layers.get(diff_id) or images.layer(diff_id)
        if known is None:
            size = os.path.getsize(spool.path(name))
            progress(Progress("Loading layer", short_id(diff_id), 0, size))
            known = await spool.add(images.layers, name, diff_id)
            progress(Progress("Loading layer", short_id(diff_id), size, size))
        layers[diff_id] = known
    return [layers[diff_id] for diff_id in document.layers]


def _entries(spool: _Spool, architecture: str) -> Iterator[_Entry]:
    if spool.has("manifest.json"):
        manifest = spool.json("manifest.json")
        if not isinstance(manifest, list):
            raise InvalidArgument("invalid archive: manifest.json is not a list")
        for item in manifest:
            try:
                yield _Entry(str(item["Config"]), _texts(item.get("Layers")), _texts(item.get("RepoTags")))
            except (KeyError, TypeError, AttributeError) as error:
                raise InvalidArgument(f"invalid archive: manifest.json: {error!r}") from error
    elif spool.has("index.json"):
        yield from _layout_entries(spool, spool.json("index.json"), (), architecture)
    else:
        raise InvalidArgument("invalid archive: it has neither manifest.json nor index.json")


def _layout_entries(
    spool: _Spool, index: Any, names: tuple[str, ...], architecture: str, depth: int = 0
) -> Iterator[_Entry]:
    """Images of an OCI layout (image-spec, image-layout.md). Of a nested index, which is one image for several
    platforms, the one for `architecture`, or all that are there."""
    if depth > _MAX_NESTING:
        raise InvalidArgument("invalid archive: indexes are nested too deeply")
    try:
        items = [
            item
            for item in index["manifests"]
            if not (item.get("annotations") or {}).get("vnd.docker.reference.type")  # an attestation, not an image
            and (not depth or spool.has(_blob(item["digest"])))  # other platforms are often left out
        ]
        if depth:
            items = [item for item in items if _is_for(item.get("platform"), architecture)][:1] or items
        for item in items:
            notes = item.get("annotations") or {}
            name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name") or ""
            found = (str(name),) if _is_reference(str(name)) else names
            value = spool.json(_blob(item["digest"]))
            if "manifests" in value:
                yield from _layout_entries(spool, value, found, architecture, depth + 1)
            else:
                layers = tuple(_blob(layer["digest"]) for layer in value["layers"])
                yield _Entry(_blob(value["config"]["digest"]), layers, found)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"invalid archive: {error!r}") from error


def _is_for(platform: Any, architecture: str) -> bool:
    return platform is not None and (platform.get("os"), platform.get("architecture")) == ("linux", architecture)


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{value!r} is not a list of strings")
    return tuple(value)


def _write_all(file: RawIOBase, piece: memoryview) -> None:
    """Unbuffered: the pieces are large, and a copy of each is what the buffer would cost."""
    while piece:
        piece = piece[file.write(piece) or 0 :]


def _is_reference(text: str) -> bool:
    try:
        parse(text)
    except InvalidArgument:
        return False
    return bool(text)


def _blob(digest: str) -> str:
    return "blobs/" + str(digest).replace(":", "/")


def save(images: Images, wanted: Sequence[tuple[Image, tuple[str, ...]]]) -> Iterator[bytes]:
    """The archive of images, each with the references it is saved under. Blocking; read in a worker thread."""
    written: set[str] = set()
    descriptors, manifest = [], []
    for image, references in wanted:
        layers = [_descriptor(_LAYER, diff_id, os.path.getsize(images.layers.archive(diff_id))) for diff_id in image.layers]
        for diff_id in image.layers:
            if diff_id not in written:
                written.add(diff_id)
                yield from _file(_blob(diff_id), images.layers.archive(diff_id))
        config = _descriptor(_CONFIG, image.id, len(image.raw_config))
        value = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        document = json.dumps(value, separators=(",", ":")).encode()
        digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        for name, data in ((image.id, image.raw_config), (digest, document)):
            if name not in written:
                written.add(name)
                yield from _member(_blob(name), data)
        for reference in references or ("",):
            descriptors.append(_descriptor(_MANIFEST, digest, len(document)) | _annotations(reference))
        manifest.append(
            {"Config": _blob(image.id), "RepoTags": list(references), "Layers": [_blob(diff_id) for diff_id in image.layers]}
        )
    yield from _member(
        "index.json", json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors}).encode()
    )
    yield from _member("manifest.json", json.dumps(manifest).encode())
    yield from _member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    yield bytes(1024)


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": size}


def _annotations(reference: str) -> dict[str, object]:
    if not reference:
        return {}
    names = {
        "io.containerd.image.name": str(parse(reference)),
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    return {"annotations": names}


def _member(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def _file(name: str, path: str) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = os.path.getsize(path)
    yield info.tobuf(tarfile.PAX_FORMAT)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(PIECE):
            yield data
    yield bytes(-info.size % 512)
