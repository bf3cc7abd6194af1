"""The layer between image and container that holds the places for what every container gets mounted.

Made in the container's own layer they would show up in `docker diff`, in a commit, and in every RUN of a build. What
the image has itself is left to it. Docker calls this the init layer.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress

from pyboxd import locations
from pyboxd.image.builder.places import Root, open_layers

_LAYERS = f"{locations.RUN}/mountpoints"
_DIRECTORIES = ("dev", "etc", "proc", "sys")
_FILES = (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf")


def over_image(lower: tuple[str, ...]) -> tuple[str, ...]:
    """The lower directories of containers of an image (top first): its layers, and their layer of places."""
    key = hashlib.sha256("\0".join(lower).encode()).hexdigest()
    place = f"{_LAYERS}/{key}"
    if os.path.isdir(place):
        return (place, *lower)
    os.makedirs(_LAYERS, mode=0o755, exist_ok=True)
    made = f"{place}.new"
    if not make(lower, made):
        return lower
    os.rename(made, place)
    return (place, *lower)


def make(lower: tuple[str, ...], place: str) -> bool:
    """Make the layer at `place`; False when the image lacks nothing. OSError."""
    os.makedirs(place, mode=0o755, exist_ok=True)
    with open_layers(lower, place) as image:
        needed = [path for path in (*_DIRECTORIES, *_FILES) if _lacks(image, path)]
        for path in needed:
            folder = os.path.dirname(path)
            if folder and not _like_image(image, folder, f"{place}/{folder}"):
                continue
            if path in _DIRECTORIES:
                with suppress(FileExistsError):
                    os.mkdir(f"{place}/{path}", 0o755)
            else:
                os.close(os.open(f"{place}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755))
        if needed:
            _copy_attributes(image.status("/"), place)
    return bool(needed)


def _lacks(image: Root, path: str) -> bool:
    """Whether nothing is at `path`; a link counts as something, wherever it leads."""
    try:
        os.close(image.open(path, os.O_PATH | os.O_NOFOLLOW))
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _like_image(image: Root, path: str, made: str) -> bool:
    """Make a directory that looks like the image's, if the image has it as a directory (or not at all)."""
    try:
        descriptor = image.open(path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        os.makedirs(made, mode=0o755, exist_ok=True)
        return True
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISDIR(status.st_mode):
        return False
    os.makedirs(made, exist_ok=True)
    _copy_attributes(status, made)
    return True


def _copy_attributes(status: os.stat_result | None, path: str) -> None:
    if status is not None:
        os.chown(path, status.st_uid, status.st_gid)
        os.chmod(path, stat.S_IMODE(status.st_mode))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
