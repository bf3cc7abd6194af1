"""Commands of volumes: argv -> request -> engine. `inspect` and `prune` have modules of their own."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each
from pybox.errors import UsageProblem


@click.command()
@click.option("--driver", "-d", default="local", show_default=True, help="Volume driver.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Set metadata on the volume.")
@click.option("--name", "named", hidden=True)  # docker's old way of naming it
@click.option("--opt", "-o", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.argument("name", required=False, metavar="[VOLUME]")
@pass_context
def create(context: Context, name: str | None, named: str | None, driver: str, **flags: tuple[str, ...]) -> None:
    """Create a volume; its name is printed."""
    from pybox.app import options

    if name and named:
        raise UsageProblem("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
    body = {
        "Name": name or named or "",
        "Driver": driver,
        "Labels": options.pairs(flags["label"]),
        "DriverOpts": options.pairs(flags["opt"]),
    }
    output.say(context.client.post("/volumes/create", body=body)["Name"])


@click.command()
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="dangling=true, name=…, label=….")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("--quiet", "-q", is_flag=True, help="Only names.")
@pass_context
def ls(context: Context, quiet: bool, filters: tuple[str, ...], template: str | None) -> None:
    """List volumes."""
    from pybox.cli.rows import filter_query

    found = context.client.get("/volumes", {"filters": filter_query(filters)})["Volumes"] or []
    rows = sorted((row(item) for item in found), key=lambda item: str(item["Name"]))
    columns = {"DRIVER": "Driver", "VOLUME NAME": "Name"}
    output.listing(columns, rows, template, quiet_key="Name" if quiet else None)


def row(item: dict[str, Any]) -> dict[str, str]:
    """One volume as `docker volume ls --format json` shows it. What only clusters have is N/A."""
    from pybox.cli.rows import labels

    usage = item.get("UsageData")
    return {
        "Availability": "N/A",
        "Driver": item["Driver"],
        "Group": "N/A",
        "Labels": labels(item),
        "Links": "N/A" if usage is None else str(usage["RefCount"]),
        "Mountpoint": item["Mountpoint"],
        "Name": item["Name"],
        "Scope": item["Scope"],
        "Size": "N/A" if usage is None else output.size(usage["Size"], digits=4),
        "Status": "N/A",
    }


@click.command()
@click.option("--force", "-f", is_flag=True, help="No error when it does not exist.")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME...")
@pass_context
def rm(context: Context, names: tuple[str, ...], force: bool) -> int:
    """Remove one or more volumes. One that a container uses cannot be removed."""
    return each(names, lambda name: context.client.delete(f"/volumes/{name}", {"force": force}))


COMMANDS: dict[str, click.Command] = {"create": create, "ls": ls, "rm": rm}
