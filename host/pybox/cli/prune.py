"""`prune` of containers, images, networks, volumes and of all of them: docker's warnings, and what was removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.engine.client import EngineClient
from pybox.errors import UsageProblem

Filters = dict[str, dict[str, bool]]
SURE = "Are you sure you want to continue?"
_filters = click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those: until=24h, label=KEY[=VALUE], label!=…."
)
_force = click.option("--force", "-f", is_flag=True, help="Do not ask.")


def _parsed(texts: Iterable[str]) -> Filters:
    from pybox.cli.rows import filter_query

    found: Filters = json.loads(filter_query(texts) or "{}")
    return found


def _ask(warning: str, what: str, *, force: bool) -> None:
    if not force:
        output.note(f"WARNING! {warning}")
        output.confirm(SURE, what)


def _post(client: EngineClient, kind: str, filters: Filters) -> Any:
    return client.post(f"/{kind}/prune", {"filters": json.dumps(filters) if filters else None})


def _list(title: str, lines: Iterable[str]) -> None:
    if found := list(lines):
        output.say("\n".join([f"{title}:", *found, ""]))


def prune_containers(client: EngineClient, filters: Filters) -> int:
    """Remove stopped containers and name them; the bytes that this freed."""
    found = _post(client, "containers", filters)
    _list("Deleted Containers", found["ContainersDeleted"] or [])
    return int(found["SpaceReclaimed"])


def prune_networks(client: EngineClient, filters: Filters) -> int:
    """Remove unused networks and name them; they take no space."""
    _list("Deleted Networks", _post(client, "networks", filters)["NetworksDeleted"] or [])
    return 0


def prune_volumes(client: EngineClient, filters: Filters) -> int:
    """Remove unused volumes and name them; the bytes that this freed."""
    found = _post(client, "volumes", filters)
    _list("Deleted Volumes", found["VolumesDeleted"] or [])
    return int(found["SpaceReclaimed"])


def prune_images(client: EngineClient, filters: Filters) -> int:
    """Remove unused images and name them; the bytes that this freed."""
    found = _post(client, "images", filters)
    removed = found["ImagesDeleted"] or []
    _list("Deleted Images", (f"{action.lower()}: {name}" for item in removed for action, name in item.items()))
    return int(found["SpaceReclaimed"])


def prune_build_cache(client: EngineClient, filters: Filters, *, every: bool) -> int:
    """Remove what builds have kept; the bytes that this freed."""
    query = {"all": every, "filters": json.dumps(filters) if filters else None}
    found = client.post("/build/prune", query)
    _list("Deleted build cache objects", found["CachesDeleted"] or [])
    return int(found["SpaceReclaimed"])


@click.command("prune")
@_filters
@_force
@pass_context
def container(context: Context, filters: tuple[str, ...], force: bool) -> None:
    """Remove all stopped containers."""
    wanted = _parsed(filters)
    _ask("This will remove all stopped containers.", "container prune", force=force)
    output.reclaimed(prune_containers(context.client, wanted))


@click.command("prune")
@click.option("--all", "-a", "every", is_flag=True, help="Remove all unused images, not just dangling ones.")
@_filters
@_force
@pass_context
def image(context: Context, every: bool, filters: tuple[str, ...], force: bool) -> None:
    """Remove unused images."""
    wanted = _parsed(filters) | _dangling(every)
    _ask(f"This will remove {_images_text(every)}.", "image prune", force=force)
    output.reclaimed(prune_images(context.client, wanted))


def _dangling(every: bool) -> Filters:
    return {"dangling": {str(not every).lower(): True}}


def _images_text(every: bool) -> str:
    return "all images without at least one container associated to them" if every else "all dangling images"


@click.command("prune")
@_filters
@_force
@pass_context
def network(context: Context, filters: tuple[str, ...], force: bool) -> None:
    """Remove all networks that no container uses."""
    wanted = _parsed(filters)
    _ask("This will remove all custom networks not used by at least one container.", "network prune", force=force)
    prune_networks(context.client, wanted)


@click.command("prune")
@click.option("--all", "-a", "every", is_flag=True, help="Remove volumes with a name, too.")
@_filters
@_force
@pass_context
def volume(context: Context, every: bool, filters: tuple[str, ...], force: bool) -> None:
    """Remove volumes that no container uses."""
    wanted = _parsed(filters)
    if every:
        wanted["all"] = {"true": True}
    kind = "all" if every else "anonymous"
    _ask(f"This will remove {kind} local volumes not used by at least one container.", "volume prune", force=force)
    output.reclaimed(prune_volumes(context.client, wanted))


@click.command("prune")
@click.option("--all", "-a", "every", is_flag=True, help="Remove all unused images, not just dangling ones.")
@click.option("--volumes", is_flag=True, help="Remove anonymous volumes, too.")
@_filters
@_force
@pass_context
def system(context: Context, every: bool, volumes: bool, filters: tuple[str, ...], force: bool) -> None:
    """Remove stopped containers, and networks, images and build cache that nothing uses."""
    wanted = _parsed(filters)
    if volumes and "until" in wanted:
        raise UsageProblem('The "until" filter is not supported with "--volumes"')
    _ask(_system_warning(filters, every=every, volumes=volumes), "system prune", force=force)
    client = context.client
    steps: list[Callable[[], int]] = [
        lambda: prune_containers(client, wanted),
        lambda: prune_networks(client, wanted),
        *([lambda: prune_volumes(client, wanted)] if volumes else []),
        lambda: prune_images(client, wanted | _dangling(every)),
        lambda: prune_build_cache(client, wanted, every=every),
    ]
    output.reclaimed(sum(step() for step in steps))


def _system_warning(filters: Iterable[str], *, every: bool, volumes: bool) -> str:
    lines = [
        "This will remove:",
        "  - all stopped containers",
        "  - all networks not used by at least one container",
        *(["  - all anonymous volumes not used by at least one container"] if volumes else []),
        f"  - {_images_text(every)}",
        f"  - {'all' if every else 'unused'} build cache",
        "",
    ]
    if shown := [f"  - {text}" for text in filters]:
        lines += ["  Items to be pruned will be filtered with:", *shown, ""]
    return "\n".join(lines)


COMMANDS: dict[str, click.Command] = {
    "container": container,
    "image": image,
    "network": network,
    "volume": volume,
    "system": system,
}
