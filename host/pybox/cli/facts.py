"""Commands that show what goes on in containers: top, port, stats."""

from __future__ import annotations

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import EngineError


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("container")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@pass_context
def top(context: Context, container: str, options: tuple[str, ...]) -> None:
    """Display the running processes of a container."""
    found = context.client.get(f"/containers/{container}/top", {"ps_args": " ".join(options) or None})
    output.table(found["Titles"], found["Processes"], narrowest=17)


@click.command()
@click.argument("container")
@click.argument("private", required=False, metavar="[PORT[/PROTOCOL]]")
@pass_context
def port(context: Context, container: str, private: str | None) -> None:
    """List port mappings of a container, or the one of PORT."""
    ports = context.client.get(f"/containers/{container}/json")["NetworkSettings"]["Ports"] or {}
    wanted = None if private is None else (private if "/" in private else f"{private}/tcp")
    found = False
    for key, bindings in sorted(ports.items()):
        for binding in bindings or []:
            address = f"{binding['HostIp']}:{binding['HostPort']}"
            if wanted is None:
                output.say(f"{key} -> {address}")
            elif key == wanted:
                output.say(address)
                found = True
    if wanted is not None and not found:
        raise EngineError(f"No public port '{wanted}' published for {container}", status=404)


@click.command()
@click.option("--all", "-a", "every", is_flag=True, help="Show all containers (default: just running).")
@click.option("--no-stream", is_flag=True, help="Show once and end.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.argument("names", nargs=-1, metavar="[CONTAINER...]")
@pass_context
def stats(
    context: Context, names: tuple[str, ...], every: bool, no_stream: bool, no_trunc: bool, template: str | None
) -> None:
    """Display containers' resource usage, until interrupted."""
    from pybox.cli.stats import show_live, show_once

    show = show_once if no_stream else show_live
    show(context.client, names, every=every, full=no_trunc, template=template)


COMMANDS: dict[str, click.Command] = {"top": top, "port": port, "stats": stats}
