"""/volumes."""

from __future__ import annotations

from pyboxd.api import filters, listing
from pyboxd.api.fields import JsonObject
from pyboxd.api.schema import volumes as schema
from pyboxd.engine.store import Volume
from pyboxd.engine.volumes import Volumes
from pyboxd.frozen import frozen
from pyboxd.server.message import Empty, Json, Request, Response
from pyboxd.server.routes import Route

_FILTERS = ("dangling", "name", "driver", "label")
_PRUNE_FILTERS = ("all", "label", "label!", "until")
_ALL_SINCE = (1, 42)  # the API version from which a prune leaves volumes with a name alone


@frozen
class VolumesApi:
    """Handlers around the volumes."""

    volumes: Volumes

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/volumes", self.list),
            Route("POST", "/volumes/create", self.create),
            Route("POST", "/volumes/prune", self.prune),
            Route("GET", "/volumes/{name}", self.inspect),
            Route("DELETE", "/volumes/{name}", self.remove),
        ]

    def _encode(self, volume: Volume) -> JsonObject:
        return schema.volume(volume, self.volumes.path(volume.name))

    async def list(self, request: Request) -> Response:
        found = filters.parse(request.query.text("filters"), _FILTERS)
        dangling = filters.flag(found, "dangling")
        chosen = [
            volume
            for volume in self.volumes.list()
            if (dangling is None or dangling != bool(self.volumes.users(volume.name)))
            and filters.contained(found, "name", volume.name)
            and filters.chosen(found, "driver", "local")
            and filters.labels_match(found, dict(volume.labels))
        ]
        return Json({"Volumes": [self._encode(volume) for volume in chosen], "Warnings": None})

    async def create(self, request: Request) -> Response:
        wanted = schema.decode_create(await request.json())
        volume = self.volumes.create(wanted.name, wanted.driver, dict(wanted.labels), dict(wanted.options))
        return Json(self._encode(volume), 201)

    async def inspect(self, request: Request) -> Response:
        return Json(self._encode(self.volumes.get(request.parameters["name"])))

    async def remove(self, request: Request) -> Response:
        await self.volumes.remove(request.parameters["name"], request.query.flag("force"))
        return Empty()

    async def prune(self, request: Request) -> Response:
        found = filters.parse(request.query.text("filters"), _PRUNE_FILTERS)
        named_too = request.version < _ALL_SINCE or filters.flag(found, "all") is True

        def chosen(volume: Volume) -> bool:
            # What has options holds what is not the engine's.
            return (
                (named_too or volume.anonymous)
                and not volume.options
                and listing.old_enough(found, volume.created, volume.labels)
            )

        removed, freed = await self.volumes.prune(chosen)
        return Json({"VolumesDeleted": list(removed), "SpaceReclaimed": freed})
