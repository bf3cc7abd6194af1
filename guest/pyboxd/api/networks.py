"""/networks."""

from __future__ import annotations

from collections.abc import Sequence

from pyboxd.api import filters, listing
from pyboxd.api.schema import networks as schema
from pyboxd.engine.containers import Containers
from pyboxd.engine.events import Events
from pyboxd.engine.networking import Networking
from pyboxd.errors import InvalidArgument, NotFound, PyboxdError
from pyboxd.frozen import frozen
from pyboxd.network.model import Network
from pyboxd.server.message import Empty, Json, Request, Response
from pyboxd.server.routes import Route

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


@frozen
class NetworksApi:
    """Handlers around the network room."""

    networking: Networking
    containers: Containers
    events: Events

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/networks", self.list),
            Route("POST", "/networks/create", self.create),
            Route("POST", "/networks/prune", self.prune),
            Route("POST", "/networks/{id}/connect", self.connect),
            Route("POST", "/networks/{id}/disconnect", self.disconnect),
            Route("GET", "/networks/{id}", self.inspect),
            Route("DELETE", "/networks/{id}", self.remove),
        ]

    def _members(self, network: Network) -> Sequence[schema.Member]:
        names = {container.id: container.name for container in self.containers}
        return [
            schema.Member(names.get(endpoint.container_id, ""), endpoint)
            for endpoint in self.networking.networks.endpoints(network.id)
        ]

    def _event(self, action: str, network: Network, **more: str) -> None:
        self.events.publish("network", action, network.id, {"name": network.name, "type": network.driver, **more})

    def _used(self, network: Network) -> bool:
        return any(
            endpoint.network in (network.name, network.id)
            for container in self.containers
            for endpoint in container.record.endpoints
        )

    async def list(self, request: Request) -> Response:
        found = filters.parse(request.query.text("filters"), _FILTERS)
        for kind in found.get("type", ()):
            if kind not in ("builtin", "custom"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        dangling = filters.flag(found, "dangling")
        chosen = [
            network
            for network in self.networking.networks.list()
            if filters.chosen(found, "driver", network.driver)
            and filters.prefixed(found, "id", network.id)
            and filters.contained(found, "name", network.name)
            and filters.chosen(found, "scope", "local")
            and filters.chosen(found, "type", "builtin" if network.predefined else "custom")
            and filters.labels_match(found, network.labels)
            and (dangling is None or dangling == (not network.predefined and not self._used(network)))
        ]
        return Json([schema.network(network, ()) for network in chosen])

    async def inspect(self, request: Request) -> Response:
        network = self.networking.networks.get(request.parameters["id"])
        return Json(schema.network(network, self._members(network)))

    async def create(self, request: Request) -> Response:
        network = self.networking.networks.create(schema.decode_create(await request.json()))
        self._event("create", network)
        return Json({"Id": network.id, "Warning": ""}, 201)

    async def remove(self, request: Request) -> Response:
        network = await self.networking.networks.remove(request.parameters["id"])
        self._event("destroy", network)
        return Empty()

    async def connect(self, request: Request) -> Response:
        network = self.networking.networks.get(request.parameters["id"])
        name, endpoint = schema.decode_connect(await request.json(), network.name)
        container = self.containers.get(name)
        async with container.lock:
            await self.networking.connect(container, endpoint)
        self._event("connect", network, container=container.id)
        return Empty(200)

    async def disconnect(self, request: Request) -> Response:
        network = self.networking.networks.get(request.parameters["id"])
        name, force = schema.decode_disconnect(await request.json())
        try:
            container = self.containers.get(name)
        except NotFound:
            if not force:
                raise
            return Empty(200)
        async with container.lock:
            await self.networking.disconnect(container, network.id, force)
        self._event("disconnect", network, container=container.id)
        return Empty(200)

    async def prune(self, request: Request) -> Response:
        found = listing.parse_prune(request.query.text("filters"))
        removed = []
        for network in self.networking.networks.list():
            labels = tuple(network.labels.items())
            old = listing.old_enough(found, int(network.created * 10**9), labels)
            if network.predefined or self._used(network) or not old:
                continue
            try:
                await self.networking.networks.remove(network.id)
            except PyboxdError:  # somebody attached to it meanwhile
                continue
            removed.append(network.name)
            self._event("destroy", network)
        self.events.publish("network", "prune", "", {"reclaimed": "0"})
        return Json({"NetworksDeleted": removed or None})
