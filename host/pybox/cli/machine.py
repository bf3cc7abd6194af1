"""Commands of the machine: argv -> app. `start`, `stop` and `restart` with containers are in `both.py`."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.starting import (
    PhasePrinter,
    discard_option,
    restart_machine,
    say_started,
    start_machine,
    stop_machine,
)


@click.command()
@pass_context
def suspend(context: Context) -> None:
    """Put the machine's memory into a file and end it; `pybox resume` goes on from there.

    Containers do not notice, but for the time that has passed. Connections from this computer into the machine end.
    """
    seconds = context.machines.suspend(context.machine)
    word = "is suspended already" if seconds is None else f"suspended in {seconds:.1f} s"
    output.say(f'Machine "{context.machine}" {word}.')


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="Show the phases with their times.")
@pass_context
def resume(context: Context, verbose: bool) -> None:
    """Let a suspended machine go on, with all its containers and ports; `pybox start` does the same.

    It goes on with the memory, CPUs and folders that it had; changed settings wait for its next start. Its saved memory
    fits only the data disk that it left and the same QEMU, guest image and version of pybox. When it no longer does,
    `pybox start --discard` boots the machine instead: for containers as if the power had failed.
    """
    say_started(context, context.machines.resume(context.machine, PhasePrinter(verbose=verbose)))


@click.command()
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def status(context: Context, template: str | None) -> int:
    """Show what the machine does; exit status 0 when it runs, 3 when it does not."""
    found = context.machines.status(context.machine)
    if template is not None:
        output.document(found.fields(), template)
    else:
        for key, value in found.lines():
            output.say(f"{key + ':':<14}{value}")
    return 0 if found.running else 3


@click.command()
@click.option("--force", "-f", is_flag=True, help="Do not ask; stop it first if it runs.")
@pass_context
def delete(context: Context, force: bool) -> None:
    """Delete the machine: its disk with all containers, images and volumes."""
    if not force:
        output.confirm(
            f'Machine "{context.machine}" and all its containers, images and volumes will be deleted. Continue?', "delete"
        )
    context.machines.delete(context.machine)
    output.say(f'Machine "{context.machine}" deleted.')


@click.command()
@pass_context
def ip(context: Context) -> None:
    """Print the address where published ports answer."""
    output.say(context.machines.address(context.machine))


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def ssh(context: Context, command: tuple[str, ...]) -> int:
    """Open a shell in the machine, or run a command there."""
    from pybox.app.ssh import run_in_machine

    return run_in_machine(context.machines.ssh_endpoint(context.machine), command, context.console)


@click.command("ssh-config")
@pass_context
def ssh_config(context: Context) -> None:
    """Print an ssh configuration for the machine.

    \b
    pybox ssh-config > ~/.ssh/pybox && ssh -F ~/.ssh/pybox pybox
    """
    from pybox.app.ssh import configuration

    output.say(configuration(context.machine, context.machines.ssh_endpoint(context.machine)))


@click.group(invoke_without_command=True)
@click.pass_context
def config(ctx: click.Context) -> None:
    """Read and change settings; without a verb, show them all.

    \b
    pybox config set memory 4g
    pybox config get cpus
    pybox config unset mirror
    """
    if ctx.invoked_subcommand is None:
        context = ctx.find_object(Context)
        assert context is not None
        rows = [(item.key, item.value, item.source, item.help) for item in context.machines.all_settings(context.machine)]
        output.table(("SETTING", "VALUE", "FROM", "MEANING"), rows)


@config.command("get")
@click.argument("key")
@pass_context
def config_get(context: Context, key: str) -> None:
    """Print the value of a setting."""
    output.say(context.machines.setting(context.machine, key))


@config.command("set")
@click.argument("key")
@click.argument("value")
@pass_context
def config_set(context: Context, key: str, value: str) -> None:
    """Change a setting."""
    if hint := context.machines.set_setting(context.machine, key, value):
        output.note(hint)


@config.command("unset")
@click.argument("key")
@pass_context
def config_unset(context: Context, key: str) -> None:
    """Go back to a setting's default."""
    if hint := context.machines.set_setting(context.machine, key, None):
        output.note(hint)


@click.command()
@click.option("--shell", type=click.Choice(["bash", "fish", "powershell", "cmd"]), help="Shell to write for.")
@click.option("--unset", is_flag=True, help="Print what undoes it.")
@pass_context
def shellinit(context: Context, shell: str | None, unset: bool) -> None:
    """Print what points docker at the machine.

    \b
    eval "$(pybox shellinit)"
    """
    from pybox.app.shellinit import lines

    for line in lines(context.machines.docker_host(context.machine), shell, unset=unset):
        output.say(line)


@click.group()
def machine() -> None:
    """The machine, in the long form."""


@click.command("ls")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("--quiet", "-q", is_flag=True, help="Only names.")
@pass_context
def machine_list(context: Context, template: str | None, quiet: bool) -> None:
    """List machines."""
    columns = {"NAME": "Name", "STATE": "State", "CPUS": "Cpus", "MEMORY": "Memory", "DISK": "Disk"}
    rows: list[dict[str, Any]] = context.machines.listing()
    output.listing(columns, rows, template, quiet_key="Name" if quiet else None)


@click.command("start")
@click.option("--verbose", "-v", is_flag=True, help="Show the phases with their times.")
@discard_option
@pass_context
def machine_start(context: Context, verbose: bool, discard: bool) -> None:
    """Start the machine, or resume it."""
    start_machine(context, verbose=verbose, discard=discard)


@click.command("stop")
@click.option("--time", "-t", "timeout", type=float, default=10.0, show_default=True, help="Seconds for containers.")
@discard_option
@pass_context
def machine_stop(context: Context, timeout: float, discard: bool) -> None:
    """Stop the machine; a suspended one is resumed first, so that its containers end properly."""
    stop_machine(context, timeout=timeout, discard=discard)


@click.command("restart")
@click.option("--verbose", "-v", is_flag=True, help="Show the phases with their times.")
@discard_option
@pass_context
def machine_restart(context: Context, verbose: bool, discard: bool) -> None:
    """Restart the machine."""
    restart_machine(context, verbose=verbose, discard=discard)


@click.command("build-image")
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), default=None, help="Architecture (default: the host's).")
@pass_context
def machine_build_image(context: Context, arch: str | None) -> None:
    """Build the guest image anew, with today's packages; the next start uses it."""
    output.say(context.machines.build_image(PhasePrinter(verbose=True), arch=arch or ""))


COMMANDS: dict[str, click.Command] = {
    "suspend": suspend,
    "resume": resume,
    "status": status,
    "delete": delete,
    "ip": ip,
    "ssh": ssh,
    "ssh-config": ssh_config,
    "config": config,
    "shellinit": shellinit,
    "machine": machine,
}
for _name, _command in COMMANDS.items():
    if _name != "machine":
        machine.add_command(_command)
for _command in (machine_list, machine_start, machine_stop, machine_restart, machine_build_image):
    machine.add_command(_command)
