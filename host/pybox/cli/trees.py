"""Commands around containers' file trees: cp, diff, commit, export."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import PyboxError, UsageProblem

if TYPE_CHECKING:
    from pybox.app.copying import InContainer

REDRAW = 0.2  # seconds
_KINDS = "CAD"  # by the API's number: changed, added, deleted


@click.command()
@click.option("--archive", "-a", is_flag=True, help="Give the files to the user that the container's programs run as.")
@click.option("--follow-link", "-L", is_flag=True, help="Copy what a link at SOURCE points at.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress; there is none without a terminal.")
@click.argument("source")
@click.argument("target")
@pass_context
def cp(context: Context, source: str, target: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and this computer.

    \b
    pybox cp web:/var/log ./logs       # a folder; it becomes ./logs, or goes into it
    pybox cp ./site/. web:/srv         # what is in a folder
    pybox cp web:/etc - | tar t        # an archive, to or from standard input and output
    """
    from pybox.app.copying import InContainer, place

    if not source or not target:
        raise UsageProblem(f"{'source' if not source else 'destination'} can not be empty")
    come_from, go_to = place(source), place(target)
    progress = _Progress(to=isinstance(go_to, InContainer), shown=not quiet and sys.stderr.isatty())
    try:
        if isinstance(come_from, InContainer) and isinstance(go_to, InContainer):
            raise UsageProblem(
                "copying between containers is not supported", "", f"pybox cp {source} - | pybox cp - {target}"
            )
        if isinstance(come_from, InContainer):
            _copy_out(context, come_from, str(go_to), progress, follow=follow_link)
        elif isinstance(go_to, InContainer):
            _copy_in(context, come_from, go_to, progress, archive=archive, follow=follow_link)
        else:
            raise UsageProblem("must specify at least one container source", "", "Write CONTAINER:PATH for one of them.")
    except OSError as error:
        if error.filename is None:  # of no file: standard output's reader is gone, for example
            raise
        raise PyboxError(f"{error.filename}: {(error.strerror or '').lower()}") from error


def _copy_out(context: Context, source: InContainer, target: str, count: _Progress, *, follow: bool) -> None:
    from pybox.app import copying

    if target == "-":
        if sys.stdout.isatty():
            raise UsageProblem("cowardly refusing to write an archive to a terminal", resolution="Redirect it.")
        copying.to_stream(context.client, source, sys.stdout.buffer, follow=follow)
        sys.stdout.buffer.flush()
        return
    left_out = copying.from_container(context.client, source, target, count, follow=follow)
    count.end(target)
    for name in left_out:
        output.note(f"Not copied, as it is neither a file, a folder nor a link: {name}")


def _copy_in(context: Context, source: str, target: InContainer, count: _Progress, *, archive: bool, follow: bool) -> None:
    from pybox.app import copying

    content = sys.stdin.buffer if source == "-" else source
    path = copying.to_container(context.client, content, target, count, archive=archive, follow=follow)
    count.end(f"{target.container}:{path}")


class _Progress:
    """Counts what has gone through, and shows it on a terminal."""

    def __init__(self, *, to: bool, shown: bool) -> None:
        self._words = "Copying to container" if to else "Copying from container"
        self._shown = shown
        self._bytes = 0
        self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        self._bytes += count
        if self._shown and time.monotonic() - self._last > REDRAW:
            click.echo(f"\r\x1b[2K{self._words} - {output.size(self._bytes)}", nl=False, err=True)
            self._last = time.monotonic()

    def end(self, where: str) -> None:
        if self._shown:
            click.echo(f"\r\x1b[2KSuccessfully copied {output.size(self._bytes)} to {where}", err=True)


@click.command()
@click.argument("container")
@pass_context
def diff(context: Context, container: str) -> None:
    """Show what was added (A), changed (C) and deleted (D) since the container was created."""
    for change in context.client.get(f"/containers/{container}/changes") or []:
        output.say(f"{_KINDS[change['Kind']]} {change['Path']}")


@click.command()
@click.option("--author", "-a", default="", metavar="TEXT", help='Author ("Hannibal Smith <hannibal@a-team.com>").')
@click.option("--change", "-c", "changes", multiple=True, metavar="INSTRUCTION", help="Dockerfile instruction to apply.")
@click.option("--message", "-m", default="", metavar="TEXT", help="Commit message.")
@click.option("--pause/--no-pause", "-p", default=True, show_default=True, help="Pause the container meanwhile.")
@click.argument("container")
@click.argument("reference", required=False, metavar="[REPOSITORY[:TAG]]")
@pass_context
def commit(
    context: Context, container: str, reference: str | None, author: str, changes: tuple[str, ...], message: str, pause: bool
) -> None:
    """Make an image of a container's changes; its id is printed."""
    from pybox.app.images import split_reference

    name, tag = split_reference(reference or "")
    query = {
        "container": container,
        "repo": name or None,
        "tag": tag or None,
        "author": author,
        "comment": message,
        "pause": pause,
        "changes": list(changes),
    }
    output.say(context.client.post("/commit", query)["Id"])


@click.command()
@click.option("--output", "-o", "target", type=click.Path(path_type=Path), help="Write to this file.")
@click.argument("container")
@pass_context
def export(context: Context, container: str, target: Path | None) -> None:
    """Write a container's file system as a tar archive, to standard output unless -o names a file."""
    from pybox.cli.targets import archive_target

    with archive_target(target) as file, context.client.stream("GET", f"/containers/{container}/export") as response:
        while data := response.read1():
            file.write(data)


COMMANDS: dict[str, click.Command] = {"cp": cp, "diff": diff, "commit": commit, "export": export}
