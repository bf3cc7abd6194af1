"""All containers: the living object of each, looking one up, and the names they hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyboxd.engine.model import Record, State
from pyboxd.engine.store import Store
from pyboxd.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from pyboxd.frozen import replace
from pyboxd.runtime.client import Attachment, Process

log = logging.getLogger(__name__)


@dataclass
class PendingAttach:
    """A client that attached before the process was made; it gets its attachment at the start."""

    stdin: bool
    stdout: bool
    stderr: bool
    attachment: asyncio.Future[Attachment | None]  # None: there will be no process


@dataclass
class Waiter:
    """Someone who waits for a container; `condition` is not-running, next-exit or removed."""

    condition: str
    result: asyncio.Future[tuple[int, str]]  # exit status, error text


@dataclass
class Container:
    """A container while the engine lives. Only `record` outlives it; it is replaced through `Containers.update`."""

    record: Record
    process: Process | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: list[PendingAttach] = field(default_factory=list)
    waiters: list[Waiter] = field(default_factory=list)
    restarting: asyncio.Task[None] | None = None
    restart_delay: float = 0.0
    removing: bool = False
    gone: bool = False  # it was removed; whoever still holds it must not touch it
    stopping: bool = False  # a stop or kill by the user: no restart policy applies
    keep: bool = False  # `--rm` does not apply to the next end
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # set when the present process has ended

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def state(self) -> State:
        return self.record.state


class Containers:
    """The table of containers, in memory and in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._containers = {record.id: Container(record) for record in store.containers()}
        self._names = {container.name: container.id for container in self._containers.values()}
        self._reserved: set[str] = set()

    def __iter__(self) -> Iterator[Container]:
        """All, the oldest first."""
        return iter(tuple(self._containers.values()))

    def get(self, reference: str) -> Container:
        """By id, name ("/" in front allowed) or the beginning of an id, in this order. NotFound, InvalidArgument."""
        found = self._containers.get(reference)
        if found is not None:
            return found
        name = reference.removeprefix("/")
        if name in self._names:
            return self._containers[self._names[name]]
        candidates = [key for key in self._containers if reference and key.startswith(reference)]
        if len(candidates) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {reference}")
        if not candidates:
            raise NotFound(f"No such container: {reference}")
        return self._containers[candidates[0]]

    def taken(self, name: str) -> bool:
        """Whether a container has the name, or is about to have it."""
        return name in self._names or name in self._reserved

    def reserve(self, name: str) -> None:
        """Keep a name for a container that is being made. Conflict in Docker's words."""
        if self.taken(name):
            owner = self._names.get(name, "")
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._reserved.add(name)

    def release(self, name: str) -> None:
        """Give a reserved name back."""
        self._reserved.discard(name)

    def add(self, record: Record) -> Container:
        """A new container whose name was reserved; it is stored when this returns."""
        self._store.save_container(record)
        container = self._containers[record.id] = Container(record)
        self._names[record.name] = record.id
        return container

    def remove(self, container: Container) -> None:
        """Forget a container."""
        self._store.remove_container(container.id)
        del self._containers[container.id]
        del self._names[container.name]

    def update(self, container: Container, **changes: Any) -> None:
        """Replace parts of the record; stored when this returns."""
        record = replace(container.record, **changes)
        self._store.save_container(record)
        if record.name != container.name:
            del self._names[container.name]
            self._names[record.name] = record.id
        container.record = record

    def set_state(self, container: Container, **changes: Any) -> None:
        """Replace parts of the record's state; stored when this returns, or, on a full disk, with the next change.

        What has happened is true even if it cannot be written down, and somebody waits for it.
        """
        try:
            self.update(container, state=replace(container.state, **changes))
        except SystemFailure as error:
            log.error("the state of container %s is not stored: %s", container.record.short_id, error)
            self.show_state(container, **changes)

    def show_state(self, container: Container, **changes: Any) -> None:
        """Replace parts of the state in memory only: what is not worth a write, as it ends with the process."""
        container.record = replace(container.record, state=replace(container.state, **changes))
