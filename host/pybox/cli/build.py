"""Commands that make images: argv -> request -> app."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context


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

    identity = run_build(context.started_client(), request, context.logins, show)
    if silent:
        output.say(identity)


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
    from pybox.cli.targets import archive_target

    wanted = tuple(filter(None, (text.strip() for text in packages.split(","))))
    client = context.started_client()
    with Steps(sys.stderr) as steps:
        identity = make(client, BootstrapRequest(name, wanted, suite), steps)
    if target is not None:
        with archive_target(target) as file:
            receive(client, [name], file)
    output.say(identity)


COMMANDS: dict[str, click.Command] = {"build": build, "bootstrap": bootstrap}
