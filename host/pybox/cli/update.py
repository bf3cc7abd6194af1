"""`pybox update`: other limits, or another restart policy, for containers that exist."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each
from pybox.cli.run_flags import limit_flags
from pybox.errors import UsageProblem


@click.command()
@limit_flags
@click.option("--restart", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@pass_context
def update(context: Context, names: tuple[str, ...], restart: str | None, **flags: Any) -> int:
    """Change the limits or the restart policy of one or more containers."""
    from pybox.app import options

    body = options.limits(flags)
    if restart is not None:
        body["RestartPolicy"] = options.restart_policy(restart)
    if not body:
        raise UsageProblem("you must provide one or more flags when using this command", "", "See: pybox update --help")

    def change(name: str) -> None:
        for warning in context.client.post(f"/containers/{name}/update", body=body)["Warnings"] or []:
            output.note(f"WARNING: {warning}")

    return each(names, change)


COMMANDS: dict[str, click.Command] = {"update": update}
