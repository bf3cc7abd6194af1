"""Commands of the system, volumes and networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each
from pybox.errors import EngineError, UsageProblem


@click.command()
@click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("--type", "kind", type=click.Choice(["container", "image", "volume", "network"]))
@click.option("--size", "-s", is_flag=True, help="Show file sizes of containers.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def inspect(context: Context, names: tuple[str, ...], kind: str | None, size: bool, template: str | None) -> int:
    """Return low-level information on containers, images, volumes and networks."""
    found: list[Any] = []
    missing: list[str] = []
    for name in names:
        value = _find(context, name, kind, size)
        if value is None:
            missing.append(name)
        else:
            found.append(value)
    if found or template is None:
        output.document(found, template)
    for name in missing:
        output.note(f"Error: No such {kind or 'object'}: {name}")
    return 1 if missing else 0


def _find(context: Context, name: str, kind: str | None, size: bool) -> Any:
    paths = {
        "container": (f"/containers/{name}/json", {"size": size}),
        "image": (f"/images/{name}/json", {}),
        "volume": (f"/volumes/{name}", {}),
        "network": (f"/networks/{name}", {}),
    }
    for candidate, (path, query) in paths.items():
        if kind not in (None, candidate):
            continue
        try:
            return context.client.get(path, query)
        except EngineError as error:
            if error.status != 404:
                raise
    return None


@click.command()
@click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def info(context: Context, template: str | None) -> None:
    """Display system-wide information."""
    found = context.client.get("/info")
    if template is not None:
        output.document(found, template)
        return
    rows = [
        ("Containers", found["Containers"]),
        (" Running", found["ContainersRunning"]),
        (" Paused", found["ContainersPaused"]),
        (" Stopped", found["ContainersStopped"]),
        ("Images", found["Images"]),
        ("Server Version", found["ServerVersion"]),
        ("Storage Driver", found["Driver"]),
        ("Cgroup Driver", found["CgroupDriver"]),
        ("Cgroup Version", found["CgroupVersion"]),
        ("Kernel Version", found["KernelVersion"]),
        ("Operating System", found["OperatingSystem"]),
        ("Architecture", found["Architecture"]),
        ("CPUs", found["NCPU"]),
        ("Total Memory", output.size(found["MemTotal"], base=1024)),
        ("Name", found["Name"]),
    ]
    for key, value in rows:
        output.say(f"{key}: {value}")


@click.command()
@click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def version(context: Context, template: str | None) -> None:
    """Show the versions of pybox and its engine."""
    from pybox.cli.main import version as own_version

    client = {"Version": own_version(), "ApiVersion": "1.51"}
    try:
        server = context.client.get("/version")
    except Exception:
        output.say(f"Client: pybox {client['Version']} (API {client['ApiVersion']})")
        raise
    if template is not None:
        output.document({"Client": client, "Server": server}, template)
        return
    output.say(f"Client: pybox {client['Version']} (API {client['ApiVersion']})")
    output.say(f"Engine: pyboxd {server['Version']} (API {server['ApiVersion']}, minimum {server['MinAPIVersion']})")
    output.say(f"        Linux {server['KernelVersion']}, {server['Os']}/{server['Arch']}")


@click.command()
@click.option("--since", metavar="TIME", help="From a time or a span.")
@click.option("--until", metavar="TIME", help="Up to a time or a span.")
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="Filter.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def events(context: Context, since: str | None, until: str | None, filters: tuple[str, ...], template: str | None) -> None:
    """Get real time events from the engine."""
    from pybox.cli.rows import filter_query, moment_query

    query = {"since": moment_query(since), "until": moment_query(until), "filters": filter_query(filters)}
    for event in context.client.json_lines("GET", "/events", query):
        if template is not None:
            output.document(event, template)
            continue
        attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
        output.say(f"{event['timeNano'] / 1e9:.6f} {event['Type']} {event['Action']} {event['Actor']['ID']} ({attributes})")


def _list_command(path: str, key: str | None, columns: dict[str, str], quiet: str) -> click.Command:
    @click.command("ls")
    @click.option("--quiet", "-q", "quiet_only", is_flag=True, help="Only names or ids.")
    @click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="Filter.")
    @click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
    @pass_context
    def command(context: Context, quiet_only: bool, filters: tuple[str, ...], template: str | None) -> None:
        from pybox.cli.rows import filter_query, short

        found = context.client.get(path, {"filters": filter_query(filters)})
        items = (found[key] if key else found) or []
        rows = [{**item, "ID": short(item.get("Id", ""))} for item in items]
        output.listing(columns, rows, template, quiet_key=quiet if quiet_only else None)

    command.help = "List them."
    return command


def _remove_command(path: str, metavar: str) -> click.Command:
    @click.command("rm")
    @click.option("--force", "-f", is_flag=True, help="No error when it does not exist.")
    @click.argument("names", nargs=-1, required=True, metavar=metavar)
    @pass_context
    def command(context: Context, names: tuple[str, ...], force: bool) -> int:
        return each(names, lambda name: context.client.delete(f"{path}/{name}", {"force": force}))

    command.help = "Remove them."
    return command


def _inspect_command(path: str, metavar: str) -> click.Command:
    @click.command("inspect")
    @click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
    @click.argument("names", nargs=-1, required=True, metavar=metavar)
    @pass_context
    def command(context: Context, names: tuple[str, ...], template: str | None) -> None:
        output.document([context.client.get(f"{path}/{name}") for name in names], template)

    command.help = "Show their details."
    return command


@click.group()
def volume() -> None:
    """Manage volumes."""


@volume.command("create")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Label of the volume.")
@click.option("--driver", "-d", default="local", help="Volume driver.")
@click.option("--opt", "-o", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.argument("name", required=False)
@pass_context
def volume_create(context: Context, name: str | None, driver: str, **flags: tuple[str, ...]) -> None:
    """Create a volume."""
    from pybox.app import options

    body = {
        "Name": name or "",
        "Driver": driver,
        "Labels": options.pairs(flags["label"]),
        "DriverOpts": options.pairs(flags["opt"]),
    }
    output.say(context.client.post("/volumes/create", body=body)["Name"])


@volume.command("prune")
@click.option("--all", "-a", "every", is_flag=True, help="Named volumes too.")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@pass_context
def volume_prune(context: Context, every: bool, force: bool) -> None:
    """Remove volumes that no container uses."""
    if not force:
        output.confirm("This will remove all unused volumes. Continue?", "volume prune")
    filters = json.dumps({"all": {"true": True}}) if every else None
    found = context.client.post("/volumes/prune", {"filters": filters})
    for name in found.get("VolumesDeleted") or []:
        output.say(name)
    output.say(f"Total reclaimed space: {output.size(found['SpaceReclaimed'])}")


@click.group()
def network() -> None:
    """Manage networks."""


_GROUPS: tuple[tuple[click.Group, Callable[[], click.Command]], ...] = (
    (
        volume,
        lambda: _list_command("/volumes", "Volumes", {"DRIVER": "Driver", "VOLUME NAME": "Name"}, "Name"),
    ),
    (volume, lambda: _remove_command("/volumes", "VOLUME...")),
    (volume, lambda: _inspect_command("/volumes", "VOLUME...")),
    (
        network,
        lambda: _list_command(
            "/networks",
            None,
            {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SCOPE": "Scope"},
            "ID",
        ),
    ),
    (network, lambda: _inspect_command("/networks", "NETWORK...")),
)
for _group, _make in _GROUPS:
    _group.add_command(_make())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    \b
    eval "$(pybox completion bash)"
    """
    from click.shell_completion import get_completion_class

    from pybox.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageProblem(f"No completion for {shell}.")
    output.say(kind(cli, {}, "pybox", "_PYBOX_COMPLETE").source())


COMMANDS: dict[str, click.Command] = {
    "inspect": inspect,
    "volume": volume,
    "network": network,
    "info": info,
    "version": version,
    "events": events,
    "completion": completion,
}
