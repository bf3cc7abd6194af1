"""/events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from pyboxd.api import filters
from pyboxd.api.fields import JsonObject
from pyboxd.engine.events import Event, Events
from pyboxd.engine.timestamps import parse as parse_time
from pyboxd.frozen import frozen
from pyboxd.server.message import JSON, Request, Response, Stream
from pyboxd.server.routes import Route

_FILTERS = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
    "service", "type", "volume",
)  # fmt: skip
_LINES = ("application/jsonl", "application/x-ndjson")
_SEQUENCE = "application/json-seq"
_LEGACY_KINDS = ("container", "image")


@frozen
class EventsApi:
    """The handler of the event stream."""

    events: Events

    def routes(self) -> list[Route]:
        return [Route("GET", "/events", self.listen)]

    async def listen(self, request: Request) -> Response:
        query = request.query
        found = filters.parse(query.text("filters"), _FILTERS)
        since = parse_time(query.text("since")) if query.text("since") else 0
        until = parse_time(query.text("until")) if query.text("until") else 0
        accepted = request.headers.get("accept", "")
        kind = next((kind for kind in (*_LINES, _SEQUENCE) if kind in accepted), JSON)
        start = b"\x1e" if kind == _SEQUENCE else b""
        # Listened to from now on, not from when the client reads: it may already have acted on the header.
        source = self.events.listen(found, since, until)

        async def lines() -> AsyncIterator[bytes]:
            async for event in source:
                yield start + json.dumps(encode(event), separators=(",", ":")).encode() + b"\n"

        return Stream(lines(), kind)


def encode(event: Event) -> JsonObject:
    """One event; containers' and images' have the fields of old clients too."""
    value: JsonObject = {}
    if event.kind in _LEGACY_KINDS:
        value = {"status": event.action, "id": event.subject}
        if event.kind == "container":
            value["from"] = event.attributes.get("image", "")
    return value | {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.subject, "Attributes": dict(event.attributes)},
        "scope": "local",
        "time": event.time // 10**9,
        "timeNano": event.time,
    }
