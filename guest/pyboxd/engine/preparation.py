"""Everything a container's start needs beside its process: layers, mounts, networks, files. All of it undone when a
later step fails, in reverse."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Protocol

from pyboxd import locations
from pyboxd.engine import links, networking, specs
from pyboxd.engine.binds import Binds
from pyboxd.engine.containers import Containers
from pyboxd.engine.model import MountPoint, Record
from pyboxd.engine.mountpoints import over_image
from pyboxd.engine.networking import Networking
from pyboxd.engine.volumes import Volumes
from pyboxd.errors import Conflict, InvalidArgument, NotFound
from pyboxd.image.model import Image
from pyboxd.runtime.spec import ContainerSpec, Mount

_MANAGED = (("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"))
_CONTAINER = "container:"


class ImageLayers(Protocol):
    """The part of the image room that a start needs."""

    def get(self, reference: str) -> Image: ...
    async def mount_layers(self, image: Image) -> tuple[str, ...]: ...


def directory_of(container_id: str) -> str:
    """A container's directory on the data disk."""
    return f"{locations.CONTAINERS}/{container_id}"


def run_directory_of(container_id: str) -> str:
    """A container's directory that ends with the machine."""
    return f"{locations.CONTAINER_RUN}/{container_id}"


def running_ids() -> list[str]:
    """Ids of all that has such a directory: containers that run or ran, and the steps of builds."""
    return os.listdir(locations.CONTAINER_RUN) if os.path.isdir(locations.CONTAINER_RUN) else []


class Preparation:
    """Makes a record ready to run."""

    def __init__(
        self,
        containers: Containers,
        images: ImageLayers,
        volumes: Volumes,
        networks: Networking,
        binds: Binds,
    ) -> None:
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._networks = networks
        self._binds = binds

    async def prepare(self, record: Record, undo: AsyncExitStack) -> ContainerSpec:
        """The runtime's order for `record`; what `undo` holds takes back all that was made for it. PyboxdError."""
        directory = directory_of(record.id)
        lower = over_image(await self._images.mount_layers(self._images.get(record.image_id)))
        mounts = [await self.mount_of(point) for point in record.mounts]
        network, attachments = await self._networks.attach(record)
        undo.push_async_callback(self._networks.detach, record)
        owner = self._networks.owner(record)
        found = links.resolve(record, self._containers, self._networks)
        if owner.id == record.id:
            networking.write_files(record, directory, attachments, links.host_lines(found))
        prepared = specs.Prepared(
            lower=lower,
            directory=directory,
            run_dir=run_directory_of(record.id),
            mounts=self._all_mounts(record, directory_of(owner.id), mounts),
            network=network,
            pid_mode=self._namespace(record.host.pid_mode, "pid"),
            ipc_mode=self._namespace(record.host.ipc_mode, "ipc"),
            uts_mode="host" if record.host.uts_mode == "host" else "private",
            init=bool(record.host.init),
            variables=links.variables(record, found),
        )
        return specs.container_spec(record, prepared)

    def _namespace(self, mode: str, kind: str) -> str:
        """A mode as the runtime takes it; that of another container is a path."""
        if mode == "host":
            return "host"
        if not mode.startswith(_CONTAINER):
            return "private"
        other = self._containers.get(mode.removeprefix(_CONTAINER))
        if not other.state.running:
            raise Conflict(f"cannot join {kind.upper()} of a non running container: {other.id}")
        return f"/proc/{other.state.pid}/ns/{kind}"

    def _all_mounts(self, record: Record, directory: str, mounts: list[Mount]) -> tuple[Mount, ...]:
        """The user's mounts and the engine's files, parents before what lies in them."""
        targets = {mount.target for mount in mounts}
        managed = [
            Mount("bind", f"{directory}/{name}", target, readonly=record.host.readonly_rootfs)
            for name, target in _MANAGED
            if target not in targets
        ]
        return tuple(sorted([*managed, *mounts], key=lambda mount: mount.target.count("/")))

    async def mount_of(self, point: MountPoint) -> Mount:
        """The runtime's order for one mount point. InvalidArgument, NotFound."""
        readonly = not point.writable
        if point.type == "tmpfs":
            return Mount("tmpfs", "", point.destination, readonly, options=point.options)
        if point.type == "volume":
            return await self._volume(point, readonly)
        source, _ = await self._binds.source(point)
        return Mount("bind", source, point.destination, readonly, point.recursive, point.propagation)

    async def _volume(self, point: MountPoint, readonly: bool) -> Mount:
        volume = self._volumes.get(point.name)
        options = dict(volume.options)
        device, kind = options.get("device", ""), options.get("type", "")
        words = tuple(word for word in options.get("o", "").split(",") if word)
        if kind == "tmpfs":
            return Mount("tmpfs", "", point.destination, readonly, options=words)
        if device:
            if kind not in ("", "none") or not {"bind", "rbind"} & set(words):
                raise InvalidArgument(f"volume {point.name}: mounts of type {kind} are not supported by this engine")
            bind = MountPoint("bind", point.destination, source=device)
            source, _ = await self._binds.source(bind)
            return Mount("bind", source, point.destination, readonly or "ro" in words)
        source = self._volumes.path(point.name)
        if point.subpath:
            source = _inside(source, point.subpath)
        return Mount("bind", source, point.destination, readonly)


def _inside(root: str, relative: str) -> str:
    """A directory below `root` that no link leads out of. InvalidArgument, NotFound."""
    path = os.path.realpath(f"{root}/{relative}")
    if path != root and not path.startswith(f"{root}/"):
        raise InvalidArgument("subpath must be a relative path within the volume")
    if not os.path.exists(path):
        raise NotFound(f"cannot access path {relative}: no such file or directory")
    return path
