"""/containers/{id}/archive (`docker cp`), and the export and the changes of a whole tree."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from pyboxd.engine import archive, changes, specs
from pyboxd.engine.archive import PathStat
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.preparation import directory_of
from pyboxd.engine.timestamps import rfc3339
from pyboxd.engine.views import Views, check_writable
from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.frozen import frozen
from pyboxd.image.builder.places import Root
from pyboxd.image.workers import consume
from pyboxd.server.message import Empty, Json, Request, Response, Stream
from pyboxd.server.routes import Route

_WRONG_PATHS = (errno.ENAMETOOLONG, errno.ELOOP)
_STAT = "X-Docker-Container-Path-Stat"
_TAR = "application/x-tar"


@frozen
class ArchiveApi:
    """Handlers around containers' file trees."""

    containers: Containers
    views: Views
    events: Events

    def routes(self) -> list[Route]:
        path = "/containers/{id}/archive"
        return [
            Route("HEAD", path, self.stat),
            Route("GET", path, self.get),
            Route("PUT", path, self.put),
            Route("GET", "/containers/{id}/export", self.export),
            Route("GET", "/containers/{id}/changes", self.changes),
        ]

    def _target(self, request: Request) -> tuple[Container, str]:
        container = self.containers.get(request.parameters["id"])
        path = request.query.text("path")
        if not path:
            raise InvalidArgument("bad parameter: path cannot be empty")
        if "\0" in path:
            raise InvalidArgument("bad parameter: path has a NUL in it")
        return container, path

    async def stat(self, request: Request) -> Response:
        container, path = self._target(request)
        found = await self._status(container, path, _given(request))
        return Empty(200, {_STAT: encode_stat(found)})

    async def get(self, request: Request) -> Response:
        container, path = self._target(request)
        found = await self._status(container, path, _given(request))
        self.events.container(container.record, "archive-path")
        pieces = _read(self.views.open(container), path, _given(request))
        return Stream(pieces, _TAR, headers={_STAT: encode_stat(found)}, eager=False)

    async def _status(self, container: Container, path: str, name: str) -> PathStat:
        async with self.views.open(container) as root:
            with _failing_at(path):
                return await asyncio.to_thread(archive.status, root, path, name)

    async def put(self, request: Request) -> Response:
        container, path = self._target(request)
        query = request.query
        keep_kinds = query.flag("noOverwriteDirNonDir")
        async with self.views.open(container) as root:
            with _failing_at(path):
                place = await asyncio.to_thread(archive.resolve_directory, root, path, _given(request))
            check_writable(container.record, place)
            owner = archive.user_owner(root, container.record.config.user) if query.flag("copyUIDGID") else None

            def job(chunks: Iterator[bytes]) -> None:
                archive.unpack(root, place, chunks, owner, keep_kinds)

            with _failing_at(path):
                await consume(request.body, job)
        self.events.container(container.record, "extract-to-dir")
        return Empty(200)

    async def export(self, request: Request) -> Response:
        container = self.containers.get(request.parameters["id"])
        self.events.container(container.record, "export")
        pieces = _read(self.views.bare(container), "/.", container.id)
        return Stream(pieces, "application/octet-stream", eager=False)

    async def changes(self, request: Request) -> Response:
        container = self.containers.get(request.parameters["id"])
        upper = specs.upper(directory_of(container.id))
        async with self.views.layers(container) as below:
            found = await asyncio.to_thread(changes.changes, upper, below)
        return Json([{"Path": change.path, "Kind": change.kind} for change in found] or None)


def _given(request: Request) -> str:
    """The container as the client calls it: so do errors."""
    return request.parameters["id"]


@contextmanager
def _failing_at(path: str) -> Iterator[None]:
    """What the kernel refuses becomes an error that names the path."""
    try:
        yield
    except OSError as error:
        words = f"{path}: {os.strerror(error.errno or 0).lower()}"
        raise (InvalidArgument if error.errno in _WRONG_PATHS else SystemFailure)(words) from error


async def _read(view: AbstractAsyncContextManager[Root], path: str, container: str) -> AsyncIterator[bytes]:
    async with view as root:
        async for chunk in in_thread(lambda: archive.write(root, path, container)):
            yield chunk


def encode_stat(found: PathStat) -> str:
    """The header that says what a path is."""
    value = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": rfc3339(found.mtime),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(json.dumps(value).encode()).decode()


async def in_thread(make: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    """The pieces of a blocking iterator, each made in a worker thread. OSError becomes SystemFailure."""
    pieces = make()

    def step() -> bytes:
        gathered = bytearray()
        for piece in pieces:
            gathered += piece
            if len(gathered) >= 256 * 1024:
                break
        return bytes(gathered)

    try:
        while data := await asyncio.to_thread(step):
            yield data
    except OSError as error:
        raise SystemFailure(str(error)) from error
