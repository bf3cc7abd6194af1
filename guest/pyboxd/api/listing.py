"""Which containers a list or a prune is about: Docker's filters (moby, daemon/list.go)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from pyboxd.api import filters
from pyboxd.api.filters import Filters
from pyboxd.engine import expressions
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.model import Pairs, Status
from pyboxd.engine.networking import Networking, expand_port
from pyboxd.engine.timestamps import parse as parse_time
from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.image.model import Image

_KNOWN = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
_HEALTH = ("starting", "healthy", "unhealthy", "none")


class ImageTable(Protocol):
    """The part of the image room that is needed here."""

    def get(self, reference: str) -> Image: ...


def parse(text: str) -> Filters:
    """The filters of a list. InvalidArgument."""
    found = filters.parse(text, _KNOWN)
    for status in found.get("status", ()):
        if status not in Status.ALL:
            raise InvalidArgument(f"invalid filter 'status={status}'")
    for health in found.get("health", ()):
        if health not in _HEALTH:
            raise InvalidArgument(f"invalid filter 'health={health}'")
    for code in found.get("exited", ()):
        if not code.lstrip("-").isdigit():
            raise InvalidArgument(f"invalid filter 'exited={code}'")
    for name in found.get("name", ()):
        expressions.check(name, f"filter 'name={name}'")
    return found


def parse_prune(text: str) -> Filters:
    """The filters of a prune. InvalidArgument."""
    found = filters.parse(text, ("label", "label!", "until"))
    if len(found.get("until", ())) > 1:
        raise InvalidArgument("more than one until filter specified")
    return found


def old_enough(found: Filters, created: int, labels: Pairs) -> bool:
    """Whether a prune with these filters may take something made at `created` (nanoseconds) with these labels."""
    until = found.get("until", ())
    if until and created > parse_time(until[0]):
        return False
    return filters.labels_match(found, dict(labels))


class Chooser:
    """Decides container by container. Raises NotFound, InvalidArgument for what the filters name."""

    def __init__(self, containers: Containers, networking: Networking, images: ImageTable, found: Filters) -> None:
        self._networking = networking
        self._filters = found
        self._before = [containers.get(name).record.created for name in found.get("before", ())]
        self._since = [containers.get(name).record.created for name in found.get("since", ())]
        self._ancestors = [image for name in found.get("ancestor", ()) if (image := _image(images, name))]
        self._images = images

    def wants(self, container: Container, everything: bool) -> bool:
        """Whether the container is in the list; `everything`: also one that does not run."""
        wide = everything or any(key in self._filters for key in ("status", "exited", "before", "since"))
        if not wide and not container.state.running:
            return False
        if not self._filters:
            return True
        return all(check(container) for check in self._checks())

    def _checks(self) -> tuple[Callable[[Container], bool], ...]:
        return (self._identity, self._state, self._time, self._ancestor, self._mounts, self._networks, self._ports)

    def _identity(self, container: Container) -> bool:
        names = self._filters.get("name", ())
        if names and not any(re.search(name, f"/{container.name}") or re.search(name, container.name) for name in names):
            return False
        return (
            filters.prefixed(self._filters, "id", container.id)
            and filters.labels_match(self._filters, dict(container.record.config.labels))
            and filters.flag(self._filters, "is-task") is not True
        )

    def _state(self, container: Container) -> bool:
        state = container.state
        health = state.health.status if state.health else "none"
        if "exited" in self._filters and (state.running or not state.started_at):
            return False
        return (
            filters.chosen(self._filters, "status", state.status)
            and filters.chosen(self._filters, "health", health)
            and filters.chosen(self._filters, "exited", str(state.exit_code))
        )

    def _time(self, container: Container) -> bool:
        created = container.record.created
        return all(created < limit for limit in self._before) and all(created > limit for limit in self._since)

    def _ancestor(self, container: Container) -> bool:
        """The image itself, or one that it was built on."""
        if "ancestor" not in self._filters:
            return True
        if any(container.record.image_id == image.id for image in self._ancestors):
            return True
        own = _image(self._images, container.record.image_id)
        return own is not None and any(
            image.layers and own.layers[: len(image.layers)] == image.layers for image in self._ancestors
        )

    def _mounts(self, container: Container) -> bool:
        values = {value for point in container.record.mounts for value in (point.name, point.source, point.destination)}
        return filters.chosen(self._filters, "volume", *values)

    def _networks(self, container: Container) -> bool:
        if "network" not in self._filters:
            return True
        views = self._networking.views(container.record)
        return any(
            wanted == view.network or (view.network_id and view.network_id.startswith(wanted))
            for view in views
            for wanted in self._filters["network"]
        )

    def _ports(self, container: Container) -> bool:
        exposed = {port for text in container.record.config.exposed_ports for port in expand_port(text)}
        published = {
            (port.container_port, port.protocol)
            for view in (self._networking.views(container.record) if "publish" in self._filters else ())
            for port in view.ports
        }
        return _any_port(self._filters, "expose", exposed) and _any_port(self._filters, "publish", published)


def _any_port(found: Filters, key: str, ports: set[tuple[int, str]]) -> bool:
    return not found.get(key) or any(port in ports for text in found[key] for port in expand_port(text))


def _image(images: ImageTable, reference: str) -> Image | None:
    try:
        return images.get(reference)
    except (NotFound, InvalidArgument):
        return None
