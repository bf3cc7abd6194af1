"""/containers/{id}/archive (`docker cp`), and the export and the changes of a whole tree."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator

from pyboxd.engine import archive, changes, specs
from pyboxd.engine.archive import PathStat
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.preparation import directory_of
from pyboxd.engine.timestamps import rfc3339
from pyboxd.engine.views import Views, check_writable
from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.frozen import frozen
from pyboxd.image.workers import consume
from pyboxd.server.message import Empty, Json, Request, Response, Stream
from pyboxd.server.routes import Route

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
        return container, path

    async def stat(self, request: Request) -> Response:
        container, path = self._target(request)
        async with self.views.open(container) as root:
            found = await asyncio.to_thread(archive.status, root, path, container.id)
        return Empty(200, {_STAT: encode_stat(found)})

    async def get(self, request: Request) -> Response:
        container, path = self._target(request)
        async with self.views.open(container) as root:
            found = await asyncio.to_thread(archive.status, root, path, container.id)
        self.events.container(container.record, "archive-path")
        return Stream(self._read(container, path), _TAR, headers={_STAT: encode_stat(found)}, eager=False)

    async def _read(self, container: Container, path: str) -> AsyncIterator[bytes]:
        async with self.views.open(container) as root:
            async for chunk in in_thread(lambda: archive.write(root, path, container.id)):
                yield chunk

    async def put(self, request: Request) -> Response:
        container, path = self._target(request)
        query = request.query
        keep_kinds = query.flag("noOverwriteDirNonDir")
        async with self.views.open(container) as root:
            place = await asyncio.to_thread(archive.resolve_directory, root, path, container.id)
            check_writable(container.record, place)
            owner = archive.user_owner(root, container.record.config.user) if query.flag("copyUIDGID") else None

            def job(chunks: Iterator[bytes]) -> None:
                archive.unpack(root, place, chunks, owner, keep_kinds)

            try:
                await consume(request.body, job)
            except OSError as error:
                raise SystemFailure(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
        self.events.container(container.record, "extract-to-dir")
        return Empty(200)

    async def export(self, request: Request) -> Response:
        container = self.containers.get(request.parameters["id"])
        self.events.container(container.record, "export")
        return Stream(self._read(container, "/."), "application/octet-stream", eager=False)

    async def changes(self, request: Request) -> Response:
        container = self.containers.get(request.parameters["id"])
        upper = specs.upper(directory_of(container.id))
        async with self.views.layers(container) as below:
            found = await asyncio.to_thread(changes.changes, upper, below)
        return Json([{"Path": change.path, "Kind": change.kind} for change in found] or None)


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
