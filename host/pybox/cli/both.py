"""`start`, `stop` and `restart`: without a container they mean the machine, with one that container."""

from __future__ import annotations

import click

from pybox.cli import starting
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="Machine: show the phases with their times.")
@click.option("--attach", "-a", is_flag=True, help="Container: attach its output, end with its exit status.")
@click.option("--interactive", "-i", is_flag=True, help="Container: attach standard input.")
@click.option("--detach-keys", metavar="KEYS", help="Container: keys that leave it running.")
@starting.discard_option
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
@pass_context
def start(
    context: Context,
    containers: tuple[str, ...],
    verbose: bool,
    attach: bool,
    interactive: bool,
    detach_keys: str | None,
    discard: bool,
) -> int:
    """Start the machine (or resume it), or one or more stopped containers."""
    if not containers:
        starting.start_machine(context, verbose=verbose, discard=discard)
        return 0
    if attach or interactive:
        from pybox.app.containers import start_attached

        if len(containers) > 1:
            raise click.UsageError("you cannot start and attach multiple containers at once")
        return start_attached(context.client, containers[0], context.console, stdin=interactive, keys=detach_keys)
    return each(containers, lambda name: context.client.post(f"/containers/{name}/start"))


@click.command()
@click.option("--timeout", "--time", "-t", "timeout", type=int, help="Seconds to wait before killing.")
@click.option("--signal", "-s", help="Container: signal to send.")
@starting.discard_option
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
@pass_context
def stop(context: Context, containers: tuple[str, ...], timeout: int | None, signal: str | None, discard: bool) -> int:
    """Stop the machine, or one or more running containers.

    A suspended machine is resumed first, so that its containers end properly.
    """
    if not containers:
        starting.stop_machine(context, timeout=10 if timeout is None else timeout, discard=discard)
        return 0
    query = {"t": timeout, "signal": signal}
    return each(containers, lambda name: context.client.post(f"/containers/{name}/stop", query))


@click.command()
@click.option("--timeout", "--time", "-t", "timeout", type=int, help="Seconds to wait before killing.")
@click.option("--signal", "-s", help="Container: signal to send.")
@click.option("--verbose", "-v", is_flag=True, help="Machine: show the phases with their times.")
@starting.discard_option
@click.argument("containers", nargs=-1, metavar="[CONTAINER...]")
@pass_context
def restart(
    context: Context, containers: tuple[str, ...], timeout: int | None, signal: str | None, verbose: bool, discard: bool
) -> int:
    """Restart the machine, or one or more containers."""
    if not containers:
        starting.restart_machine(context, verbose=verbose, discard=discard)
        return 0
    query = {"t": timeout, "signal": signal}
    return each(containers, lambda name: context.client.post(f"/containers/{name}/restart", query))


COMMANDS: dict[str, click.Command] = {"start": start, "stop": stop, "restart": restart}
