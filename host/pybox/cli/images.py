"""Commands of images that are there: argv -> request -> engine. `transfer.py` brings and sends, `build.py` makes them."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each


@click.command()
@click.option("--all", "-a", "every", is_flag=True, help="Show intermediate images too.")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--digests", is_flag=True, help="Show digests.")
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="Filter.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.argument("reference", required=False)
@pass_context
def images(context: Context, reference: str | None, template: str | None, **flags: Any) -> None:
    """List images."""
    from pybox.cli.rows import IMAGE_COLUMNS, IMAGE_HEADINGS, filter_query, image_rows

    filters = [*flags["filters"], *([f"reference={reference}"] if reference else [])]
    query = {
        "all": flags["every"],
        "filters": filter_query(filters),
        "shared-size": template is not None and ("SharedSize" in template or "UniqueSize" in template),
    }
    found = context.client.get("/images/json", query)
    rows = [row for item in found for row in image_rows(item, full=flags["no_trunc"])]
    columns = IMAGE_COLUMNS
    if flags["digests"]:
        columns = {"REPOSITORY": "Repository", "TAG": "Tag", "DIGEST": "Digest"} | columns
    output.listing(columns, rows, template, quiet_key="ID" if flags["quiet"] else None, headings=IMAGE_HEADINGS)


@click.command()
@click.argument("source")
@click.argument("target")
@pass_context
def tag(context: Context, source: str, target: str) -> None:
    """Create a tag TARGET that refers to SOURCE."""
    from pybox.app.images import split_reference

    name, label = split_reference(target)
    context.client.post(f"/images/{source}/tag", {"repo": name, "tag": label or None})


@click.command()
@click.option("--force", "-f", is_flag=True, help="Force removal.")
@click.option("--no-prune", is_flag=True, help="Keep untagged parents.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@pass_context
def rmi(context: Context, names: tuple[str, ...], force: bool, no_prune: bool) -> int:
    """Remove one or more images."""

    def remove(name: str) -> str:
        removed = context.client.delete(f"/images/{name}", {"force": force, "noprune": no_prune})
        return "\n".join(f"{action}: {text}" for item in removed for action, text in item.items())

    return each(names, remove, show=str)


@click.command()
@click.option("--human/--no-human", "-H", default=True, show_default=True, help="Sizes and dates for people.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.argument("name", metavar="IMAGE")
@pass_context
def history(context: Context, name: str, human: bool, no_trunc: bool, quiet: bool, template: str | None) -> None:
    """Show the history of an image."""
    found = context.client.get(f"/images/{name}/history")
    rows = [_history_row(item, human=human, full=no_trunc) for item in found]
    columns = {
        "IMAGE": "ID",
        "CREATED" if human else "CREATED AT": "CreatedSince" if human else "CreatedAt",
        "CREATED BY": "CreatedBy",
        "SIZE": "Size",
        "COMMENT": "Comment",
    }
    output.listing(columns, rows, template, quiet_key="ID" if quiet else None, headings={"CreatedAt": "CREATED AT"})


def _history_row(item: dict[str, Any], *, human: bool, full: bool) -> dict[str, str]:
    import time

    from pybox.cli.rows import short

    command, identity = item["CreatedBy"].replace("\t", " "), item["Id"]
    return {
        "ID": identity if full or identity == "<missing>" else short(identity),
        "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(item["Created"])),
        "CreatedSince": f"{output.ago(time.time() - item['Created'])} ago",
        "CreatedBy": command if full or len(command) <= 45 else command[:44] + "…",
        "Size": output.size(item["Size"]) if human else str(item["Size"]),
        "Comment": item.get("Comment", ""),
    }


COMMANDS: dict[str, click.Command] = {"images": images, "tag": tag, "rmi": rmi, "history": history}
