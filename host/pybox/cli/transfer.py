"""Commands that bring images and send them: pull, push, search, load, save, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.errors import PyboxError, UsageProblem

_DESCRIPTION = 45  # characters, unless --no-trunc


@click.command()
@click.option("--all-tags", "-a", "every", is_flag=True, help="Download all tags of the repository.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.option("--platform", default="", help="Platform of the image (linux/amd64).")
@click.argument("reference")
@pass_context
def pull(context: Context, reference: str, every: bool, quiet: bool, platform: str) -> None:
    """Download an image from a registry.

    A registry named localhost is the one on this computer: pybox pull localhost:5000/library/node:20
    """
    from pybox.app import images
    from pybox.cli.progress import PullProgress

    _check_tags(reference, every=every, quiet=quiet)
    with PullProgress(sys.stdout, quiet=quiet) as show:
        images.pull(context.started_client(), context.logins, reference, show, platform=platform, every=every)
    output.say(images.full_reference(reference).rpartition(":")[0] if every else images.full_reference(reference))


@click.command()
@click.option("--all-tags", "-a", "every", is_flag=True, help="Push all tags of the image.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@click.option("--platform", default="", help="Push an image of this platform (linux/amd64).")
@click.argument("reference")
@pass_context
def push(context: Context, reference: str, every: bool, quiet: bool, platform: str) -> None:
    """Upload an image to a registry.

    A registry named localhost is the one on this computer: pybox push localhost:5000/app
    """
    from pybox.app import images
    from pybox.cli.progress import PullProgress

    _check_tags(reference, every=every, quiet=quiet)
    with PullProgress(sys.stdout, quiet=quiet) as show:
        images.push(context.client, context.logins, reference, show, platform=platform, every=every)
    if quiet:
        output.say(images.full_reference(reference).rpartition(":")[0] if every else images.full_reference(reference))


def _check_tags(reference: str, *, every: bool, quiet: bool) -> None:
    """Of a tag and all tags only one can be meant; of none, `latest` is."""
    from pybox.app.images import split_reference

    tag = split_reference(reference)[1]
    if every and tag:
        raise UsageProblem("tag can't be used with --all-tags/-a", "", f"Leave out one of them: {reference}, -a.")
    if not (every or quiet or tag):
        output.say("Using default tag: latest")


@click.command()
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="is-official=true, stars=3.")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("--limit", type=int, default=0, help="Number of results.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.argument("term")
@pass_context
def search(context: Context, term: str, filters: tuple[str, ...], template: str | None, limit: int, no_trunc: bool) -> None:
    """Search a registry for images: docker's, or HOST[:PORT]/TERM."""
    from pybox.app.logins import registry_of
    from pybox.cli.rows import filter_query

    query = {"term": term, "limit": limit or None, "filters": filter_query(filters)}
    headers = {"X-Registry-Auth": context.logins.header(registry_of(term))}
    found = context.started_client().call("GET", "/images/search", query, headers=headers)
    rows = [
        {
            "Name": item["name"],
            "Description": _description(item.get("description") or "", full=no_trunc),
            "StarCount": str(item["star_count"]),
            "IsOfficial": "[OK]" if item["is_official"] else "",
            "IsAutomated": "[OK]" if item.get("is_automated") else "",
        }
        for item in found
    ]
    columns = {"NAME": "Name", "DESCRIPTION": "Description", "STARS": "StarCount", "OFFICIAL": "IsOfficial"}
    output.listing(columns, rows, template, headings={"IsAutomated": "AUTOMATED"})


def _description(text: str, *, full: bool) -> str:
    line = " ".join(text.split())
    return line if full or len(line) <= _DESCRIPTION else f"{line[: _DESCRIPTION - 1]}…"


@click.command()
@click.option("--input", "-i", "source", type=click.File("rb"), default="-", help="Read from this archive.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@pass_context
def load(context: Context, source: Any, quiet: bool) -> None:
    """Load images from a tar archive."""
    from pybox.app import images
    from pybox.cli.progress import PullProgress

    if source.isatty():
        raise UsageProblem(
            "requested load from stdin, but stdin is empty",
            resolution="pybox load -i FILE, or pybox load < FILE",
        )
    with PullProgress(sys.stdout, quiet=quiet) as show:
        images.load(context.started_client(), source, show)


@click.command()
@click.option("--output", "-o", "target", type=click.Path(path_type=Path), help="Write to this file.")
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...")
@pass_context
def save(context: Context, references: tuple[str, ...], target: Path | None) -> None:
    """Save images to a tar archive."""
    from pybox.app import images
    from pybox.cli.targets import archive_target

    with archive_target(target) as file:
        images.save(context.client, list(references), file)


@click.command("import")
@click.option("--change", "-c", "changes", multiple=True, metavar="INSTRUCTION", help="Dockerfile instruction to apply.")
@click.option("--message", "-m", default="", metavar="TEXT", help="Commit message of the image.")
@click.option("--platform", default="", help="Platform of the image (linux/amd64).")
@click.argument("source", metavar="FILE|URL|-")
@click.argument("reference", required=False, metavar="[REPOSITORY[:TAG]]")
@pass_context
def import_image(
    context: Context, source: str, reference: str | None, changes: tuple[str, ...], message: str, platform: str
) -> None:
    """Make an image of a tar archive of files, which may be compressed; its id is printed.

    The archive is a file, what is at an address, or standard input (-).
    """
    from pybox.app import images
    from pybox.cli.progress import PullProgress

    name, tag = images.split_reference(reference or "")
    remote = source.startswith(("http://", "https://"))
    query = {
        "fromSrc": source if remote else "-",
        "repo": name or None,
        "tag": tag or None,
        "message": message,
        "changes": list(changes),
        "platform": platform or None,
    }
    client = context.started_client()
    with PullProgress(sys.stdout) as show:
        if remote:
            images.import_archive(client, None, query, show)
            return
        with _opened(source) as archive:
            images.import_archive(client, archive, query, show)


def _opened(source: str) -> BinaryIO:
    if source != "-":
        try:
            return Path(source).open("rb")
        except OSError as error:
            raise PyboxError(f"open {source}: {(error.strerror or '').lower()}") from error
    if sys.stdin.isatty():
        raise UsageProblem("requested import from stdin, but stdin is empty", "", "Name a file, or redirect one.")
    return sys.stdin.buffer


COMMANDS: dict[str, click.Command] = {
    "pull": pull,
    "push": push,
    "search": search,
    "load": load,
    "save": save,
    "import": import_image,
}
