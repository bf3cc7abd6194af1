"""Creation of a container while its image goes away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pyboxd import locations
from pyboxd.database import Database
from pyboxd.engine.binds import Binds
from pyboxd.engine.containers import Containers
from pyboxd.engine.create import Creator
from pyboxd.engine.events import Events
from pyboxd.engine.model import ContainerConfig, CreateRequest, HostConfig
from pyboxd.engine.store import Store
from pyboxd.engine.volumes import Volumes
from pyboxd.errors import NotFound
from pyboxd.image.model import Image, ImageDocument
from pyboxd.model import ImageConfig


class Images:
    """One image, which somebody removes while its layers are mounted."""

    def __init__(self, config: ImageConfig) -> None:
        self._image: Image | None = Image(
            "sha256:1", ("app:latest",), (), ImageDocument("amd64", "linux", config), b"", 0, "", 0
        )

    def get(self, reference: str) -> Image:
        if self._image is None:
            raise NotFound(f"No such image: {reference}")
        return self._image

    async def mount_layers(self, image: Image) -> tuple[str, ...]:
        self._image = None
        return ()


class Paths:
    def to_guest(self, path: str) -> str:
        return path


def test_an_image_that_is_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "CONTAINERS", str(tmp_path / "containers"))
    (tmp_path / "containers").mkdir()
    (tmp_path / "tmp").mkdir()
    store, events = Store(Database(":memory:")), Events()
    volumes = Volumes(store, events, lambda _: (), str(tmp_path / "volumes"), str(tmp_path / "tmp"))
    containers = Containers(store)
    images = Images(ImageConfig(cmd=("x",), volumes=("/data",)))
    creator = Creator(containers, images, volumes, Binds(Paths()), events)
    with pytest.raises(NotFound, match="No such image: sha256:1"):
        asyncio.run(creator.create(CreateRequest(ContainerConfig(image="app"), HostConfig(), name="box")))
    assert list(containers) == [] and not containers.taken("box")
    assert not volumes.list() and list((tmp_path / "containers").iterdir()) == []
