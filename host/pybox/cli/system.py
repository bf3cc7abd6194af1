"""Commands about the engine and the program: info, version, completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import UsageProblem


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
    for key, value in info_lines(found):
        output.say(f" {key}: {value}" if value is not None else f" {key}:")
    for warning in found["Warnings"] or []:
        output.note(warning)


def info_lines(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What docker shows of GET /info, in its order; None has nothing behind the colon."""
    yield "Containers", found["Containers"]
    yield from ((f" {key}", found[f"Containers{key}"]) for key in ("Running", "Paused", "Stopped"))
    yield "Images", found["Images"]
    yield "Server Version", found["ServerVersion"]
    yield "Storage Driver", found["Driver"]
    yield from ((f" {key}", value) for key, value in found["DriverStatus"] or [])
    yield "Logging Driver", found["LoggingDriver"]
    yield "Cgroup Driver", found["CgroupDriver"]
    yield "Cgroup Version", found["CgroupVersion"]
    yield "Plugins", None
    yield from ((f" {kind}", " ".join(found["Plugins"][kind] or [])) for kind in ("Volume", "Network", "Log"))
    yield "Security Options", None
    for text in found["SecurityOptions"] or []:
        parts = dict(part.partition("=")[::2] for part in text.split(","))
        yield f" {parts.pop('name')}", " ".join(f"{key}={value}" for key, value in parts.items()) or None
    for title, key in (
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ):
        yield title, found[key]
    yield "Total Memory", output.size(found["MemTotal"], base=1024)
    yield from ((title, found[key]) for title, key in (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")))
    proxies = (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))
    yield from ((title, found[key]) for title, key in proxies if found[key])
    registries = found["RegistryConfig"]
    yield "Insecure Registries", None
    plain = [name for name, entry in registries["IndexConfigs"].items() if not entry["Secure"]]
    yield from ((f" {name}", "") for name in [*plain, *registries["InsecureRegistryCIDRs"]])
    if registries["Mirrors"]:
        yield "Registry Mirrors", None
        yield from ((f" {name}", "") for name in registries["Mirrors"])
    yield "Live Restore Enabled", str(found["LiveRestoreEnabled"]).lower()


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
