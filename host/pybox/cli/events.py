"""`pybox events`: what happens in the engine, as it happens or as it has happened."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context


@click.command()
@click.option("--since", metavar="TIME", help="From a time (2026-01-02T13:23:37Z) or a span before now (42m).")
@click.option("--until", metavar="TIME", help="Up to a time or a span before now; without it events go on.")
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="type=container, event=die, …")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@pass_context
def events(context: Context, since: str | None, until: str | None, filters: tuple[str, ...], template: str | None) -> None:
    """Get real time events from the engine."""
    from pybox.cli.rows import filter_query, moment_query

    query = {"since": moment_query(since), "until": moment_query(until), "filters": filter_query(filters)}
    for event in context.client.json_lines("GET", "/events", query):
        if template is not None:
            output.document(event, template)
        else:
            output.say(line(event))


def line(event: dict[str, Any]) -> str:
    """An event as docker shows it: time, kind, action, subject, attributes."""
    actor = event["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(actor["Attributes"].items()))
    text = f"{local_time(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']}"
    return f"{text} ({attributes})" if attributes else text


def local_time(nanoseconds: int) -> str:
    """RFC 3339 with nine digits, in this computer's time zone."""
    from datetime import UTC, datetime

    seconds, rest = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).astimezone().isoformat()
    return f"{text[:19]}.{rest:09}{text[19:].replace('+00:00', 'Z')}"


COMMANDS: dict[str, click.Command] = {"events": events}
