"""What both engines are given: images made from Debian packages and from nothing but numbers, the same every time."""

from __future__ import annotations

import hashlib
import io
import json
import random
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from pybox.errors import PyboxError
from pybox_image import cpio, mirror, recipe
from pybox_image.debian import deb
from pybox_image.debian.archive import Archive
from pybox_image.debian.resolve import closure, named
from pybox_image.download import Cache
from pybox_image.errors import ImageError
from pybox_image.rootfs import Tree

BUSYBOX = "bench-busybox"
PYTHON = "bench-python"
LARGE = "bench-large"
_APPLETS = ("cat", "dd", "head", "nc", "seq", "sh", "sleep", "true")
_PYTHON_PACKAGES = ("python3.13-minimal", "libpython3.13-stdlib")
_OMIT = ("dpkg", "debconf", "tzdata", "media-types", "netbase", "gcc-14-base", "libdb5.3t64", "libreadline8t64")
_EXCLUDE = ("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/lintian/*", "usr/lib/*/gconv/*")
_LARGE = 100_000_000  # bytes of the layer's files
_LARGE_FILES = 4000
_RANDOM_SHARE = 0.33  # of a file's bytes; the rest repeats, so that gzip leaves a good third, as of a real system
_BLOCK = 4096
_COPIED = 2000  # files of the build's context


@dataclass(frozen=True)
class Image:
    """An image of one layer: its name and the layer, an uncompressed tar archive."""

    name: str
    layer: bytes

    @cached_property
    def config(self) -> bytes:
        """Return the image's configuration, whose digest is its id."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(self.layer)]},
        }
        return json.dumps(config).encode()

    def write_archive(self, into: IO[bytes]) -> None:
        """Write what `docker save` would write."""
        index = [{"Config": "config.json", "RepoTags": [f"{self.name}:latest"], "Layers": ["layer/layer.tar"]}]
        files = {
            "config.json": self.config,
            "manifest.json": json.dumps(index).encode(),
            "layer/layer.tar": self.layer,
        }
        into.write(tar(cpio.file(name, data) for name, data in files.items()))


class Packages:
    """Debian packages by name, read when they are first needed."""

    def __init__(self, downloads: Path) -> None:
        self._downloads = downloads

    @cached_property
    def _archive(self) -> Archive:
        return Archive(recipe.load("amd64").suite, "amd64", mirror=mirror.choose(), cache=Cache(self._downloads))

    def tree(self, *names: str, dependencies: bool) -> Tree:
        """Return the files of packages, with or without what they depend on. Raises PyboxError."""
        try:
            index = self._archive.index
            found = closure(index, names, omit=_OMIT) if dependencies else named(index, names)
            tree = Tree(_EXCLUDE)
            for path in self._archive.fetch(found):
                with deb.data_archive(path) as opened:
                    tree.add_package(opened)
        except ImageError as error:
            raise PyboxError(error.brief, error.details, error.resolution) from error
        return tree


class Content:
    """The images, made when they are asked for."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages

    @cached_property
    def _program(self) -> bytes:
        return self._packages.tree("busybox-static", dependencies=False).read("usr/bin/busybox")

    @cached_property
    def busybox(self) -> Image:
        """Return a layer with a static busybox, 2 MB."""
        return Image(BUSYBOX, tar(busybox(self._program)))

    @cached_property
    def python(self) -> Image:
        """Return a layer with Python and busybox, 30 MB."""
        tree = self._packages.tree(*_PYTHON_PACKAGES, dependencies=True)
        tree.file("usr/bin/busybox", self._program, 0o755)
        for name in _APPLETS:
            tree.link(f"usr/bin/{name}", "busybox")
        tree.link("usr/bin/python3", "python3.13")
        tree.folder("tmp", 0o1777)
        return Image(PYTHON, tar(tree.entries()))

    @property
    def large(self) -> Image:
        """Return a layer of 100 MB in 4,000 files that holds busybox too. Not kept."""
        return Image(LARGE, tar((*busybox(self._program), *numbered_files())))


def busybox(program: bytes) -> list[cpio.Entry]:
    """Return a root with a static busybox, its needed names, and no more."""
    links = [cpio.link(f"bin/{name}", "busybox") for name in _APPLETS]
    return [cpio.folder("bin"), cpio.folder("tmp", 0o1777), cpio.file("bin/busybox", program, 0o755), *links]


def numbered_files(total: int = _LARGE, count: int = _LARGE_FILES) -> Iterator[cpio.Entry]:
    """Yield files of sizes as in a real system (a few large, many small), `total` bytes in all, always the same."""
    dice = random.Random(20)
    weights = [dice.lognormvariate(0, 1.5) for _ in range(count)]
    unit = total / sum(weights)
    for number, weight in enumerate(weights):
        if number % 100 == 0:
            yield cpio.folder(f"data/{number // 100:02}")
        size = int(weight * unit)
        noise = dice.randbytes(int(size * _RANDOM_SHARE))
        block = dice.randbytes(_BLOCK)
        rest = size - len(noise)
        yield cpio.file(f"data/{number // 100:02}/{number:04}", noise + (block * (rest // _BLOCK + 1))[:rest])


def build_context() -> bytes:
    """Return the context of the measured build: a Dockerfile and 2,000 small files."""
    files: Mapping[str, bytes] = {
        "Dockerfile": f"FROM {LARGE}\nCOPY files /files\nRUN true\n".encode(),
        **{f"files/{number // 100:02}/{number:04}": b"%d\n" % number * 100 for number in range(_COPIED)},
    }
    return tar(cpio.file(name, data) for name, data in files.items())


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(entries: Iterable[cpio.Entry]) -> bytes:
    """Return entries as a tar archive; the same entries give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mode = stat.S_IMODE(entry.mode)
            if stat.S_ISDIR(entry.mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(entry.mode):
                info.type, info.linkname = tarfile.SYMTYPE, entry.data.decode()
            else:
                info.size = len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data) if info.size else None)
    return out.getvalue()
