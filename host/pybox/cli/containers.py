"""Commands of containers that exist: argv -> request -> engine. Those that run programs are in `run.py`."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each


@click.command()
@click.option("--all", "-a", "every", is_flag=True, help="Show all containers (default: just running).")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--size", "-s", is_flag=True, help="Show file sizes.")
@click.option("--last", "-n", type=int, default=-1, help="The last N created containers.")
@click.option("--latest", "-l", is_flag=True, help="The last created container.")
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="Filter, for example name=web.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def ps(context: Context, template: str | None, **flags: Any) -> None:
    """List containers."""
    from pybox.cli.rows import CONTAINER_COLUMNS, CONTAINER_HEADINGS, container_row, filter_query

    limit = 1 if flags["latest"] else max(flags["last"], 0) or None
    query = {
        "all": flags["every"] or limit is not None,
        "limit": limit,
        "size": flags["size"] or (template is not None and ".Size" in template),
        "filters": filter_query(flags["filters"]),
    }
    found = context.client.get("/containers/json", query)
    rows = [container_row(item, full=flags["no_trunc"]) for item in found]
    columns = CONTAINER_COLUMNS | ({"SIZE": "Size"} if flags["size"] else {})
    output.listing(columns, rows, template, quiet_key="ID" if flags["quiet"] else None, headings=CONTAINER_HEADINGS)


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Follow the output.")
@click.option("--tail", "-n", default="all", help="Lines from the end of the log.")
@click.option("--since", metavar="TIME", help="From a time (2026-01-02T13:23:37Z) or a span (42m).")
@click.option("--until", metavar="TIME", help="Up to a time or a span.")
@click.option("--timestamps", "-t", is_flag=True, help="Show timestamps.")
@click.option("--details", is_flag=True, help="Show extra details.")
@click.argument("container")
@pass_context
def logs(context: Context, container: str, since: str | None, until: str | None, **query: Any) -> None:
    """Fetch the logs of a container."""
    from pybox.app import containers
    from pybox.cli.rows import moment_query

    query |= {"since": moment_query(since), "until": moment_query(until)}
    for error, data in containers.logs(context.client, container, query):
        output.write(data, error=error)


@click.command()
@click.option("--force", "-f", is_flag=True, help="Kill a running container first.")
@click.option("--link", "-l", is_flag=True, help="Remove the link of that name (CONTAINER/ALIAS).")
@click.option("--volumes", "-v", is_flag=True, help="Remove its anonymous volumes too.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@pass_context
def rm(context: Context, names: tuple[str, ...], force: bool, link: bool, volumes: bool) -> int:
    """Remove one or more containers."""
    query = {"force": force, "link": link, "v": volumes}
    return each(names, lambda name: context.client.delete(f"/containers/{name.strip('/')}", query))


@click.command()
@click.option("--signal", "-s", default="KILL", show_default=True, help="Signal to send.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@pass_context
def kill(context: Context, names: tuple[str, ...], signal: str) -> int:
    """Kill one or more running containers."""
    return each(names, lambda name: context.client.post(f"/containers/{name}/kill", {"signal": signal}))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@pass_context
def wait(context: Context, names: tuple[str, ...]) -> int:
    """Block until one or more containers stop, then print their exit codes."""
    return each(names, lambda name: context.client.post(f"/containers/{name}/wait")["StatusCode"], show=str)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@pass_context
def pause(context: Context, names: tuple[str, ...]) -> int:
    """Pause all processes within one or more containers."""
    return each(names, lambda name: context.client.post(f"/containers/{name}/pause"))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@pass_context
def unpause(context: Context, names: tuple[str, ...]) -> int:
    """Unpause all processes within one or more containers."""
    return each(names, lambda name: context.client.post(f"/containers/{name}/unpause"))


@click.command()
@click.argument("container")
@click.argument("name")
@pass_context
def rename(context: Context, container: str, name: str) -> None:
    """Rename a container."""
    context.client.post(f"/containers/{container}/rename", {"name": name})


COMMANDS: dict[str, click.Command] = {
    "ps": ps,
    "logs": logs,
    "rm": rm,
    "kill": kill,
    "wait": wait,
    "pause": pause,
    "unpause": unpause,
    "rename": rename,
}
