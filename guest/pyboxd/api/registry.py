"""What clients want of registries: pushes, logins, searches, and what is behind a name there."""

from __future__ import annotations

import base64
import binascii
from typing import cast

from pyboxd import jsontext
from pyboxd.api import filters, progress
from pyboxd.api.fields import read_object
from pyboxd.api.schema import registry as schema
from pyboxd.engine.events import Events
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image.reference import parse
from pyboxd.image.room import ImageRoom
from pyboxd.model import RegistryAuth
from pyboxd.server.message import Json, Request, Response, Stream
from pyboxd.server.routes import Route

DEFAULT_LIMIT = 25  # results of a search
REGISTRY_AUTH = "X-Registry-Auth"
_PLATFORM_OF_PUSH = (1, 46)  # older clients send a platform without meaning it


@frozen
class RegistryApi:
    """Handlers around the image room's door to registries."""

    images: ImageRoom
    events: Events

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/auth", self.auth),
            Route("GET", "/images/search", self.search),
            Route("POST", "/images/{name:path}/push", self.push),
            Route("GET", "/distribution/{name:path}/json", self.describe),
        ]

    async def auth(self, request: Request) -> Response:
        """Whether a registry takes a login. The client keeps it, the engine does not."""
        value = read_object(await request.json() or {}, "AuthConfig")
        token = await self.images.sign_in(schema.decode_login(value))
        return Json(schema.login(token))

    async def search(self, request: Request) -> Response:
        query = request.query
        found = filters.parse(query.text("filters"), ("is-automated", "is-official", "stars"))
        automated, official = filters.flag(found, "is-automated"), filters.flag(found, "is-official")
        stars = max((_stars(text) for text in found.get("stars", ())), default=0)
        limit = query.integer("limit") or DEFAULT_LIMIT
        if automated:
            return Json([])
        results = await self.images.search(query.text("term"), limit, decode_auth(request.headers.get(REGISTRY_AUTH, "")))
        return Json(
            schema.search_results(
                result for result in results if official in (None, result.official) and result.stars >= stars
            )
        )

    async def describe(self, request: Request) -> Response:
        return Json(
            schema.remote_image(
                await self.images.describe(request.parameters["name"], decode_auth(request.headers.get(REGISTRY_AUTH, "")))
            )
        )

    async def push(self, request: Request) -> Response:
        """One tag, or without any all tags of a repository. As with Docker all failures are told in the stream, but for
        a request that makes no sense and an image of another platform."""
        named, tag = parse(request.parameters["name"]), request.query.text("tag")
        reference = named.with_tag(tag) if tag else named
        asked = request.query.text("platform") if request.version >= _PLATFORM_OF_PUSH else ""
        platform = _platform(asked)
        auth = decode_auth(request.headers.get(REGISTRY_AUTH, ""))

        async def job(say: progress.Say) -> None:
            await self.images.push(
                str(reference),
                platform=platform,
                auth=auth,
                progress=lambda step: say(progress.message(step)),
                pushed=lambda tag: say(schema.pushed(tag)),
            )
            self.events.publish("image", "push", reference.familiar, {"name": reference.familiar_name})

        return Stream(progress.stream(job), eager=False)


def _stars(text: str) -> int:
    if not text.isdecimal():
        raise InvalidArgument(f"invalid filter 'stars={text}'")
    return int(text)


def _platform(text: str) -> str:
    """The query parameter `platform` of a push, which is JSON: "linux/arm64/v8", or "" for none. InvalidArgument."""
    if not text:
        return ""
    try:
        value = jsontext.loads(text)
        parts = [value.get(name) or "" for name in ("os", "architecture", "variant")]
    except (ValueError, AttributeError) as error:
        raise InvalidArgument(f"failed to parse platform: {error}") from None
    if not all(isinstance(part, str) for part in parts) or not (parts[0] and parts[1]):
        raise InvalidArgument("both OS and Architecture must be provided")
    return "/".join(filter(None, parts))


def decode_auth(text: str) -> RegistryAuth | None:
    """The header X-Registry-Auth, a login. What cannot be read is none."""
    return schema.auth_of(read_header(text))


def read_header(text: str) -> object:
    """JSON in base64 (either alphabet, padded or not), as clients send logins; None if it cannot be read."""
    padded = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return cast(object, jsontext.loads(base64.b64decode(padded + "=" * (-len(padded) % 4))))
    except (binascii.Error, ValueError):
        return None
