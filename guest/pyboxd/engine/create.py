"""POST /containers/create: a request becomes a stored container. Nothing is left behind when it fails."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import AsyncExitStack, suppress

from pyboxd.engine import logconfig, mountspec, names, networking, security, specs, validate
from pyboxd.engine.binds import Binds
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.merge import merge
from pyboxd.engine.model import ContainerConfig, CreateRequest, EndpointConfig, HostConfig, MountPoint, Record
from pyboxd.engine.mountspec import Wanted
from pyboxd.engine.preparation import ImageLayers, directory_of
from pyboxd.engine.trees import fill_empty, remove_tree
from pyboxd.engine.volumes import Volumes
from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.frozen import replace
from pyboxd.image.builder.places import open_layers
from pyboxd.image.model import Image

_NO_MATCH = "image with reference {} was found but does not provide the specified platform ({})"


class Creator:
    """Makes containers."""

    def __init__(self, containers: Containers, images: ImageLayers, volumes: Volumes, binds: Binds, events: Events) -> None:
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._binds = binds
        self._events = events

    async def create(self, request: CreateRequest) -> tuple[Container, list[str]]:
        """The new container and what its client should be warned of.

        NotFound ("No such image: x:latest") makes the CLI pull; InvalidArgument, Conflict.
        """
        name = names.check(request.name) if request.name else ""
        if not request.config.image:
            raise InvalidArgument("config cannot be empty in order to create a container")
        image = self._image(request)
        config = merge(request.config, image.config)
        warnings = validate.check_create(config, request.host)
        host = self._with_ids(validate.with_defaults(request.host))
        logconfig.check(host.log_config)
        security.work_out(host)
        _check_ports(config, host)
        self._check_links(host)
        name = name or names.invent(self._containers.taken)
        self._containers.reserve(name)
        try:
            async with AsyncExitStack() as undo:
                container = await self._make(request, name, image, config, host, undo)
                undo.pop_all()
        finally:
            self._containers.release(name)
        self._events.container(container.record, "create")
        return container, warnings

    def _check_links(self, host: HostConfig) -> None:
        """No NotFound for a container that is not there: the CLI would pull the image."""
        for text in host.links or ():
            name = text.partition(":")[0]
            try:
                self._containers.get(name)
            except NotFound as error:
                raise InvalidArgument(f"could not get container for {name}: {error}") from None

    def _image(self, request: CreateRequest) -> Image:
        image = self._images.get(request.config.image)
        if request.platform:
            system, _, architecture = request.platform.partition("/")
            wanted = (system, architecture.partition("/")[0]) if architecture else ("linux", system)
            if wanted[1] not in ("linux", image.architecture) or wanted[0] != image.os:
                raise NotFound(_NO_MATCH.format(request.config.image, request.platform))
        return image

    async def _make(
        self,
        request: CreateRequest,
        name: str,
        image: Image,
        config: ContainerConfig,
        host: HostConfig,
        undo: AsyncExitStack,
    ) -> Container:
        container_id = secrets.token_hex(32)
        wanted = self._wanted_mounts(config, host)
        mounts = [await self._mount_point(item, image, undo) for item in wanted]
        record = Record(
            id=container_id,
            name=name,
            created=time.time_ns(),
            image_id=image.id,
            image_name=config.image,
            platform=image.os,
            config=self._with_hostname(config, host, container_id),
            host=host,
            endpoints=_endpoints(request.endpoints, host),
            mounts=tuple(mounts),
        )
        self._images.get(image.id)  # the image may have been removed meanwhile; from here to the end nobody can
        directory = directory_of(container_id)
        undo.callback(remove_tree, directory)
        os.makedirs(directory, mode=0o710)
        for path, mode in ((specs.upper(directory), 0o755), (specs.work(directory), 0o700)):
            os.mkdir(path, mode)
        return self._containers.add(record)

    def _with_hostname(self, config: ContainerConfig, host: HostConfig, container_id: str) -> ContainerConfig:
        """Docker stores the short id as the host name, unless the name is somebody else's."""
        if config.hostname:
            return config
        if host.network_mode.startswith("container:"):
            return replace(config, hostname=self._other(host.network_mode.partition(":")[2]).config.hostname)
        if host.network_mode == "host" or host.uts_mode == "host":
            return replace(config, hostname=os.uname().nodename)
        return replace(config, hostname=container_id[:12])

    def _other(self, reference: str) -> Record:
        """Another container that the request names. InvalidArgument: a NotFound would make the CLI pull."""
        try:
            return self._containers.get(reference).record
        except NotFound as error:
            raise InvalidArgument(str(error)) from None

    def _with_ids(self, host: HostConfig) -> HostConfig:
        """Modes that name another container, by its id: it may be renamed."""
        return replace(
            host,
            network_mode=self._with_id(host.network_mode),
            ipc_mode=self._with_id(host.ipc_mode),
            pid_mode=self._with_id(host.pid_mode),
        )

    def _with_id(self, mode: str) -> str:
        kind, _, reference = mode.partition(":")
        return f"container:{self._other(reference).id}" if kind == "container" else mode

    # mounts

    def _wanted_mounts(self, config: ContainerConfig, host: HostConfig) -> list[Wanted]:
        inherited = [wanted for text in host.volumes_from or () for wanted in self._volumes_from(text)]
        binds = [mountspec.parse_bind(text, host.volume_driver) for text in host.binds or ()]
        mounts = [mountspec.from_request(request) for request in host.mounts]
        temporary = [mountspec.from_tmpfs(target, options) for target, options in host.tmpfs]
        anonymous = [mountspec.from_image(target) for target in config.volumes]
        merged = {wanted.point.destination: wanted for wanted in inherited}
        return mountspec.arrange([list(merged.values()), [*binds, *mounts], temporary], anonymous)

    def _volumes_from(self, text: str) -> list[Wanted]:
        reference, writable = mountspec.parse_volumes_from(text)
        points = self._other(reference).mounts
        return [
            Wanted(point if writable is None else replace(point, writable=point.writable and writable))
            for point in points
            if point.shown
        ]

    async def _mount_point(self, wanted: Wanted, image: Image, undo: AsyncExitStack) -> MountPoint:
        """Check a bind's source, or make a volume; what the record keeps."""
        point = wanted.point
        if point.type == "bind":
            await self._binds.check(point)
            return point
        if point.type != "volume":
            return point
        known = {volume.name for volume in self._volumes.list()}
        volume = self._volumes.create(point.name, point.driver, dict(wanted.labels), dict(wanted.options))
        if volume.name not in known:
            undo.push_async_callback(self._volumes.remove, volume.name)
        path = self._volumes.path(volume.name)
        if wanted.copy and not volume.options:
            await self._fill(path, image, point.destination)
        return replace(point, name=volume.name, source=path)

    async def _fill(self, path: str, image: Image, destination: str) -> None:
        """Give an empty volume what the image has at its place."""
        lower = await self._images.mount_layers(image)
        if not lower:
            return
        with open_layers(lower, lower[0]) as root, suppress(FileNotFoundError, NotADirectoryError):
            directory = root.open_directory(destination)
            try:
                await asyncio.to_thread(fill_empty, directory, path)
            finally:
                os.close(directory)


def _endpoints(asked: tuple[EndpointConfig, ...], host: HostConfig) -> tuple[EndpointConfig, ...]:
    """The networks of a container, that of `NetworkMode` always among them."""
    mode = host.network_mode
    if mode.startswith("container:"):
        return ()
    found = [replace(endpoint, network="bridge") if endpoint.network == "default" else endpoint for endpoint in asked]
    if any(endpoint.network == mode for endpoint in found):
        return tuple(found)
    return (EndpointConfig(mode), *found)


def _check_ports(config: ContainerConfig, host: HostConfig) -> None:
    """InvalidArgument for a port that is none."""
    for entry in host.port_bindings:
        networking.parse_port(entry.port)
        for binding in entry.bindings:
            networking.parse_range(binding.host_port)
    for text in config.exposed_ports:
        networking.expand_port(text)
