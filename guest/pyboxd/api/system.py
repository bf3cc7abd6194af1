"""What is about the engine itself: ping, version, info, disk usage; and what it has not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pyboxd.api.containers import ContainersApi
from pyboxd.api.schema import images as image_schema
from pyboxd.api.schema import system as schema
from pyboxd.api.schema import volumes as volume_schema
from pyboxd.engine import cpus
from pyboxd.engine.containers import Containers
from pyboxd.engine.events import Events
from pyboxd.engine.model import Status
from pyboxd.engine.volumes import Volumes
from pyboxd.errors import InvalidArgument, NotImplementedHere, Unavailable
from pyboxd.frozen import frozen
from pyboxd.image.images import Images
from pyboxd.server.message import Body, Json, Request, Response
from pyboxd.server.routes import Route

_USAGES = ("container", "image", "volume", "build-cache")
_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_NO_SWARM = "This node is not part of a swarm"
_SWARM_ROOTS = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
_PING = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}
_BUILDKIT = "this engine has no BuildKit; type `DOCKER_BUILDKIT=0 docker build …` for its own builder, or use `pybox build`"


@frozen
class Surroundings:
    """The settings of the machine that clients can see."""

    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    insecure_registries: tuple[str, ...] = ()
    registry_mirror: str = ""


@frozen
class SystemApi:
    """Handlers. `surroundings` is asked anew each time, as the host may send other settings."""

    release: schema.Release
    surroundings: Callable[[], Surroundings]
    containers: Containers
    containers_api: ContainersApi
    images: Images
    volumes: Volumes
    events: Events

    def routes(self) -> list[Route]:
        swarm = [
            Route(method, pattern, self.no_swarm)
            for root in _SWARM_ROOTS
            for method, pattern in (
                ("GET", f"/{root}"),
                ("GET", f"/{root}/{{id:path}}"),
                ("POST", f"/{root}/{{id:path}}"),
                ("DELETE", f"/{root}/{{id:path}}"),
            )
        ]
        return [
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
            Route("GET", "/system/df", self.disk_usage),
            Route("POST", "/session", self.no_buildkit),
            Route("POST", "/grpc", self.no_buildkit),
            Route("GET", "/plugins", self.plugins),
            *swarm,
        ]

    async def ping(self, request: Request) -> Response:
        data = b"" if request.method == "HEAD" else b"OK"
        return Body(data, "text/plain; charset=utf-8", headers=_PING)

    async def version(self, request: Request) -> Response:
        return Json(schema.version(self.release))

    async def info(self, request: Request) -> Response:
        counts = dict.fromkeys(Status.ALL, 0)
        for container in self.containers:
            counts[container.state.status] += 1
        active = counts[Status.RUNNING] + counts[Status.RESTARTING]
        around = self.surroundings()
        name = os.uname()
        return Json(
            schema.info(
                self.release,
                schema.Facts(
                    id=_machine_id(),
                    hostname=name.nodename,
                    machine=name.machine,
                    cpus=cpus.count(),
                    memory=cpus.memory(),
                    running=active,
                    paused=counts[Status.PAUSED],
                    stopped=sum(counts.values()) - active - counts[Status.PAUSED],
                    images=len(self.images.list()),
                    warnings=(),
                    http_proxy=around.http_proxy,
                    https_proxy=around.https_proxy,
                    no_proxy=around.no_proxy,
                    insecure_registries=around.insecure_registries,
                    registry_mirror=around.registry_mirror,
                    now=time.time_ns(),
                    listeners=self.events.listeners,
                ),
            )
        )

    async def disk_usage(self, request: Request) -> Response:
        asked = request.query.many("type") or _USAGES
        if unknown := set(asked) - set(_USAGES):
            raise InvalidArgument(f"unknown object type: {min(unknown)}")
        used = [container.record.image_id for container in self.containers]
        images = self.images.list()
        shared = self.images.shared_sizes(images)
        return Json(
            schema.disk_usage(
                sum(self.images.layer_sizes().values()),
                [image_schema.summary(image, used.count(image.id), shared=shared[image.id]) for image in images]
                if "image" in asked
                else None,
                await self.containers_api.summaries(self.containers, sized=True) if "container" in asked else None,
                [
                    volume_schema.volume(volume, self.volumes.path(volume.name))
                    | {
                        "UsageData": {
                            "Size": await self.volumes.size(volume.name),
                            "RefCount": len(self.volumes.users(volume.name)),
                        }
                    }
                    for volume in self.volumes.list()
                ]
                if "volume" in asked
                else None,
                "build-cache" in asked,
            )
        )

    async def plugins(self, request: Request) -> Response:
        return Json([])

    async def no_buildkit(self, request: Request) -> Response:
        raise NotImplementedHere(_BUILDKIT)

    async def no_swarm(self, request: Request) -> Response:
        raise Unavailable(_NO_SWARM if request.path.endswith(("/leave", "/unlock")) else _SWARM)


def _machine_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
