"""`pybox test`: a program of this computer against a throw-away machine."""

from __future__ import annotations

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--image", "-i", "images", multiple=True, metavar="IMAGE", help="An image of your machine that it shall have.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_context
def test(context: Context, images: tuple[str, ...], command: tuple[str, ...]) -> int:
    """Run a program of this computer against a clean machine of its own.

    `docker` and `pybox` talk to that machine; it is gone when the program ends, with everything in it.

    \b
    pybox test -- pytest tests
    pybox test --image postgres:16 -- ./integration-tests
    """
    from pybox.app.fresh import run_with

    with context.fresh_machine(images) as fresh:
        output.note(f"Machine {fresh.machine} is there.")
        return run_with(context.machines.docker_host(fresh.machine), fresh.machine, command)


COMMANDS = {"test": test}
