"""Commands about the engine and the program: info, version, completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import PyboxError, UsageProblem


@click.command()
@click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def info(context: Context, template: str | None) -> None:
    """Display system-wide information."""
    from pybox.cli.main import version as own_version

    found = context.client.get("/info")
    if template is not None:
        client = {"Version": own_version(), "Context": context.machine, "Debug": context.debug}
        output.document({**found, "ClientInfo": client}, template)
        return
    for line in ("Client:", f" Version:    {own_version()}", f" Machine:    {context.machine}", "", "Server:"):
        output.say(line)
    for line in info_lines(found):
        output.say(f" {line}")
    for warning in found["Warnings"] or []:
        output.note(warning)


_FACTS = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
)
_PLACES = (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
_PROXIES = (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))


def info_lines(found: dict[str, Any]) -> Iterator[str]:
    """What docker shows of GET /info, in its order."""
    yield f"Containers: {found['Containers']}"
    yield from (f" {key}: {found[f'Containers{key}']}" for key in ("Running", "Paused", "Stopped"))
    yield f"Images: {found['Images']}"
    yield f"Server Version: {found['ServerVersion']}"
    yield f"Storage Driver: {found['Driver']}"
    yield from (f" {key}: {value}" for key, value in found["DriverStatus"] or [])
    yield f"Logging Driver: {found['LoggingDriver']}"
    yield f"Cgroup Driver: {found['CgroupDriver']}"
    yield f"Cgroup Version: {found['CgroupVersion']}"
    yield "Plugins:"
    yield from (f" {kind}: {' '.join(found['Plugins'][kind] or [])}" for kind in ("Volume", "Network", "Log"))
    yield "Security Options:"
    for text in found["SecurityOptions"] or []:
        (_, name), *rest = (part.partition("=")[::2] for part in text.split(","))
        yield f" {name}"
        yield from (f"  {key.title()}: {value}" for key, value in rest)
    yield from (f"{title}: {found[key]}" for title, key in _FACTS)
    yield f"Total Memory: {output.size(found['MemTotal'], base=1024)}"
    yield from (f"{title}: {found[key]}" for title, key in _PLACES)
    yield from (f"{title}: {found[key]}" for title, key in _PROXIES if found[key])
    registries = found["RegistryConfig"]
    yield "Insecure Registries:"
    yield from (f" {name}" for name, entry in registries["IndexConfigs"].items() if not entry["Secure"])
    yield from (f" {name}" for name in registries["InsecureRegistryCIDRs"])
    if registries["Mirrors"]:
        yield "Registry Mirrors:"
        yield from (f" {name}" for name in registries["Mirrors"])
    yield f"Live Restore Enabled: {str(found['LiveRestoreEnabled']).lower()}"


@click.command()
@click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def version(context: Context, template: str | None) -> None:
    """Show the versions of pybox and its engine."""
    from pybox.cli.main import version as own_version

    client = {"Version": own_version(), "ApiVersion": "1.51"}
    try:
        server = context.client.get("/version")
    except PyboxError:
        output.say(f"Client: pybox {client['Version']} (API {client['ApiVersion']})")
        raise
    if template is not None:
        output.document({"Client": client, "Server": server}, template)
        return
    output.say(f"Client: pybox {client['Version']} (API {client['ApiVersion']})")
    output.say(f"Engine: pyboxd {server['Version']} (API {server['ApiVersion']}, minimum {server['MinAPIVersion']})")
    output.say(f"        Linux {server['KernelVersion']}, {server['Os']}/{server['Arch']}")


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


COMMANDS: dict[str, click.Command] = {"info": info, "version": version, "completion": completion}
