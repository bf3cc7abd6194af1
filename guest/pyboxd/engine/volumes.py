"""Volumes: directories on the data disk with a name. Docker's `local` driver, with its options for other sources."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from pyboxd import locations
from pyboxd.engine.events import Events
from pyboxd.engine.mountspec import check_volume_name
from pyboxd.engine.store import Store, Volume
from pyboxd.engine.trees import remove_tree, tree_size
from pyboxd.errors import Conflict, InvalidArgument, NotFound

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_OPTIONS = frozenset({"type", "o", "device", "size"})
VolumeUsers = Callable[[str], Sequence[str]]  # name of a volume -> ids of the containers that have it


class Volumes:
    """All volumes. `users` says which containers have one."""

    def __init__(
        self,
        store: Store,
        events: Events,
        users: VolumeUsers,
        directory: str = locations.VOLUMES,
        temporary: str = locations.TEMPORARY,
    ) -> None:
        self._store = store
        self._events = events
        self._users = users
        self._directory = directory
        self._temporary = temporary
        self._volumes = {volume.name: volume for volume in store.volumes()}
        os.makedirs(directory, mode=0o711, exist_ok=True)
        for name in os.listdir(directory):
            if name not in self._volumes:  # a removal was broken off
                self._put_aside(name)

    def list(self) -> tuple[Volume, ...]:
        """All, by name."""
        return tuple(self._volumes[name] for name in sorted(self._volumes))

    def get(self, name: str) -> Volume:
        """NotFound in Docker's words."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def path(self, name: str) -> str:
        """The directory that is mounted."""
        return f"{self._directory}/{name}/_data"

    def users(self, name: str) -> Sequence[str]:
        """Ids of the containers that have the volume."""
        return self._users(name)

    def create(
        self,
        name: str = "",
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name. An empty name makes an anonymous one."""
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        if unknown := set(options or {}) - _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{min(unknown)}"')
        if name:
            check_volume_name(name)
            if (existing := self._volumes.get(name)) is not None:
                return existing
        anonymous = not name
        name = name or secrets.token_hex(32)
        all_labels = {**(labels or {}), **({ANONYMOUS_LABEL: ""} if anonymous else {})}
        volume = Volume(name, time.time_ns(), tuple(all_labels.items()), tuple((options or {}).items()), anonymous)
        os.makedirs(self.path(name), mode=0o755, exist_ok=True)
        self._store.add_volume(volume)
        self._volumes[name] = volume
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    async def remove(self, name: str, force: bool = False) -> None:
        """Delete a volume and its files; Conflict while a container has it. `force` forgives a missing one."""
        if name not in self._volumes and force:
            return
        self.get(name)
        if users := self._users(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self._store.remove_volume(name)
        del self._volumes[name]
        await asyncio.to_thread(remove_tree, self._put_aside(name))
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    def _put_aside(self, name: str) -> str:
        """Move a volume's files to where the next start removes whatever is left; no later volume of the name sees them."""
        grave = f"{self._temporary}/volume-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            os.rename(f"{self._directory}/{name}", grave)
        return grave

    async def size(self, name: str) -> int:
        """Bytes of its files."""
        return await asyncio.to_thread(tree_size, self.path(name))

    async def prune(self, chosen: Callable[[Volume], bool]) -> tuple[tuple[str, ...], int]:
        """Remove the unused volumes that `chosen` picks; their names and the bytes that became free."""
        removed, freed = [], 0
        for volume in self.list():
            if self._users(volume.name) or not chosen(volume):
                continue
            size = await self.size(volume.name)
            with suppress(Conflict, NotFound):
                await self.remove(volume.name)
                removed.append(volume.name)
                freed += size
        self._events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return tuple(removed), freed
