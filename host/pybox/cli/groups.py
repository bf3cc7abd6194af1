"""Docker's groups of commands: what is below `container`, `image`, `network`, `volume` and `system`."""

from __future__ import annotations

import click

from pybox.cli.lazy import LazyGroup

_NAMES = {"list": "ls", "remove": "rm"}  # Docker's other names


def _same(module: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (module, name) for name in names}


def _sorted(places: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return dict(sorted(places.items()))


_CONTAINER = {
    **_same("both", "start", "stop", "restart"),
    **_same("run", "run", "create", "exec", "attach"),
    **_same("containers", "logs", "rm", "kill", "wait", "pause", "unpause", "rename"),
    **_same("facts", "top", "port", "stats"),
    **_same("trees", "cp", "diff", "commit", "export"),
    **_same("update", "update"),
    "ls": ("containers", "ps"),
    "inspect": ("inspection", "container"),
    "prune": ("prune", "container"),
}
_IMAGE = {
    **_same("images", "tag", "history"),
    **_same("transfer", "pull", "push", "load", "save", "import"),
    **_same("build", "build", "bootstrap"),
    "ls": ("images", "images"),
    "rm": ("images", "rmi"),
    "inspect": ("inspection", "image"),
    "prune": ("prune", "image"),
}
_NETWORK = {
    **_same("networks", "create", "connect", "disconnect", "ls", "rm"),
    "inspect": ("inspection", "network"),
    "prune": ("prune", "network"),
}
_VOLUME = {
    **_same("volumes", "create", "ls", "rm"),
    "inspect": ("inspection", "volume"),
    "prune": ("prune", "volume"),
}
_SYSTEM = {
    "df": ("usage", "df"),
    "events": ("events", "events"),
    "info": ("system", "info"),
    "prune": ("prune", "system"),
}


@click.group(cls=LazyGroup, places=_sorted(_CONTAINER), aliases={**_NAMES, "ps": "ls"})
def container() -> None:
    """Manage containers."""


@click.group(cls=LazyGroup, places=_sorted(_IMAGE), aliases=_NAMES)
def image() -> None:
    """Manage images; make base images."""


@click.group(cls=LazyGroup, places=_sorted(_NETWORK), aliases=_NAMES)
def network() -> None:
    """Manage networks."""


@click.group(cls=LazyGroup, places=_sorted(_VOLUME), aliases=_NAMES)
def volume() -> None:
    """Manage volumes."""


@click.group(cls=LazyGroup, places=_sorted(_SYSTEM))
def system() -> None:
    """Look at the engine's disk space and events; remove what is unused."""


COMMANDS: dict[str, click.Group] = {
    "container": container,
    "image": image,
    "network": network,
    "volume": volume,
    "system": system,
}
