"""The build context: received, and freed of what .dockerignore names."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.contexttree import ContextTree, filled
from pyboxd.image.builder.ignore import Patterns, read_patterns
from pyboxd.image.compression import decompressed
from pyboxd.image.workers import consume

_MAX_FILE = 4 * 1024 * 1024 + 1  # bytes of a Dockerfile or .dockerignore; one more than the parser takes


async def receive(chunks: AsyncIterator[bytes], spool: str) -> ContextTree:
    """Take in an archive, compressed or not; `spool` is a path for its contents. TarError, InvalidArgument."""
    return await consume(chunks, lambda data: filled(decompressed(data), spool))


def read_dockerfile(tree: ContextTree, name: str) -> bytes:
    """The bytes of the Dockerfile `name`. InvalidArgument in Docker's words."""
    path = posixpath.normpath(name or "Dockerfile")
    if path.startswith("../") or path == "..":
        raise InvalidArgument(f"Forbidden path outside the build context: {name} ()")
    for candidate in (path, "dockerfile") if path == "Dockerfile" else (path,):
        data = tree.read(candidate, _MAX_FILE)
        if data is not None:
            return data
    raise InvalidArgument(f"Cannot locate specified Dockerfile: {name or 'Dockerfile'}")


def apply_ignore_file(tree: ContextTree, dockerfile: str) -> None:
    """Take out what `<Dockerfile>.dockerignore`, or else `.dockerignore`, says. InvalidArgument."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        data = tree.read(name, _MAX_FILE)
        if data is not None:
            patterns = Patterns(read_patterns(data))
            if patterns:
                tree.prune(patterns)
            return
