"""`pybox system df`: what takes the space on the machine's disk."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import UsageProblem

COLUMNS = {"TYPE": "Type", "TOTAL": "TotalCount", "ACTIVE": "Active", "SIZE": "Size", "RECLAIMABLE": "Reclaimable"}


@click.command()
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("--verbose", "-v", is_flag=True, help="Show every image, container, volume and part of the build cache.")
@pass_context
def df(context: Context, template: str | None, verbose: bool) -> None:
    """Show how much disk space images, containers, volumes and the build cache take."""
    if verbose and template not in (None, "json"):
        raise UsageProblem("the verbose and the format options conflict", "", "Use -v alone, or with --format json.")
    found = context.client.get("/system/df")
    if not verbose:
        output.listing(COLUMNS, summary(found), template)
    elif template is not None:
        output.say(output.compact(details(found, full=True)))
    else:
        _tables(details(found), cached=_total(found["BuildCache"] or [], "Size"))


def summary(found: dict[str, Any]) -> list[dict[str, str]]:
    """A row for each kind of thing: how many, how many in use, their bytes, and those that a prune would give back."""
    images, containers = found["Images"] or [], found["Containers"] or []
    volumes, cache = found["Volumes"] or [], found["BuildCache"] or []
    layers = found["LayersSize"]
    used = sum(image["Size"] - max(image.get("SharedSize", 0), 0) for image in images if image["Containers"] > 0)
    active = [item for item in containers if item["State"] in ("running", "paused", "restarting")]
    kept = [volume for volume in volumes if volume["UsageData"]["RefCount"] > 0]
    written = _total(containers, "SizeRw")
    stored = sum(volume["UsageData"]["Size"] for volume in volumes)
    cached, free = _total(cache, "Size"), sum(item["Size"] for item in cache if not item["InUse"] and not item["Shared"])
    return [
        _row("Images", images, sum(image["Containers"] > 0 for image in images), layers, max(layers - used, 0), share=True),
        _row("Containers", containers, len(active), written, written - _total(active, "SizeRw"), share=True),
        _row("Local Volumes", volumes, len(kept), stored, stored - sum(v["UsageData"]["Size"] for v in kept), share=True),
        _row("Build Cache", cache, sum(bool(item["InUse"]) for item in cache), cached, free, share=False),
    ]


def _row(kind: str, items: list[Any], active: int, size: int, free: int, *, share: bool) -> dict[str, str]:
    percent = f" ({100 * free // size}%)" if share and size > 0 else ""
    return {
        "Type": kind,
        "TotalCount": str(len(items)),
        "Active": str(active),
        "Size": output.size(size, digits=4),
        "Reclaimable": output.size(free, digits=4) + percent,
    }


def _total(items: list[Any], key: str) -> int:
    return sum(item.get(key, 0) for item in items)


def details(found: dict[str, Any], *, full: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Every single thing, as docker's lists show it."""
    from pybox.cli.rows import container_row, image_rows, short
    from pybox.cli.volumes import row as volume_row

    return {
        "Images": [image_rows(item, full=full)[0] for item in found["Images"] or []],
        "Containers": [
            {**container_row(item, full=full), "Size": output.size(item["SizeRw"])} for item in found["Containers"] or []
        ],
        "Volumes": [volume_row(item) for item in found["Volumes"] or []],
        "BuildCache": [
            {
                "ID": short(item["ID"]),
                "CacheType": item["Type"],
                "Size": output.size(item["Size"]),
                "CreatedSince": output.since(item["CreatedAt"]),
                "LastUsedSince": output.since(item["LastUsedAt"]) if item.get("LastUsedAt") else "",
                "UsageCount": str(item["UsageCount"]),
                "Shared": str(item["Shared"]).lower(),
            }
            for item in found["BuildCache"] or []
        ],
    }


_DETAILS = {
    "Images": ("Images space usage", {
        "REPOSITORY": "Repository", "TAG": "Tag", "IMAGE ID": "ID", "CREATED": "CreatedSince", "SIZE": "Size",
        "SHARED SIZE": "SharedSize", "UNIQUE SIZE": "UniqueSize", "CONTAINERS": "Containers",
    }),
    "Containers": ("Containers space usage", {
        "CONTAINER ID": "ID", "IMAGE": "Image", "COMMAND": "Command", "LOCAL VOLUMES": "LocalVolumes", "SIZE": "Size",
        "CREATED": "RunningFor", "STATUS": "Status", "NAMES": "Names",
    }),
    "Volumes": ("Local Volumes space usage", {"VOLUME NAME": "Name", "LINKS": "Links", "SIZE": "Size"}),
    "BuildCache": ("Build cache usage", {
        "CACHE ID": "ID", "CACHE TYPE": "CacheType", "SIZE": "Size", "CREATED": "CreatedSince",
        "LAST USED": "LastUsedSince", "USAGE": "UsageCount", "SHARED": "Shared",
    }),
}  # fmt: skip


def _tables(found: dict[str, list[dict[str, Any]]], *, cached: int) -> None:
    for number, (key, (title, columns)) in enumerate(_DETAILS.items()):
        if number:
            output.say()
        output.say(f"{title}: {output.size(cached)}\n" if key == "BuildCache" else f"{title}:\n")
        output.listing(columns, found[key], None)


COMMANDS: dict[str, click.Command] = {"df": df}
