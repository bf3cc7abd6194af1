"""The store of images: configurations, names and what belongs to them, over the store of layers.

Rows are written when all files of an image are on the disk, in one transaction, so an image is there whole or not
at all. An image that was removed by force while a container is made of it is no longer listed and has no name, but
stays under its id until that container is gone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager

from pyboxd.database import Database
from pyboxd.errors import Conflict, InvalidArgument, NotFound
from pyboxd.frozen import replace
from pyboxd.image import config as codec
from pyboxd.image.layerstore import Layer, LayerStore
from pyboxd.image.layeruse import Keep, LayerUse, bury
from pyboxd.image.model import HistoryEntry, HistoryItem, Image, ImageDocument, ImageUsers, Removed
from pyboxd.image.reference import Reference, is_digest, parse
from pyboxd.model import ImageConfig

_SCHEMA = """
CREATE TABLE IF NOT EXISTS image (
    id TEXT PRIMARY KEY, config BLOB NOT NULL, parent TEXT NOT NULL DEFAULT '', tagged_at REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS image_tag (reference TEXT PRIMARY KEY, image TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS image_digest (reference TEXT NOT NULL, image TEXT NOT NULL, UNIQUE(reference, image));
CREATE TABLE IF NOT EXISTS image_removed (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS layer (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS image_parent ON image (parent);
"""
_LISTED = "id NOT IN (SELECT id FROM image_removed)"
MINIMUM_PREFIX = 1  # hex digits of an id

# Names of types: inside the class `list` is the method.
_Images = list[Image]
_Removals = list[Removed]
_History = list[HistoryItem]
_Names = list[str]
_References = list[Reference]


class Images:
    """All images of the engine. Used from the loop's thread."""

    def __init__(self, database: Database, layers: LayerStore, *, architecture: str) -> None:
        self._database = database
        self.layers = layers
        self.architecture = architecture
        self._use = LayerUse(database, layers)
        self.users: ImageUsers = lambda _: ()  # set by the engine, which knows the containers
        database.define(_SCHEMA)

    # -- looking ---------------------------------------------------------------------------------

    def list(self) -> _Images:
        """All images, newest first."""
        found = [self._load(row[0]) for row in self._database.rows(f"SELECT id FROM image WHERE {_LISTED}")]
        return sorted(found, key=lambda image: image.created, reverse=True)

    def get(self, name: str) -> Image:
        """By reference, id, or beginning of an id. NotFound in Docker's words, which make a client pull."""
        identity = self._find(name)
        if identity is None:
            raise NotFound(f"No such image: {_shown(name)}")
        return self._load(identity)

    def children(self, identity: str) -> _Names:
        query = f"SELECT id FROM image WHERE parent = ? AND {_LISTED}"
        return [row[0] for row in self._database.rows(query, (identity,))]

    def history(self, image: Image) -> _History:
        """Newest first, as `docker history` shows it."""
        layers = [*image.layers]
        made = {len(step.history): step for step in self._ancestry(image)}  # number of entries -> the image then
        items = []
        for number, entry in enumerate(image.history, 1):
            size = 0 if entry.empty_layer or not layers else self._layer_size(layers.pop(0))
            step = made.get(number)
            items.append(HistoryItem(step.id if step else "<missing>", entry, size, step.references if step else ()))
        return items[::-1]

    def _ancestry(self, image: Image) -> Iterator[Image]:
        yield image
        while image.parent and self._exists(image.parent):
            image = self._load(image.parent)
            yield image

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
            self._database.execute("DELETE FROM image_removed WHERE id = ?", (identity,))
        return self._load(identity)

    def layer_sizes(self) -> dict[str, int]:
        """Bytes of file content by diff id: every layer once, however many images have it."""
        return dict(self._database.rows("SELECT diff_id, size FROM layer"))

    def shared_sizes(self, images: Sequence[Image]) -> dict[str, int]:
        """By image: bytes of the layers that another one of `images` has, too."""
        sizes = self.layer_sizes()
        uses = Counter(diff_id for image in images for diff_id in set(image.layers))
        return {image.id: sum(sizes.get(name, 0) for name in image.layers if uses[name] > 1) for image in images}

    def layer(self, diff_id: str) -> Layer | None:
        """A layer that an image already has, or None."""
        row = self._database.row("SELECT size FROM layer WHERE diff_id = ?", (diff_id,))
        return Layer(diff_id, row[0]) if row and self.layers.has(diff_id) else None

    async def commit(
        self, parent: Image | None, upper: str | None, config: ImageConfig, entry: HistoryEntry, *, author: str = ""
    ) -> Image:
        """A new image: `parent` plus what the overlay's `upper` holds (no new layer when None). Untagged.

        NotFound when the parent was removed since.
        """
        if parent is not None and not self._exists(parent.id):
            raise NotFound(f"No such image: {parent.id}")
        before = parent.document if parent else ImageDocument(self.architecture, "linux")
        known = [self._must_have(diff_id) for diff_id in before.layers]
        async with self.keeping(before.layers) as keep:
            if upper is not None:
                known.append(keep(await self.layers.add_tree(upper)))
            document = self._committed(before, known, config, entry, author, empty=upper is None)
            return self.add(codec.encode(document), known, parent=parent.id if parent else "")

    def _committed(
        self,
        before: ImageDocument,
        known: Sequence[Layer],
        config: ImageConfig,
        entry: HistoryEntry,
        author: str,
        *,
        empty: bool,
    ) -> ImageDocument:
        created = entry.created or now()
        return replace(
            before,
            config=config,
            layers=tuple(layer.diff_id for layer in known),
            history=(*before.history, replace(entry, created=created, empty_layer=empty)),
            created=created,
            author=author or before.author,
        )

    def tag(self, image_id: str, reference: str) -> None:
        """Give an image a name; the name leaves the image that had it."""
        wanted = parse(reference).with_default_tag()
        if wanted.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        with self._database.transaction():
            self._database.execute("INSERT OR REPLACE INTO image_tag VALUES (?, ?)", (str(wanted), image_id))
            self._database.execute("UPDATE image SET tagged_at = ? WHERE id = ?", (time.time(), image_id))

    def set_parent(self, image_id: str, parent: str) -> None:
        """Record that an image, which came from elsewhere, could have been built on another."""
        self._database.execute("UPDATE image SET parent = ? WHERE id = ?", (parent, image_id))

    def remember_digest(self, image_id: str, reference: Reference) -> None:
        """Record the repository digest (`name@sha256:…`) that an image was pulled by."""
        self._database.execute("INSERT OR IGNORE INTO image_digest VALUES (?, ?)", (str(reference), image_id))

    # -- removing --------------------------------------------------------------------------------

    async def remove(self, name: str, *, force: bool = False, prune: bool = True) -> _Removals:
        """What `docker rmi` does, with its conflicts (moby: daemon/images/image_delete.go)."""
        await self.collect()
        image = self.get(name)
        if self._database.row("SELECT 1 FROM image_removed WHERE id = ?", (image.id,)):
            raise NotFound(f"No such image: {_shown(name)}")
        removed: _Removals = []
        await bury(self._remove(image, name, removed, force=force, prune=prune))
        return removed

    def _remove(self, image: Image, name: str, removed: _Removals, *, force: bool, prune: bool) -> _Names:
        """Remove a name or the image; the folders that are left to delete."""
        names = self._names(image.id)
        by_id = _is_id(name, image.id)
        if not by_id:
            uses = self.users(image.id)
            if uses and not force and _of_one_repository(names):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{name}" (must force) - '
                    f"container {uses[0].container_id[:12]} is using its referenced image {image.short_id}"
                )
            gone = parse(name).with_default_tag()
            gone = gone.with_digest(gone.digest) if gone.digest else gone
            names.remove(gone)
            doomed = [gone]
            if not gone.digest and all(other.digest for other in names if other.name == gone.name):
                doomed += [other for other in names if other.name == gone.name]
            self._untag(image.id, doomed, removed)
            if set(names) - set(doomed):
                return []
        elif _of_one_repository(names):
            self._check(image, force=force, named=False)
            self._untag(image.id, names, removed)
        return self._remove_nameless(image.id, removed, force=force, quiet=not by_id, prune=prune)

    async def prune(self, wanted: Callable[[Image], bool]) -> _Removals:
        """Remove the unused images that `wanted` picks."""
        await self.collect()
        removed: _Removals = []
        graves: _Names = []
        for image in self.list():
            if not self._exists(image.id) or not wanted(image) or self.users(image.id) or self.children(image.id):
                continue
            self._untag(image.id, self._names(image.id), removed)
            graves += self._delete(image, removed, prune=True)
        await bury(graves)
        return removed

    def _remove_nameless(self, identity: str, removed: _Removals, *, force: bool, quiet: bool, prune: bool) -> _Names:
        image = self._load(identity)
        try:
            self._check(image, force=force, named=True)
        except Conflict:
            if not quiet or not removed:
                raise
            return []
        return self._delete(image, removed, prune=prune)

    def _check(self, image: Image, *, force: bool, named: bool) -> None:
        """Raise Conflict if something needs the image; `named`: a name that is left does, too."""
        if self.children(image.id):
            raise _conflict(image, "cannot be forced", "image has dependent child images")
        uses = self.users(image.id)
        if running := next((use for use in uses if use.running), None):
            why = f"image is being used by running container {running.container_id[:12]}"
            raise _conflict(image, "cannot be forced", why)
        if force:
            return
        if named and self._names(image.id):
            raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
        if uses:
            why = f"image is being used by stopped container {uses[0].container_id[:12]}"
            raise _conflict(image, "must be forced", why)

    def _names(self, identity: str) -> _References:
        """All tags and repository digests of an image."""
        return [
            parse(text)
            for table in ("image_tag", "image_digest")
            for (text,) in self._database.rows(
                f"SELECT reference FROM {table} WHERE image = ? ORDER BY reference", (identity,)
            )
        ]

    def _untag(self, identity: str, names: Sequence[Reference], removed: _Removals) -> None:
        with self._database.transaction():
            for name in names:
                table = "image_digest" if name.digest else "image_tag"
                self._database.execute(f"DELETE FROM {table} WHERE reference = ? AND image = ?", (str(name), identity))
        removed += [Removed(untagged=name.familiar, image=identity) for name in names]

    def _delete(self, image: Image, removed: _Removals, *, prune: bool) -> _Names:
        """Take the image out, its names, what no other image has of its layers, and nameless unused parents.

        The folders that are left to delete.
        """
        with self._database.transaction():
            for table in ("image_tag", "image_digest"):
                self._database.execute(f"DELETE FROM {table} WHERE image = ?", (image.id,))
            if self.users(image.id):
                self._database.execute("INSERT OR IGNORE INTO image_removed VALUES (?)", (image.id,))
            else:
                for table in ("image", "image_removed"):
                    self._database.execute(f"DELETE FROM {table} WHERE id = ?", (image.id,))
        removed.append(Removed(deleted=image.id, image=image.id))
        graves = self._use.drop(image.layers)
        gone = zip(image.layers, codec.chain_ids(image.layers), strict=True)
        removed += [Removed(deleted=chain) for diff_id, chain in reversed([*gone]) if not self.layers.has(diff_id)]
        if prune and image.parent and self._exists(image.parent):
            parent = self._load(image.parent)
            if not (self.children(parent.id) or self.users(parent.id) or self._names(parent.id)):
                graves += self._delete(parent, removed, prune=True)
        return graves

    async def collect(self) -> None:
        """Delete the images that stayed only for containers which are gone by now; called when one has gone."""
        await bury(self._collect())

    def _collect(self) -> _Names:
        graves: _Names = []
        for (identity,) in self._database.rows("SELECT id FROM image_removed"):
            if not self.users(identity):
                graves += self._delete(self._load(identity), [], prune=True)
        return graves

    def keeping(self, layers: Sequence[str] = ()) -> AbstractAsyncContextManager[Keep]:
        """Nobody removes these layers inside; see `LayerUse.keeping`."""
        return self._use.keeping(layers)

    def sweep(self) -> _Names:
        """Take out what an engine that was killed left half removed or half added; the folders that are left to delete.

        For the start, when the containers are known and no job runs yet.
        """
        return self._collect() + self._use.sweep()

    def _exists(self, identity: str) -> bool:
        return self._database.row("SELECT 1 FROM image WHERE id = ?", (identity,)) is not None

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
        rows = self._database.rows(f"SELECT id FROM image WHERE id LIKE ? AND {_LISTED}", (f"sha256:{digits}%",))
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


def _conflict(image: Image, may: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {image.short_id} ({may}) - {why}")


def _of_one_repository(names: Sequence[Reference]) -> bool:
    """At most one tag, and no repository digest of another repository (moby: isSingleReference)."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if not name.digest]
    return len(tags) <= 1 and len({name.name for name in names}) == 1


def _is_id(name: str, identity: str) -> bool:
    digits = name.removeprefix("sha256:")
    return bool(digits) and identity.removeprefix("sha256:").startswith(digits)
