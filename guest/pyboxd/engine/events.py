"""What happens in the engine, told to whoever listens (GET /events): a ring of the latest, and live subscribers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from weakref import WeakSet

from pyboxd.engine.model import Record
from pyboxd.frozen import frozen
from pyboxd.model import EMPTY

KEPT = 256  # events that a late listener can still have (moby, daemon/events)
_PREFIX_ACTIONS = ("exec_create", "exec_start", "health_status")
Filters = Mapping[str, tuple[str, ...]]


@frozen
class Event:
    """One event. `kind` is Docker's Type, `subject` the id (or name) of the thing it happened to."""

    kind: str
    action: str
    subject: str
    attributes: Mapping[str, str] = EMPTY
    time: int = 0


class Events:
    """The ring and its listeners. `clock` gives nanoseconds since the epoch."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=KEPT)
        self._queues: WeakSet[asyncio.Queue[Event]] = WeakSet()  # a listener that is gone needs no goodbye

    def publish(self, kind: str, action: str, subject: str, attributes: Mapping[str, str] = EMPTY) -> None:
        """Tell all listeners."""
        event = Event(kind, action, subject, attributes, self._clock())
        self._ring.append(event)
        for queue in tuple(self._queues):
            queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._queues)

    def container(self, record: Record, action: str, **more: str) -> None:
        """An event of a container, with the attributes that all of them have: image, name and labels."""
        attributes = {**dict(record.config.labels), "image": record.config.image, "name": record.name, **more}
        self.publish("container", action, record.id, attributes)

    def listen(self, filters: Filters, since: int = 0, until: int = 0) -> AsyncIterator[Event]:
        """Past events from `since` (0: none) on, then new ones as they come, to `until` (0: for ever).

        Events count from this call, also while nobody has begun to read them.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        for event in tuple(self._ring) if since else ():
            if event.time >= since and (not until or event.time <= until):
                queue.put_nowait(event)
        self._queues.add(queue)
        return self._follow(queue, filters, until)

    async def _follow(self, queue: asyncio.Queue[Event], filters: Filters, until: int) -> AsyncIterator[Event]:
        while True:
            if queue.empty() and until and self._clock() >= until:
                return
            patience = (until - self._clock()) / 1e9 if until and queue.empty() else None
            try:
                event = await asyncio.wait_for(queue.get(), patience)
            except TimeoutError:
                return
            if matches(event, filters):
                yield event


def matches(event: Event, filters: Filters) -> bool:
    """Docker's rule: one value of each key must fit, of `label` all (moby, daemon/events/filter.go)."""
    return all(_fits(event, key, values) for key, values in filters.items() if values)


def _fits(event: Event, key: str, values: tuple[str, ...]) -> bool:
    if key in ("type", "event", "scope"):
        actual = {"type": event.kind, "event": event.action, "scope": "local"}[key]
        return any(value == actual or (key == "event" and _action_fits(actual, value)) for value in values)
    if key == "label":
        return all(_label_fits(event.attributes, value) for value in values)
    if key == "image":
        names = {event.attributes.get("image", ""), event.attributes.get("name", "") if event.kind == "image" else ""}
        names |= {event.subject} if event.kind == "image" else set()
        return any(value in names or value in {name.partition(":")[0] for name in names} for value in values)
    if event.kind != key:
        return False
    name = event.attributes.get("name", "")
    return any(event.subject.startswith(value) or name == value for value in values)


def _action_fits(action: str, wanted: str) -> bool:
    return wanted in _PREFIX_ACTIONS and action.startswith(wanted)


def _label_fits(labels: Mapping[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in labels and (not separator or labels[key] == value)
