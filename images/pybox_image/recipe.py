"""What the guest image is made of, read from the data files beside this module."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from pybox_image.errors import ImageError


@dataclass(frozen=True)
class Recipe:
    """One architecture's image. Meanings of the lists stand in `data/image.toml`; `console` is the kernel's name
    of the serial port; `files` are texts of this project by path."""

    architecture: str
    suite: str
    packages: tuple[str, ...]
    omit: frozenset[str]
    exclude: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    folders: tuple[tuple[str, int], ...]
    kernel_package: str
    initrd_modules: tuple[str, ...]
    root_modules: tuple[str, ...]
    console: str
    files: tuple[tuple[str, bytes], ...]
    initrd_init: bytes
    bake_init: bytes
    bake_program: bytes


def load(architecture: str) -> Recipe:
    """Return the recipe for Debian's name of an architecture. Raises ImageError for one that is not supported."""
    data = resources.files("pybox_image").joinpath("data")
    table = tomllib.loads(data.joinpath("image.toml").read_text(encoding="utf-8"))
    architectures: Mapping[str, Any] = table["architectures"]
    if architecture not in architectures:
        raise ImageError(f"there is no guest image for {architecture}", f"there is one for {', '.join(architectures)}")
    kernel = table["kernel"]
    return Recipe(
        architecture=architecture,
        suite=table["suite"],
        packages=tuple(table["packages"]),
        omit=frozenset(table["omit"]),
        exclude=tuple(table["exclude"]),
        links=tuple(table["links"].items()),
        folders=tuple(table["folders"].items()),
        kernel_package=kernel["package"].format(arch=architecture),
        initrd_modules=tuple(kernel["initrd"]),
        root_modules=tuple(kernel["modules"]),
        console=architectures[architecture]["console"],
        files=tuple(_files(data.joinpath("etc"), "etc")),
        initrd_init=data.joinpath("initrd-init").read_bytes(),
        bake_init=data.joinpath("bake-init").read_bytes(),
        bake_program=data.joinpath("bake.py").read_bytes(),
    )


def _files(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        name = f"{path}/{item.name}"
        found += _files(item, name) if item.is_dir() else [(name, item.read_bytes())]
    return found
