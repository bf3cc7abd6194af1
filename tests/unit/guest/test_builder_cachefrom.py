"""Images from elsewhere as a build's cache."""

from __future__ import annotations

import asyncio

import pytest

from pyboxd.image import config as codec
from pyboxd.image.builder import cachefrom
from pyboxd.image.model import HistoryEntry, Image, ImageDocument
from pyboxd.model import ImageConfig
from tests.support.image_lab import ImageLab, tar

BASE, RUN, ENV, COPY = "base", "RUN a", "ENV B=1", "COPY c"
WITH_ENV = ImageConfig(env=("B=1",))
WHOLE = ImageConfig(env=("B=1",), cmd=("d",))


def image(lab: ImageLab, steps: list[str], config: ImageConfig, when: str = "2020", **other: str) -> Image:
    """An image as a build of these steps makes it; those but ENV have a layer of their text (or of what `other` says)."""
    layers = [lab.add_layer(tar({"f": other.get(step.partition(" ")[0], step).encode()})) for step in steps if step != ENV]
    history = tuple(HistoryEntry(when, step, empty_layer=step == ENV) for step in steps)
    document = ImageDocument("amd64", "linux", config, tuple(layer.diff_id for layer in layers), history, when)
    return lab.images.add(codec.encode(document), layers)


def find(lab: ImageLab, source: Image, parent: Image | None, step: str, config: ImageConfig) -> Image | None:
    return cachefrom.find(lab.images, (source,), parent, step, config)


def test_a_whole_build_is_taken_over(lab: ImageLab) -> None:
    base = image(lab, [BASE], ImageConfig(), "2019")
    source = image(lab, [BASE, RUN, ENV, COPY], WHOLE)
    first = find(lab, source, base, RUN, ImageConfig())
    assert first is not None and first.layers == source.layers[:2] and first.parent == base.id
    assert [entry.created for entry in first.history] == ["2019", "2020"] and first.created == "2020"
    second = find(lab, source, first, ENV, WITH_ENV)
    assert second is not None and second.layers == first.layers and second.config == WITH_ENV
    third = find(lab, source, second, COPY, WHOLE)
    assert third is not None and third.layers == source.layers and third.parent == second.id
    again = find(lab, source, second, COPY, WHOLE)
    assert again is not None and again.id == third.id, "nothing of it depends on the time"
    removed = asyncio.run(lab.images.remove(source.id))
    assert [item.deleted for item in removed if item.image] == [source.id] and lab.images.get(third.id)
    lab.assert_tidy()


def test_the_source_itself_is_the_end_of_the_same_build(lab: ImageLab) -> None:
    base = image(lab, [BASE], ImageConfig())
    source = image(lab, [BASE, RUN], WHOLE)
    found = find(lab, source, base, RUN, WHOLE)
    assert found is not None and (found.id, found.parent) == (source.id, base.id)
    other = find(lab, source, base, RUN, WITH_ENV)
    assert other is not None and other.id != source.id and other.config == WITH_ENV


def test_only_the_sources_and_what_they_were_built_on_are_caches(lab: ImageLab) -> None:
    base, source = image(lab, [BASE], ImageConfig()), image(lab, [BASE, RUN], WHOLE)
    lab.images.set_parent(source.id, base.id)
    assert cachefrom.is_part(lab.images, (source,), source) and cachefrom.is_part(lab.images, (source,), base)
    assert not cachefrom.is_part(lab.images, (base,), source) and not cachefrom.is_part(lab.images, (), base)


def test_from_scratch(lab: ImageLab) -> None:
    source = image(lab, [COPY, ENV], WITH_ENV)
    found = find(lab, source, None, COPY, ImageConfig())
    assert found is not None and found.parent == "" and found.layers == source.layers


@pytest.mark.parametrize(
    ("parent", "step"),
    [
        ([BASE], "RUN other"),
        (["other"], RUN),
        ([BASE, RUN], COPY),
        ([BASE, RUN, ENV, COPY], "more"),
        ([], RUN),
    ],
)
def test_what_differs_is_no_cache(lab: ImageLab, parent: list[str], step: str) -> None:
    source = image(lab, [BASE, RUN, ENV, COPY], WHOLE)
    have = image(lab, parent, ImageConfig()) if parent else None
    assert find(lab, source, have, step, ImageConfig()) is None


def test_a_parent_of_the_same_words_but_other_files_is_another(lab: ImageLab) -> None:
    source = image(lab, [BASE, RUN, COPY], WHOLE)
    parent = image(lab, [BASE, RUN], ImageConfig(), RUN="another outcome")
    assert find(lab, source, parent, COPY, WHOLE) is None


def test_a_history_that_promises_too_many_layers_is_no_cache(lab: ImageLab) -> None:
    base = image(lab, [BASE], ImageConfig())
    history = (*base.history, HistoryEntry("", RUN))
    source = lab.images.add(
        codec.encode(ImageDocument("amd64", "linux", layers=base.layers, history=history)),
        [layer for diff_id in base.layers if (layer := lab.images.layer(diff_id))],
    )
    assert find(lab, source, base, RUN, ImageConfig()) is None


def test_names_of_sources(lab: ImageLab) -> None:
    source = image(lab, [BASE], ImageConfig())
    lab.images.tag(source.id, "here")
    found, missing = cachefrom.sources(lab.images, ("here", "type=registry,ref=x", "absent:1"))
    assert [item.id for item in found] == [source.id] and missing == ("type=registry,ref=x", "absent:1")
