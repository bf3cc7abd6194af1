"""/containers: create, list, inspect and what changes a container's state."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from pyboxd.api import listing
from pyboxd.api.fields import JsonObject
from pyboxd.api.schema import config as config_schema
from pyboxd.api.schema import containers as schema
from pyboxd.engine import figures, links, specs, waiting
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.create import Creator
from pyboxd.engine.events import Events
from pyboxd.engine.exec import Execs
from pyboxd.engine.lifecycle import Lifecycle
from pyboxd.engine.model import Record
from pyboxd.engine.networking import Networking
from pyboxd.engine.preparation import directory_of
from pyboxd.engine.trees import tree_size
from pyboxd.engine.update import update
from pyboxd.errors import Conflict, InvalidArgument, NotFound
from pyboxd.frozen import frozen, replace
from pyboxd.image.model import Image
from pyboxd.server.message import Empty, Json, Request, Response, Stream
from pyboxd.server.routes import Route

_LONGEST_START_BODY = 7  # bytes: Docker's own bound, "{}" and "null" with line ends


class ImageTable(Protocol):
    """The part of the image room that is needed here."""

    def get(self, reference: str) -> Image: ...


@frozen
class ContainersApi:
    """Handlers around the engine's rooms."""

    containers: Containers
    creator: Creator
    lifecycle: Lifecycle
    networking: Networking
    execs: Execs
    events: Events
    images: ImageTable

    def routes(self) -> list[Route]:
        one = "/containers/{id}"
        return [
            Route("GET", "/containers/json", self.list),
            Route("POST", "/containers/create", self.create),
            Route("POST", "/containers/prune", self.prune),
            Route("GET", f"{one}/json", self.inspect),
            Route("POST", f"{one}/start", self.start),
            Route("POST", f"{one}/stop", self.stop),
            Route("POST", f"{one}/restart", self.restart),
            Route("POST", f"{one}/kill", self.kill),
            Route("POST", f"{one}/wait", self.wait),
            Route("POST", f"{one}/pause", self.pause),
            Route("POST", f"{one}/unpause", self.unpause),
            Route("POST", f"{one}/rename", self.rename),
            Route("POST", f"{one}/update", self.update),
            Route("POST", f"{one}/resize", self.resize),
            Route("GET", f"{one}/top", self.top),
            Route("DELETE", one, self.remove),
            Route("DELETE", f"{one}/{{link}}", self.remove_link),
        ]

    def find(self, request: Request) -> Container:
        """The container that the path names. NotFound."""
        return self.containers.get(request.parameters["id"])

    async def create(self, request: Request) -> Response:
        body = config_schema.decode_create(await request.json(), request.query.text("name"), request.query.text("platform"))
        container, warnings = await self.creator.create(body)
        return Json({"Id": container.id, "Warnings": warnings}, 201)

    async def list(self, request: Request) -> Response:
        query = request.query
        filters = listing.parse(query.text("filters"))
        limit = query.integer("limit")
        everything = query.flag("all") or limit > 0
        chooser = listing.Chooser(self.containers, self.networking, self.images, filters)
        found = [item for item in reversed(tuple(self.containers)) if chooser.wants(item, everything)]
        return Json(await self.summaries(found[:limit] if limit > 0 else found, query.flag("size")))

    async def summaries(self, containers: Iterable[Container], sized: bool) -> Sequence[JsonObject]:
        """The entries of a list, with sizes if they are wanted."""
        now = time.time_ns()
        image_name = functools.cache(self._image_name)  # many containers have the same
        found = []
        for container in containers:
            record = container.record
            sizes = await self._sizes(record) if sized else None
            name = image_name(record.image_name, record.image_id)
            found.append(schema.summary(record, name, self.networking.views(record), now, sizes))
        return found

    def _image_name(self, name: str, identity: str) -> str:
        """The name a container was made from, as long as that still means the same image."""
        try:
            same = self.images.get(name).id == identity
        except (NotFound, InvalidArgument):
            same = False
        return name if same else identity

    async def _sizes(self, record: Record) -> schema.Sizes:
        writable = await asyncio.to_thread(tree_size, specs.upper(directory_of(record.id)))
        try:
            below = self.images.get(record.image_id).size
        except NotFound:
            below = 0
        return schema.Sizes(writable, writable + below)

    async def inspect(self, request: Request) -> Response:
        record = self.find(request).record
        directory = directory_of(record.id)
        paths = schema.Paths(directory, specs.log_path(directory, record.id), specs.upper(directory), specs.work(directory))
        sizes = await self._sizes(record) if request.query.flag("size") else None
        exec_ids = self.execs.of(self.find(request))
        return Json(schema.inspect(record, paths, self.networking.views(record), exec_ids, sizes))

    async def start(self, request: Request) -> Response:
        if len(await request.read()) > _LONGEST_START_BODY:
            raise InvalidArgument(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        await self.lifecycle.start(self.find(request))
        return Empty()

    async def stop(self, request: Request) -> Response:
        await self.lifecycle.stop(self.find(request), _timeout(request), request.query.text("signal"))
        return Empty()

    async def restart(self, request: Request) -> Response:
        await self.lifecycle.restart(self.find(request), _timeout(request), request.query.text("signal"))
        return Empty()

    async def kill(self, request: Request) -> Response:
        try:
            await self.lifecycle.kill(self.find(request), request.query.text("signal"))
        except (Conflict, InvalidArgument, NotFound) as error:
            raise type(error)(f"cannot kill container: {request.parameters['id']}: {error}") from None
        return Empty()

    async def pause(self, request: Request) -> Response:
        await self.lifecycle.pause(self.find(request))
        return Empty()

    async def unpause(self, request: Request) -> Response:
        await self.lifecycle.unpause(self.find(request))
        return Empty()

    async def rename(self, request: Request) -> Response:
        self.lifecycle.rename(self.find(request), request.query.text("name"))
        return Empty()

    async def wait(self, request: Request) -> Response:
        """The header goes out at once: the CLI starts the container only when it has seen it."""
        outcome = waiting.watch(self.find(request), request.query.text("condition"))
        return Stream(_wait_body(outcome))

    async def update(self, request: Request) -> Response:
        changes, policy = config_schema.decode_limits_update(await request.json())
        container = self.find(request)
        return Json({"Warnings": await update(self.containers, self.events, container, changes, policy)})

    async def resize(self, request: Request) -> Response:
        rows, columns = terminal_size(request)
        container = self.find(request)
        if container.process is None:
            raise Conflict(f"container {container.id} is not running")
        await container.process.resize(rows, columns)
        self.events.container(container.record, "resize", height=str(rows), width=str(columns))
        return Empty(200)

    async def top(self, request: Request) -> Response:
        titles, rows = figures.top(self.find(request), request.query.text("ps_args"))
        return Json({"Titles": list(titles), "Processes": [list(row) for row in rows]})

    async def remove(self, request: Request) -> Response:
        query = request.query
        await self.lifecycle.remove(self.find(request), query.flag("force"), query.flag("v"))
        return Empty()

    async def remove_link(self, request: Request) -> Response:
        if not request.query.flag("link"):
            raise NotFound("page not found")
        container = self.find(request)
        kept = links.without(container, request.parameters["link"])
        self.containers.update(container, host=replace(container.record.host, links=kept))
        return Empty()

    async def prune(self, request: Request) -> Response:
        filters = listing.parse_prune(request.query.text("filters"))
        removed, freed = [], 0
        for container in self.containers:
            record = container.record
            if container.state.running or not listing.old_enough(filters, record.created, record.config.labels):
                continue
            sizes = await self._sizes(record)
            try:
                await self.lifecycle.remove(container)
            except Conflict:  # it was started, or is being removed by somebody else
                continue
            removed.append(record.id)
            freed += sizes.writable
        self.events.publish("container", "prune", "", {"reclaimed": str(freed)})
        return Json({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


def _timeout(request: Request) -> int | None:
    return request.query.integer("t") if request.query.text("t") else None


def terminal_size(request: Request) -> tuple[int, int]:
    """Rows and columns of `h` and `w`. InvalidArgument."""
    sizes = []
    for name in ("h", "w"):
        number = request.query.integer(name, -1)
        if not 0 <= number < 1 << 32:
            raise InvalidArgument(f"invalid resize {'height' if name == 'h' else 'width'}: {request.query.text(name)!r}")
        sizes.append(min(number, 0xFFFF))
    return sizes[0], sizes[1]


async def _wait_body(outcome: asyncio.Future[waiting.Outcome]) -> AsyncIterator[bytes]:

    try:
        code, error = await outcome
    finally:
        outcome.cancel()
    body: dict[str, object] = {"StatusCode": code}
    if error:
        body["Error"] = {"Message": error}
    yield json.dumps(body).encode() + b"\n"
