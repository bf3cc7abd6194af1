"""Builds the object graph once per command. The only place that joins the image builder with the machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pybox import hostos
from pybox.paths import Paths

if TYPE_CHECKING:
    from pybox.app.fresh import Fresh
    from pybox.app.logins import Logins
    from pybox.app.machines import Machines, Report
    from pybox.engine.client import EngineClient
    from pybox.hostos.interface import Console
    from pybox_image.download import Cache
    from pybox_image.mirror import Mirror
    from pybox_image.progress import ProgressCallback


@cache
def paths() -> Paths:
    return Paths.from_environment()


def machines() -> Machines:
    from pybox.app.machines import Machines

    return Machines(paths())


def engine(machine: str) -> EngineClient:
    """A client of the machine's engine; it says how to start the machine when nobody answers."""
    from pybox.engine.client import EngineClient

    return EngineClient(hostos.api_address(paths(), machine))


def engine_or_start(machine: str, report: Report) -> EngineClient:
    """A client of the machine's engine; starts the machine first when it does not run, unless settings forbid it."""
    client = engine(machine)
    if not client.answers():
        from pybox import settings

        if settings.load(paths(), machine).autostart:
            machines().start(machine, report)
    return client


def fresh(origin: str, report: Report) -> Fresh:
    """A throw-away machine beside the user's own."""
    from pybox.app.fresh import Fresh

    return Fresh(machines(), paths(), origin, report)


def logins() -> Logins:
    """The logins to registries: pybox's own, and what docker's client has."""
    import os

    from pybox.app.logins import Logins

    folder = os.environ.get("DOCKER_CONFIG")
    return Logins(paths().logins_file, (Path(folder) if folder else Path.home() / ".docker") / "config.json")


def console() -> Console:
    return hostos.console()


def package_mirror() -> Mirror:
    """The Debian mirror of the settings, else apt's, else a public one."""
    from pybox import settings
    from pybox_image.mirror import choose

    return choose(settings.load(paths()).mirror)


def package_cache(progress: ProgressCallback) -> Cache:
    from pybox_image.download import Cache

    return Cache(paths().downloads, progress=progress)


def guest_code_folder() -> Path:
    """The folder that holds the package `pyboxd`: the guest's program travels with this one."""
    import importlib.util

    found = importlib.util.find_spec("pyboxd")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("pyboxd is not installed beside pybox")
    return Path(next(iter(found.submodule_search_locations))).parent
