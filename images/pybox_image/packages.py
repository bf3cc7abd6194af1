"""Debian packages for other purposes than the guest image: a new container image, a program for the tests."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from pybox_image.debian import deb
from pybox_image.debian.archive import Archive
from pybox_image.debian.resolve import closure, named
from pybox_image.download import Cache
from pybox_image.errors import ImageError
from pybox_image.mirror import Mirror
from pybox_image.progress import Progress, ProgressCallback, silent
from pybox_image.rootfs import Tree

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def host_architecture() -> str:
    """Return Debian's name for this computer's architecture. Raises ImageError for one that has no guest image."""
    machine = platform.machine().lower()
    if machine not in _ARCHITECTURES:
        raise ImageError(f"computers of the kind {machine or 'unknown'} are not supported")
    return _ARCHITECTURES[machine]


def resolve_and_fetch(
    packages: Iterable[str],
    suite: str,
    architecture: str,
    *,
    essential: bool,
    mirror: Mirror,
    cache: Path,
    dependencies: bool = True,
    progress: ProgressCallback = silent,
) -> list[Path]:
    """Return the verified .deb files of `packages` and all they depend on, in an order in which to unpack them.

    With `essential`, the packages that every Debian system has come too, which makes the set complete enough to be
    configured (a bootstrap). Without `dependencies` only the named packages come. Raises ImageError.
    """
    archive = Archive(suite, architecture, mirror=mirror, cache=Cache(cache, progress=progress), progress=progress)
    names = [*(archive.index.essential() if essential else ()), *packages]
    return archive.fetch(closure(archive.index, names) if dependencies else named(archive.index, names))


def unpack(debs: Sequence[Path], into: Path, progress: ProgressCallback = silent) -> None:
    """Unpack the files of packages below a folder, as the calling user. No maintainer script runs.

    Raises ImageError when a file is no package, OSError when the folder cannot be written.
    """
    tree = Tree()
    for number, path in enumerate(debs, 1):
        with deb.data_archive(path) as archive:
            tree.add_package(archive)
        progress(Progress("unpack", number, len(debs)))
    tree.write(into)
