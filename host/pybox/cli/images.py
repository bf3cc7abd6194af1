"""Commands of images: argv -> request -> app."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each
from pybox.errors import UsageProblem


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
    from pybox.cli.rows import IMAGE_COLUMNS, filter_query, image_rows

    filters = [*flags["filters"], *([f"reference={reference}"] if reference else [])]
    found = context.client.get("/images/json", {"all": flags["every"], "filters": filter_query(filters)})
    rows = [row for item in found for row in image_rows(item, full=flags["no_trunc"])]
    columns = IMAGE_COLUMNS
    if flags["digests"]:
        columns = {"REPOSITORY": "Repository", "TAG": "Tag", "DIGEST": "Digest"} | columns
    output.listing(columns, rows, template, quiet_key="ID" if flags["quiet"] else None)


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.option("--platform", default="", help="Platform of the image (linux/amd64).")
@click.argument("reference")
@pass_context
def pull(context: Context, reference: str, quiet: bool, platform: str) -> None:
    """Download an image from a registry.

    A registry named localhost is the one on this computer: pybox pull localhost:5000/library/node:20
    """
    from pybox.app.images import pull as fetch
    from pybox.cli.progress import PullProgress

    with PullProgress(sys.stdout, quiet=quiet) as show:
        fetch(context.started_client(), reference, show, platform=platform)
    if quiet:
        output.say(reference)


@click.command()
@click.option(
    "--file",
    "-f",
    "dockerfile",
    default="Dockerfile",
    help="Dockerfile (default: PATH/Dockerfile), - for input.",
)
@click.option("--tag", "-t", "tags", multiple=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="Value of an ARG.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Label of the image.")
@click.option("--target", default="", help="Stage to build.")
@click.option("--no-cache", is_flag=True, help="Do not use the cache.")
@click.option("--pull", "pull_base", is_flag=True, help="Always pull the base image.")
@click.option("--quiet", "-q", is_flag=True, help="Only print the image's id.")
@click.option("--network", default="", help="Network of RUN: bridge, none, host.")
@click.option("--memory", "-m", metavar="BYTES", help="Memory limit of RUN.")
@click.option("--shm-size", metavar="BYTES", help="Size of /dev/shm in RUN.")
@click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="Line of /etc/hosts in RUN.")
@click.option("--platform", default="", help="Platform (linux/amd64).")
@click.argument("path")
@pass_context
def build(context: Context, path: str, dockerfile: str, **flags: Any) -> None:
    """Build an image from the Dockerfile in the folder PATH."""
    import os

    from pybox.app import options
    from pybox.app.build import BuildRequest
    from pybox.app.build import build as run_build

    text = None
    if dockerfile == "-":
        text = sys.stdin.buffer.read()
    arguments = tuple(
        (name, value if separator else os.environ.get(name))
        for name, separator, value in (item.partition("=") for item in flags["build_arg"])
    )
    request = BuildRequest(
        context=Path(path),
        dockerfile=dockerfile,
        dockerfile_text=text,
        tags=flags["tags"],
        build_args=arguments,
        labels=tuple(options.pairs(flags["label"]).items()),
        target=flags["target"],
        no_cache=flags["no_cache"],
        pull=flags["pull_base"],
        quiet=flags["quiet"],
        network=flags["network"],
        memory=options.size(flags["memory"]) if flags["memory"] else 0,
        shm_size=options.size(flags["shm_size"]) if flags["shm_size"] else 0,
        add_hosts=flags["add_host"],
        platform=flags["platform"],
    )
    silent = flags["quiet"]

    def show(piece: str) -> None:
        if not silent:
            output.write(piece.encode())

    identity = run_build(context.started_client(), request, show)
    if silent:
        output.say(identity)


@click.command()
@click.option("--input", "-i", "source", type=click.File("rb"), default="-", help="Read from this archive.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@pass_context
def load(context: Context, source: Any, quiet: bool) -> None:
    """Load images from a tar archive."""
    from pybox.app.images import load as send
    from pybox.cli.progress import PullProgress

    if source.isatty():
        raise UsageProblem(
            "requested load from stdin, but stdin is empty",
            resolution="pybox load -i FILE, or pybox load < FILE",
        )
    with PullProgress(sys.stdout, quiet=quiet) as show:
        send(context.started_client(), source, show)


@click.command()
@click.option("--output", "-o", "target", type=click.Path(path_type=Path), help="Write to this file.")
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...")
@pass_context
def save(context: Context, references: tuple[str, ...], target: Path | None) -> None:
    """Save images to a tar archive."""
    from pybox.app.images import save as receive

    if target is None:
        if sys.stdout.isatty():
            raise UsageProblem("cowardly refusing to save to a terminal", resolution="Use -o FILE, or redirect.")
        receive(context.client, list(references), sys.stdout.buffer)
        return
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            receive(context.client, list(references), file)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@click.command()
@click.argument("source")
@click.argument("target")
@pass_context
def tag(context: Context, source: str, target: str) -> None:
    """Create a tag TARGET that refers to SOURCE."""
    from pybox.app.images import split_reference

    name, label = split_reference(target)
    context.client.post(f"/images/{source}/tag", {"repo": name, "tag": label})


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
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.argument("name")
@pass_context
def history(context: Context, name: str, no_trunc: bool, quiet: bool, template: str | None) -> None:
    """Show the history of an image."""
    import time

    from pybox.cli.output import ago, size
    from pybox.cli.rows import short

    rows = []
    for item in context.client.get(f"/images/{name}/history"):
        command = " ".join(item["CreatedBy"].split())
        identity = item["Id"]
        rows.append(
            {
                "ID": identity if no_trunc or identity == "<missing>" else short(identity),
                "CreatedSince": f"{ago(time.time() - item['Created'])} ago",
                "CreatedBy": command if no_trunc or len(command) <= 45 else command[:44] + "…",
                "Size": size(item["Size"]),
                "Comment": item.get("Comment", ""),
            }
        )
    columns = {
        "IMAGE": "ID",
        "CREATED": "CreatedSince",
        "CREATED BY": "CreatedBy",
        "SIZE": "Size",
        "COMMENT": "Comment",
    }
    output.listing(columns, rows, template, quiet_key="ID" if quiet else None)


@click.command()
@click.option("--tag", "-t", "name", required=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option("--packages", default="", metavar="A,B", help="Debian packages to install on top.")
@click.option("--suite", default="trixie", show_default=True, help="Debian suite.")
@click.option("--output", "-o", "target", type=click.Path(path_type=Path), help="Also write an archive (docker load).")
@pass_context
def bootstrap(context: Context, name: str, packages: str, suite: str, target: Path | None) -> None:
    """Make a base image straight from signed Debian packages, without a registry.

    \b
    pybox image bootstrap -t debian:trixie-slim
    pybox image bootstrap -t python:3 --packages python3,ca-certificates
    """
    from pybox.app.bootstrap import BootstrapRequest
    from pybox.app.bootstrap import bootstrap as make
    from pybox.app.images import save as receive
    from pybox.cli.steps import Steps

    wanted = tuple(filter(None, (text.strip() for text in packages.split(","))))
    client = context.started_client()
    with Steps(sys.stderr) as steps:
        identity = make(client, BootstrapRequest(name, wanted, suite), steps)
    if target is not None:
        with target.open("wb") as file:
            receive(client, [name], file)
    output.say(identity)


@click.group()
def image() -> None:
    """Manage images; make base images."""


@click.command("inspect")
@click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@pass_context
def image_inspect(context: Context, names: tuple[str, ...], template: str | None) -> None:
    """Show an image's configuration."""
    output.document([context.client.get(f"/images/{name}/json") for name in names], template)


@click.command("prune")
@click.option("--all", "-a", "every", is_flag=True, help="Remove all unused images, not just dangling ones.")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@pass_context
def image_prune(context: Context, every: bool, force: bool) -> None:
    """Remove unused images."""
    if not force:
        output.confirm("This will remove unused images. Continue?", "image prune")
    filters = json.dumps({"dangling": {"false": True}}) if every else None
    found = context.client.post("/images/prune", {"filters": filters})
    for item in found.get("ImagesDeleted") or []:
        for action, text in item.items():
            output.say(f"{action}: {text}")
    output.say(f"Total reclaimed space: {output.size(found['SpaceReclaimed'])}")


COMMANDS: dict[str, click.Command] = {
    "images": images,
    "pull": pull,
    "build": build,
    "load": load,
    "save": save,
    "tag": tag,
    "rmi": rmi,
    "history": history,
    "image": image,
}
for _name, _command in {
    **COMMANDS,
    "bootstrap": bootstrap,
    "inspect": image_inspect,
    "prune": image_prune,
}.items():
    if _name != "image":
        image.add_command(_command, {"images": "ls", "rmi": "rm"}.get(_name, _name))
