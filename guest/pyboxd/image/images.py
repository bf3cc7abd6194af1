"""The store of images: configurations, names and what belongs to them, over the store of layers.

Rows are written when all files of an image are on the disk, in one transaction, so an image is there whole or not
at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pyboxd.database import Database
from pyboxd.errors import Conflict, InvalidArgument, NotFound
from pyboxd.image import config as codec
from pyboxd.image import diff
from pyboxd.image.layerstore import Layer, LayerStore
from pyboxd.image.model import HistoryEntry, HistoryItem, Image, ImageDocument, ImageUsers, Removed
from pyboxd.image.reference import Reference, is_digest, parse
from pyboxd.model import ImageConfig

_SCHEMA = """
CREATE TABLE IF NOT EXISTS image (
    id TEXT PRIMARY KEY, config BLOB NOT NULL, parent TEXT NOT NULL DEFAULT '', tagged_at REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS image_tag (reference TEXT PRIMARY KEY, image TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS image_digest (reference TEXT NOT NULL, image TEXT NOT NULL, UNIQUE(reference, image));
CREATE TABLE IF NOT EXISTS layer (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS image_parent ON image (parent);
"""
MINIMUM_PREFIX = 1  # hex digits of an id

# Names of types: inside the class `list` is the method.
_Images = list[Image]
_Removals = list[Removed]
_History = list[HistoryItem]
_Names = list[str]


class Images:
    """All images of the engine. Used from the loop's thread."""

    def __init__(self, database: Database, layers: LayerStore, *, architecture: str) -> None:
        self._database = database
        self.layers = layers
        self.architecture = architecture
        self.users: ImageUsers = lambda _: ()  # set by the engine, which knows the containers
        database.define(_SCHEMA)

    # -- looking ---------------------------------------------------------------------------------

    def list(self) -> _Images:
        """All images, newest first."""
        found = [self._load(row[0]) for row in self._database.rows("SELECT id FROM image")]
        return sorted(found, key=lambda image: image.created, reverse=True)

    def get(self, name: str) -> Image:
        """By reference, id, or beginning of an id. NotFound in Docker's words, which make a client pull."""
        identity = self._find(name)
        if identity is None:
            raise NotFound(f"No such image: {_shown(name)}")
        return self._load(identity)

    def is_reference(self, name: str, image: Image) -> bool:
        """Whether `name` is one of the image's names, and not its id or a part of it."""
        return not _is_id(name, image.id)

    def children(self, identity: str) -> _Names:
        return [row[0] for row in self._database.rows("SELECT id FROM image WHERE parent = ?", (identity,))]

    def history(self, image: Image) -> _History:
        """Newest first, as `docker history` shows it."""
        layers = [*image.layers]
        items = []
        for number, entry in enumerate(image.history):
            size = 0 if entry.empty_layer or not layers else self._layer_size(layers.pop(0))
            last = number == len(image.history) - 1
            identity = image.id if last else "<missing>"
            items.append(HistoryItem(identity, entry, size, image.references if last else ()))
        return items[::-1]

    async def mount_layers(self, image: Image) -> tuple[str, ...]:
        """Lower directories for overlayfs, top first. Mounted once, shared by all."""
        return tuple(self.layers.mount(diff_id) for diff_id in reversed(image.layers))

    # -- making ----------------------------------------------------------------------------------

    def add(self, raw: bytes, layers: Sequence[Layer], *, parent: str = "") -> Image:
        """Register an image whose layers are all in the store; known images are left as they are."""
        document = codec.decode(raw)
        if [layer.diff_id for layer in layers] != [*document.layers]:
            raise InvalidArgument("invalid image: the layers are not those that the configuration names")
        identity = codec.digest_of(raw)
        with self._database.transaction():
            for layer in layers:
                self._database.execute("INSERT OR IGNORE INTO layer VALUES (?, ?)", (layer.diff_id, layer.size))
            self._database.execute(
                "INSERT OR IGNORE INTO image (id, config, parent) VALUES (?, ?, ?)", (identity, raw, parent)
            )
        return self._load(identity)

    def layer(self, diff_id: str) -> Layer | None:
        """A layer that an image already has, or None."""
        row = self._database.row("SELECT size FROM layer WHERE diff_id = ?", (diff_id,))
        return Layer(diff_id, row[0]) if row and self.layers.has(diff_id) else None

    async def commit(
        self, parent: Image | None, upper: str | None, config: ImageConfig, entry: HistoryEntry, *, author: str = ""
    ) -> Image:
        """A new image: `parent` plus what the overlay's `upper` holds (no new layer when None). Untagged."""
        before = parent.document if parent else ImageDocument(self.architecture, "linux")
        known = [self._must_have(diff_id) for diff_id in before.layers]
        if upper is not None:
            known.append(await self.layers.add(lambda stop: diff.archive(upper, stop)))
        created = entry.created or now()
        document = replace(
            before,
            config=config,
            layers=tuple(layer.diff_id for layer in known),
            history=(*before.history, replace(entry, created=created, empty_layer=upper is None)),
            created=created,
            author=author or before.author,
        )
        return self.add(codec.encode(document), known, parent=parent.id if parent else "")

    def tag(self, image_id: str, reference: str) -> None:
        """Give an image a name; the name leaves the image that had it."""
        wanted = parse(reference).with_default_tag()
        if wanted.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        with self._database.transaction():
            self._database.execute("INSERT OR REPLACE INTO image_tag VALUES (?, ?)", (str(wanted), image_id))
            self._database.execute("UPDATE image SET tagged_at = ? WHERE id = ?", (time.time(), image_id))

    def remember_digest(self, image_id: str, reference: Reference) -> None:
        """Record the repository digest (`name@sha256:…`) that an image was pulled by."""
        self._database.execute("INSERT OR IGNORE INTO image_digest VALUES (?, ?)", (str(reference), image_id))

    # -- removing --------------------------------------------------------------------------------

    async def remove(self, name: str, *, force: bool = False, prune: bool = True) -> _Removals:
        """What `docker rmi` does, with its conflicts."""
        image = self.get(name)
        by_id = _is_id(name, image.id)
        removed: _Removals = []
        if not by_id:
            if len(image.references) + len(image.repo_digests) > 1 and self._untag(name, image, removed):
                image = self._load(image.id)
                if image.references or not image.repo_digests:
                    return removed
            self._check_users(image, name, force=force)
        else:
            repositories = {parse(text).name for text in image.references}
            if len(repositories) > 1 and not force:
                raise Conflict(
                    f"conflict: unable to delete {image.short_id} (must be forced) - "
                    "image is referenced in multiple repositories"
                )
            self._check_users(image, name, force=force)
        if by_id and self.children(image.id):
            raise Conflict(
                f"conflict: unable to delete {image.short_id} (cannot be forced) - image has dependent child images"
            )
        self._untag_all(image, removed)
        if not self.users(image.id) and not self.children(image.id):
            await self._delete(image, removed, prune=prune)
        return removed

    async def prune(self, wanted: Callable[[Image], bool]) -> _Removals:
        """Remove the unused images that `wanted` picks."""
        removed: _Removals = []
        for image in self.list():
            if wanted(image) and not self.users(image.id) and not self.children(image.id):
                self._untag_all(image, removed)
                await self._delete(image, removed, prune=True)
        return removed

    def _check_users(self, image: Image, name: str, *, force: bool) -> None:
        for use in self.users(image.id):
            container = use.container_id[:12]
            if use.running:
                what = f'remove repository reference "{_shown(name)}"' if image.references else f"delete {image.short_id}"
                raise Conflict(
                    f"conflict: unable to {what} ({'cannot be forced' if force else 'must force'}) - "
                    f"container {container} is using its referenced image {image.short_id}"
                )
            if not force:
                what = (
                    f'remove repository reference "{_shown(name)}"'
                    if not _is_id(name, image.id)
                    else f"delete {image.short_id}"
                )
                raise Conflict(
                    f"conflict: unable to {what} (must force) - "
                    f"container {container} is using its referenced image {image.short_id}"
                )

    def _untag(self, name: str, image: Image, removed: _Removals) -> bool:
        wanted = parse(name).with_default_tag()
        table = "image_digest" if wanted.digest else "image_tag"
        key = str(wanted.with_digest(wanted.digest) if wanted.digest else wanted)
        if self._database.execute(f"DELETE FROM {table} WHERE reference = ? AND image = ?", (key, image.id)):
            removed.append(Removed(untagged=wanted.familiar))
            return True
        return False

    def _untag_all(self, image: Image, removed: _Removals) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM image_tag WHERE image = ?", (image.id,))
            self._database.execute("DELETE FROM image_digest WHERE image = ?", (image.id,))
        removed += [Removed(untagged=text) for text in (*image.references, *image.repo_digests)]

    async def _delete(self, image: Image, removed: _Removals, *, prune: bool) -> None:
        self._database.execute("DELETE FROM image WHERE id = ?", (image.id,))
        removed.append(Removed(deleted=image.id))
        used = {
            diff_id for (raw,) in self._database.rows("SELECT config FROM image") for diff_id in codec.decode(raw).layers
        }
        for diff_id in image.layers:
            if diff_id not in used:
                self._database.execute("DELETE FROM layer WHERE diff_id = ?", (diff_id,))
                await asyncio.to_thread(self.layers.remove, diff_id)
        if prune and image.parent:
            row = self._database.row("SELECT id FROM image WHERE id = ?", (image.parent,))
            if row and not self.children(image.parent) and not self.users(image.parent):
                parent = self._load(image.parent)
                if not parent.references and not parent.repo_digests:
                    await self._delete(parent, removed, prune=True)

    def sweep(self) -> None:
        """Remove layers that no image has: what a crash between files and rows left behind."""
        used = {row[0] for row in self._database.rows("SELECT diff_id FROM layer")}
        for diff_id in self.layers.known():
            if diff_id not in used:
                self.layers.remove(diff_id)

    # -- inside ----------------------------------------------------------------------------------

    def _find(self, name: str) -> str | None:
        if name.startswith("sha256:") and is_digest(name):
            row = self._database.row("SELECT id FROM image WHERE id = ?", (name,))
            return row[0] if row else None
        row = None
        try:
            wanted = parse(name).with_default_tag()
        except InvalidArgument:
            wanted = None
        if wanted is not None and wanted.digest:
            key = str(wanted.with_digest(wanted.digest))
            row = self._database.row("SELECT image FROM image_digest WHERE reference = ?", (key,))
        elif wanted is not None:
            row = self._database.row("SELECT image FROM image_tag WHERE reference = ?", (str(wanted),))
        if row is not None:
            return str(row[0])
        return self._find_prefix(name)

    def _find_prefix(self, name: str) -> str | None:
        digits = name.removeprefix("sha256:")
        if len(digits) < MINIMUM_PREFIX or not set(digits) <= set("0123456789abcdef"):
            return None
        rows = self._database.rows("SELECT id FROM image WHERE id LIKE ?", (f"sha256:{digits}%",))
        if len(rows) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {digits}")
        return rows[0][0] if rows else None

    def _load(self, identity: str) -> Image:
        row = self._database.row("SELECT config, parent, tagged_at FROM image WHERE id = ?", (identity,))
        assert row is not None
        document = codec.decode(row[0])
        tags = self._database.rows("SELECT reference FROM image_tag WHERE image = ? ORDER BY reference", (identity,))
        digests = self._database.rows("SELECT reference FROM image_digest WHERE image = ?", (identity,))
        return Image(
            id=identity,
            references=tuple(parse(tag).familiar for (tag,) in tags),
            repo_digests=tuple(parse(text).familiar for (text,) in digests),
            document=document,
            raw_config=row[0],
            size=sum(self._layer_size(diff_id) for diff_id in document.layers),
            parent=row[1],
            tagged_at=row[2],
        )

    def _layer_size(self, diff_id: str) -> int:
        row = self._database.row("SELECT size FROM layer WHERE diff_id = ?", (diff_id,))
        return int(row[0]) if row else 0

    def _must_have(self, diff_id: str) -> Layer:
        return Layer(diff_id, self._layer_size(diff_id))


def now() -> str:
    """The present as image configurations write it."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e9):09d}Z"


def _shown(name: str) -> str:
    try:
        return parse(name).with_default_tag().familiar
    except InvalidArgument:
        return name


def _is_id(name: str, identity: str) -> bool:
    digits = name.removeprefix("sha256:")
    return bool(digits) and identity.removeprefix("sha256:").startswith(digits)
