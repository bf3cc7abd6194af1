"""`--cache-from`: steps taken over from images that were built elsewhere (moby: image/cache/cache.go).

Such an image tells by its history which steps made it. It serves for a step whose text is the next one of its history,
when everything before, the layers above all, is what this build has so far. It has to be in the store.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.frozen import replace
from pyboxd.image import config as codec
from pyboxd.image.builder.doors import ImageStore
from pyboxd.image.layerstore import Layer
from pyboxd.image.model import HistoryEntry, Image, ImageDocument
from pyboxd.model import ImageConfig


def sources(images: ImageStore, names: Iterable[str]) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    """The images of that names which are here, and the names of those which are not."""
    found, missing = [], []
    for name in names:
        try:
            found.append(images.get(name))
        except (NotFound, InvalidArgument):
            missing.append(name)
    return tuple(found), tuple(missing)


def is_part(images: ImageStore, candidates: Iterable[Image], image: Image) -> bool:
    """Whether `image` is one of the candidates or an image that one of them was built on."""
    for source in candidates:
        identity = source.id
        while identity:
            if identity == image.id:
                return True
            try:
                identity = images.get(identity).parent
            except NotFound:  # removed since
                break
    return False


def find(
    images: ImageStore, candidates: Iterable[Image], parent: Image | None, step: str, config: ImageConfig
) -> Image | None:
    """The image that `step`, after which the configuration is `config`, makes of `parent`; None if no candidate has it."""
    for source in candidates:
        if _is_next(source, parent, step):
            layers = _layers(images, source, parent)
            if layers is not None:
                return _taken_over(images, source, parent, layers, config)
    return None


def _is_next(source: Image, parent: Image | None, step: str) -> bool:
    history, layers = (parent.history, parent.layers) if parent else ((), ())
    done = len(history)
    return (
        len(source.history) > done
        and source.history[done].created_by == step
        and source.layers[: len(layers)] == layers
        and [*map(_undated, source.history[:done])] == [*map(_undated, history)]
    )


def _undated(entry: HistoryEntry) -> HistoryEntry:
    return replace(entry, created="")


def _layers(images: ImageStore, source: Image, parent: Image | None) -> list[Layer] | None:
    """The layers up to and with the step; None if the store lacks one, or the history promises one too many."""
    entry = source.history[len(parent.history) if parent else 0]
    count = (len(parent.layers) if parent else 0) + (0 if entry.empty_layer else 1)
    found = [images.layer(diff_id) for diff_id in source.layers[:count]]
    complete = [layer for layer in found if layer is not None]
    return complete if len(complete) == count else None


def _taken_over(images: ImageStore, source: Image, parent: Image | None, layers: list[Layer], config: ImageConfig) -> Image:
    before = parent.document if parent else ImageDocument(source.architecture, source.os, variant=source.document.variant)
    entry = source.history[len(before.history)]
    above = parent.id if parent else ""
    whole = (*before.history, entry) == source.history and len(layers) == len(source.layers)
    if whole and codec.encode_config(config) == codec.encode_config(source.config):
        if above and not source.parent:  # else it would count as an image that nothing was built on
            images.set_parent(source.id, above)
        return images.get(source.id)
    document = replace(
        before,
        config=config,
        layers=tuple(layer.diff_id for layer in layers),
        history=(*before.history, entry),
        created=entry.created or source.created,
        author=entry.author or before.author,
    )
    return images.add(codec.encode(document), layers, parent=above)
