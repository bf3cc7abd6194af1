"""`inspect`, of anything and of one kind of thing."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.engine.client import EngineClient
from pybox.errors import EngineError

_PATHS = {  # in the order in which a name is looked for
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}
_format = click.option("--format", "-f", "template", metavar="TEMPLATE", help="json, or a Go template.")


@click.command()
@_format
@click.option("--type", "kind", type=click.Choice(list(_PATHS)))
@click.option("--size", "-s", is_flag=True, help="Show file sizes of containers.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_context
def inspect(context: Context, names: tuple[str, ...], kind: str | None, size: bool, template: str | None) -> int:
    """Return low-level information on containers, images, volumes and networks."""
    return _show(context.client, names, [kind] if kind else list(_PATHS), template, size=size)


def _show(client: EngineClient, names: tuple[str, ...], kinds: list[str], template: str | None, *, size: bool) -> int:
    found: list[Any] = []
    errors: list[EngineError] = []
    for name in names:
        try:
            found.append(_find(client, name, kinds, size=size))
        except EngineError as error:
            errors.append(error)
    if found or template is None:
        output.document(found, template)
    for problem in errors:
        output.show_error(problem)
    return 1 if errors else 0


def _find(client: EngineClient, name: str, kinds: list[str], *, size: bool) -> Any:
    for kind in kinds:
        try:
            return client.get(_PATHS[kind].format(name), {"size": size} if kind == "container" else None)
        except EngineError as error:
            if error.status != 404 or len(kinds) == 1:
                raise
    raise EngineError(f"No such object: {name}", status=404)


def _of_kind(kind: str) -> click.Command:
    @click.command("inspect", help=f"Display detailed information on one or more {kind}s.")
    @_format
    @click.argument("names", nargs=-1, required=True, metavar=f"{kind.upper()}...")
    @pass_context
    def command(context: Context, names: tuple[str, ...], template: str | None, size: bool = False) -> int:
        return _show(context.client, names, [kind], template, size=size)

    return click.option("--size", "-s", is_flag=True, help="Show file sizes.")(command) if kind == "container" else command


COMMANDS: dict[str, click.Command] = {"inspect": inspect, **{kind: _of_kind(kind) for kind in _PATHS}}
