"""The engine, put together: every room once, and the table of routes over them."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
from collections.abc import Callable, Sequence

from pyboxd import locations
from pyboxd.api.archive import ArchiveApi
from pyboxd.api.build import BuildApi, Builder
from pyboxd.api.containers import ContainersApi
from pyboxd.api.events import EventsApi
from pyboxd.api.images import ImagesApi
from pyboxd.api.networks import NetworksApi
from pyboxd.api.registry import RegistryApi
from pyboxd.api.schema.system import Release
from pyboxd.api.stats import StatsApi
from pyboxd.api.streams import StreamsApi
from pyboxd.api.system import Surroundings, SystemApi
from pyboxd.api.volumes import VolumesApi
from pyboxd.database import Database
from pyboxd.engine.binds import Binds, HostPaths
from pyboxd.engine.containers import Containers
from pyboxd.engine.create import Creator
from pyboxd.engine.events import Events
from pyboxd.engine.exec import Execs
from pyboxd.engine.health import HealthChecks
from pyboxd.engine.lifecycle import Lifecycle
from pyboxd.engine.model import Record
from pyboxd.engine.networking import Networking
from pyboxd.engine.preparation import Preparation
from pyboxd.engine.steps import Steps
from pyboxd.engine.store import Store
from pyboxd.engine.supervision import Supervisor
from pyboxd.engine.trees import remove_tree
from pyboxd.engine.views import Views
from pyboxd.engine.volumes import Volumes
from pyboxd.errors import Conflict, NotFound
from pyboxd.image.model import ImageUse
from pyboxd.image.room import ImageRoom
from pyboxd.network.networks import Networks
from pyboxd.runtime.client import Runtime
from pyboxd.server.routes import Route

log = logging.getLogger(__name__)
_OLD = "old-"  # names, on the data disk, of what is to be removed


class Rooms:
    """All of the engine that lives on the data disk. Made when the disk is mounted."""

    def __init__(
        self,
        database: Database,
        runtime: Runtime,
        images: ImageRoom,
        networks: Networks,
        paths: HostPaths,
        release: Release,
        surroundings: Callable[[], Surroundings],
    ) -> None:
        store = Store(database)
        self._database = database
        self._runtime = runtime
        self.images = images
        self.events = events = Events()
        self.containers = containers = Containers(store)
        self.volumes = volumes = Volumes(store, events, self._volume_users)
        self.networking = Networking(networks, containers)
        self.execs = execs = Execs(containers, runtime, events)
        health = HealthChecks(containers, execs, events)
        binds = Binds(paths)
        preparation = Preparation(containers, images, volumes, self.networking, binds)
        self.supervisor = Supervisor(
            containers,
            events,
            runtime,
            preparation,
            self.networking.detach,
            self._release,
            images.collect,
            (execs, health),
        )
        images.users = self._image_users
        lifecycle = Lifecycle(containers, events, self.supervisor)
        creator = Creator(containers, images, volumes, binds, events)
        containers_api = ContainersApi(containers, creator, lifecycle, self.networking, execs, events, images)
        self._apis = (
            containers_api,
            StreamsApi(containers, execs, events),
            StatsApi(containers),
            ImagesApi(images, containers, events),
            RegistryApi(images, events),
            VolumesApi(volumes),
            BuildApi(self._builder),
            ArchiveApi(containers, Views(images, preparation), events),
            NetworksApi(self.networking, containers, events),
            EventsApi(events),
            SystemApi(release, surroundings, containers, containers_api, images, volumes, events),
        )

    def routes(self) -> list[Route]:
        """Every path this engine answers."""
        return [route for api in self._apis for route in api.routes()]

    async def recover(self) -> None:
        """Take over what an earlier engine left: its containers, and, in the background, files nobody has any more."""
        await self.supervisor.recover()
        left = self.images.sweep()
        known = {container.id for container in self.containers}
        await self.networking.networks.detach_others(known)
        stray = [
            *left,
            *(f"{locations.CONTAINERS}/{name}" for name in os.listdir(locations.CONTAINERS) if name not in known),
        ]
        stray += [f"{locations.DATA}/{name}" for name in os.listdir(locations.DATA) if name.startswith(_OLD)]
        if stray:
            self._sweeping = asyncio.get_running_loop().create_task(asyncio.to_thread(_remove_all, stray))

    @functools.cached_property
    def _cached_builder(self) -> Builder:
        from pyboxd.image.builder import builder  # two dozen modules that only a build needs

        return builder.Builder(self.images, Steps(self._runtime, self.networking), self._database)

    def _builder(self) -> Builder:
        return self._cached_builder

    def _volume_users(self, name: str) -> Sequence[str]:
        return [
            container.id for container in self.containers if any(point.name == name for point in container.record.mounts)
        ]

    def _image_users(self, image_id: str) -> Sequence[ImageUse]:
        return [
            ImageUse(container.id, container.state.running)
            for container in self.containers
            if container.record.image_id == image_id
        ]

    async def _release(self, record: Record) -> None:
        """A container was removed with its volumes: those without a name go, unless another container has them."""
        for name in {point.name for point in record.mounts if point.name}:
            try:
                if self.volumes.get(name).anonymous:
                    await self.volumes.remove(name)
            except (NotFound, Conflict):
                continue


def prepare_directories() -> None:
    """Make the data disk's folders. What was temporary is put aside for `Rooms.recover` to remove."""
    if os.path.exists(locations.TEMPORARY) and os.listdir(locations.TEMPORARY):
        os.rename(locations.TEMPORARY, f"{locations.DATA}/{_OLD}{secrets.token_hex(8)}")
    for path, mode in (
        (locations.LAYERS, 0o711),
        (locations.CONTAINERS, 0o711),
        (locations.VOLUMES, 0o711),
        (locations.TEMPORARY, 0o700),
    ):
        os.makedirs(path, mode, exist_ok=True)
    os.makedirs(locations.CONTAINER_RUN, 0o711, exist_ok=True)


def _remove_all(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            remove_tree(path)
        except OSError as error:  # the next start tries again
            log.warning("%s could not be removed: %s", path, error)
