"""/containers/{id}/stats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from pyboxd.api.schema.stats import stats
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.figures import Sample, sample
from pyboxd.errors import NotFound
from pyboxd.frozen import frozen
from pyboxd.server.message import Json, Request, Response, Stream
from pyboxd.server.routes import Route

TICK = 1.0  # seconds between two readings; the CLI gives up after two


@frozen
class StatsApi:
    """The handler of figures."""

    containers: Containers

    def routes(self) -> list[Route]:
        return [Route("GET", "/containers/{id}/stats", self.stats)]

    async def stats(self, request: Request) -> Response:
        container = self.containers.get(request.parameters["id"])
        if request.query.flag("stream", default=True):
            return Stream(_follow(container))
        before = _sample(container)
        if request.query.flag("one-shot") or before.stats is None:
            return Json(stats(container.id, container.name, before, None))
        await asyncio.sleep(TICK)
        return Json(stats(container.id, container.name, _sample(container), before))


def _sample(container: Container) -> Sample:
    try:
        return sample(container)
    except NotFound:  # it is just ending
        return Sample(0)


async def _follow(container: Container) -> AsyncIterator[bytes]:
    """A reading each second, until the container is removed."""
    before: Sample | None = None
    while not container.gone:
        now = _sample(container)
        yield json.dumps(stats(container.id, container.name, now, before)).encode() + b"\n"
        before = now if now.stats is not None else None
        await asyncio.sleep(TICK)
