"""Looking into an image's or a container's file tree without running it: descriptors, no mount that anyone could see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pyboxd.linux import constants as k
from pyboxd.linux.mount import make_filesystem, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def image_directory(lower: Sequence[str], path: str) -> Iterator[int | None]:
    """A descriptor of the directory `path` of an image with these layers (top first); None when it has none."""
    with image_root(lower) as root:
        descriptor = None
        with suppress(FileNotFoundError, NotADirectoryError):
            descriptor = open_inside(root, path, _DIRECTORY)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


@contextmanager
def image_root(lower: Sequence[str]) -> Iterator[int]:
    """A descriptor of the root that these layers make together, mounted nowhere."""
    if len(lower) == 1:  # overlayfs wants two
        descriptor = os.open(lower[0], _DIRECTORY)
    else:
        descriptor = make_filesystem("overlay", [("lowerdir+", path) for path in lower], k.MOUNT_ATTR_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_inside(root: int, path: str, flags: int) -> int:
    """Open `path` as a process would whose root directory is `root`: no link and no ".." leads out. OSError."""
    return openat2(root, path.lstrip("/") or ".", flags, k.RESOLVE_IN_ROOT)
