"""A container's file tree as it sees it itself, for `docker cp` and its like, whether it runs or not.

A running container's tree is reached through its process; that of another is put together at a place of the guest for
as long as it is looked at. Either way paths are walked inside that root (`Root`), where no link leads out.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from pyboxd import locations
from pyboxd.engine import specs
from pyboxd.engine.containers import Container
from pyboxd.engine.model import MountPoint, Record
from pyboxd.engine.mountpoints import over_image
from pyboxd.engine.preparation import directory_of
from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.image.builder.places import Root, open_layers
from pyboxd.image.model import Image
from pyboxd.linux import constants as k
from pyboxd.linux import mount as mounts
from pyboxd.runtime.spec import Mount

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLACES = f"{locations.RUN}/views"


class Layers(Protocol):
    """The part of the image room that is needed here."""

    def get(self, reference: str) -> Image: ...
    async def mount_layers(self, image: Image) -> tuple[str, ...]: ...


class Mounts(Protocol):
    """Finds a mount point's source in the guest (`Preparation`)."""

    async def mount_of(self, point: MountPoint) -> Mount: ...


class Views:
    """Opens containers' trees."""

    def __init__(self, images: Layers, mounts_: Mounts) -> None:
        self._images = images
        self._mounts = mounts_

    @asynccontextmanager
    async def open(self, container: Container) -> AsyncIterator[Root]:
        """The root of a container; a stopped one cannot start meanwhile. NotFound, OSError."""
        if container.process is not None:
            with _of_process(container) as root:
                yield root
            return
        async with container.lock:
            if container.gone:
                raise NotFound(f"No such container: {container.id}")
            if container.process is not None:
                with _of_process(container) as root:
                    yield root
                return
            record = container.record
            lower = await self._images.mount_layers(self._images.get(record.image_id))
            mounts_ = [await self._mounts.mount_of(point) for point in record.mounts]
            with self._put_together(record, lower, mounts_) as root:
                yield root

    @asynccontextmanager
    async def layers(self, container: Container) -> AsyncIterator[Root]:
        """The root of a container's image, without the container's own changes. NotFound, OSError."""
        lower = over_image(await self._images.mount_layers(self._images.get(container.record.image_id)))
        with open_layers(lower, _empty()) as root:
            yield root

    @asynccontextmanager
    async def bare(self, container: Container) -> AsyncIterator[Root]:
        """The root of a container without what is mounted in it, to be read. NotFound, OSError."""
        lower = over_image(await self._images.mount_layers(self._images.get(container.record.image_id)))
        with open_layers((specs.upper(directory_of(container.id)), *lower), _empty()) as root:
            yield root

    @contextmanager
    def _put_together(self, record: Record, lower: tuple[str, ...], extra: Sequence[Mount]) -> Iterator[Root]:
        directory, place = directory_of(record.id), f"{_PLACES}/{record.short_id}"
        os.makedirs(place, mode=0o700, exist_ok=True)
        overlay = mounts.make_overlay(over_image(lower), specs.upper(directory), specs.work(directory))
        try:
            _attach(overlay, place)
        finally:
            os.close(overlay)
        try:
            with Root(os.open(place, _DIRECTORY)) as root:
                for mount in sorted(extra, key=lambda mount: mount.target.count("/")):
                    self._add(root, mount)
                yield root
        finally:
            mounts.umount2(place, k.MNT_DETACH)
            os.rmdir(place)

    def _add(self, root: Root, mount: Mount) -> None:
        """Put a bind or a volume in its place; what ends with a container (tmpfs) is not there."""
        if mount.kind != "bind":
            return
        is_directory = os.path.isdir(mount.source)
        if is_directory:
            target = root.make_directories(mount.target)
        else:
            folder = root.make_directories(posixpath.dirname(mount.target))
            name = posixpath.basename(mount.target)
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644, dir_fd=folder))
                target = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
            finally:
                os.close(folder)
        try:
            copy = mounts.clone_tree(mount.source, recursive=True)
            try:
                if mount.readonly:
                    mounts.set_attributes(copy, add=k.MOUNT_ATTR_RDONLY, recursive=True)
                mounts.attach(copy, target)
            finally:
                os.close(copy)
        finally:
            os.close(target)


def _empty() -> str:
    """An empty directory, for images without layers."""
    path = f"{_PLACES}/empty"
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _attach(mount: int, place: str) -> None:
    target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        mounts.attach(mount, target)
    finally:
        os.close(target)


@contextmanager
def _of_process(container: Container) -> Iterator[Root]:
    process = container.process
    assert process is not None
    descriptor = os.open(f"/proc/{process.pid}/root", _DIRECTORY)
    with Root(descriptor) as root:
        if container.process is not process:  # it ended, and the number may be another's by now
            raise NotFound(f"container {container.id} is not running")
        yield root


def check_writable(record: Record, path: str) -> None:
    """InvalidArgument when `path` (absolute in the container) lies on something read-only."""
    within = [
        point for point in record.mounts if path == point.destination or path.startswith(point.destination.rstrip("/") + "/")
    ]
    if within:
        if not max(within, key=lambda point: len(point.destination)).writable:
            raise InvalidArgument("mounted volume is marked read-only")
    elif record.host.readonly_rootfs:
        raise InvalidArgument("container rootfs is marked read-only")
