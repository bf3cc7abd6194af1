"""The build context: received, unpacked, and freed of what .dockerignore names."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterator

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.ignore import Patterns, read_patterns
from pyboxd.image.builder.places import open_plain
from pyboxd.image.compression import decompressed
from pyboxd.image.extract import PlainFolder, Rules, extract, remove
from pyboxd.image.tarread import TarReader
from pyboxd.image.workers import consume

_MAX_FILE = 4 * 1024 * 1024 + 1  # bytes of a Dockerfile or .dockerignore; one more than the parser takes


async def receive(chunks: AsyncIterator[bytes], folder: str) -> None:
    """Unpack the archive (compressed or not) into the new directory `folder`. TarError, InvalidArgument."""
    os.mkdir(folder)
    os.chmod(folder, 0o755)  # its mode is part of what `COPY .` means
    await consume(chunks, lambda data: _unpack(data, folder))


def _unpack(chunks: Iterator[bytes], folder: str) -> None:
    with open_plain(folder) as root:
        parents = PlainFolder(root.fd)
        try:
            extract(TarReader(decompressed(chunks)), parents, Rules())
        finally:
            parents.close()


def read_dockerfile(folder: str, name: str) -> bytes:
    """The bytes of the Dockerfile `name` of an unpacked context. InvalidArgument in Docker's words."""
    path = posixpath.normpath(name or "Dockerfile")
    if path.startswith("../") or path == "..":
        raise InvalidArgument(f"Forbidden path outside the build context: {name} ()")
    with open_plain(folder) as root:
        for candidate in (path, "dockerfile") if path == "Dockerfile" else (path,):
            status = root.status(candidate)
            if status is not None and stat.S_ISREG(status.st_mode):
                return root.read_file(candidate, _MAX_FILE)
    raise InvalidArgument(f"Cannot locate specified Dockerfile: {name or 'Dockerfile'}")


def apply_ignore_file(folder: str, dockerfile: str) -> None:
    """Remove what `<Dockerfile>.dockerignore`, or else `.dockerignore`, says. Blocking. InvalidArgument."""
    with open_plain(folder) as root:
        for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
            if root.status(name) is not None:
                patterns = Patterns(read_patterns(root.read_file(name, _MAX_FILE)))
                break
        else:
            return
        if patterns:
            _prune(root.fd, "", patterns)


def _prune(directory: int, path: str, patterns: Patterns) -> bool:
    """Remove the ignored ones; True if nothing is left in the directory."""
    left = 0
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        inner = f"{path}/{name}" if path else name
        ignored = patterns.matches(inner)
        if ignored and (not is_directory or not patterns.has_exceptions):
            remove(directory, name)
            continue
        if is_directory:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                empty = _prune(descriptor, inner, patterns)
            finally:
                os.close(descriptor)
            if ignored and empty:  # it stays only for the exceptions in it
                os.rmdir(name, dir_fd=directory)
                continue
        left += 1
    return left == 0
