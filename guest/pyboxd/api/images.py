"""/images: list, inspect, names, removal, and the jobs that bring images in."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable

from pyboxd.api import filters, listing, progress
from pyboxd.api.archive import in_thread
from pyboxd.api.schema import images as schema
from pyboxd.engine.commit import commit, import_tree
from pyboxd.engine.containers import Containers
from pyboxd.engine.events import Events
from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.frozen import frozen
from pyboxd.image.model import Image, Progress
from pyboxd.image.reference import Reference, is_digest, is_tag, parse
from pyboxd.image.room import ImageRoom
from pyboxd.model import RegistryAuth
from pyboxd.server.message import Empty, Json, Query, Request, Response, Stream
from pyboxd.server.routes import Route

_FILTERS = ("dangling", "label", "before", "since", "reference", "until")
_REGISTRY_AUTH = "X-Registry-Auth"


@frozen
class ImagesApi:
    """Handlers around the image room."""

    images: ImageRoom
    containers: Containers
    events: Events

    def routes(self) -> list[Route]:
        one = "/images/{name:path}"
        return [
            Route("GET", "/images/json", self.list),
            Route("POST", "/images/create", self.create),
            Route("POST", "/images/load", self.load),
            Route("POST", "/images/prune", self.prune),
            Route("POST", "/commit", self.commit),
            Route("GET", "/images/get", self.save),
            Route("GET", "/images/search", self.not_here),
            Route("GET", f"{one}/get", self.save),
            Route("GET", f"{one}/json", self.inspect),
            Route("GET", f"{one}/history", self.history),
            Route("POST", f"{one}/tag", self.tag),
            Route("DELETE", one, self.remove),
        ]

    def _find(self, request: Request) -> Image:
        return self.images.get(request.parameters["name"])

    async def list(self, request: Request) -> Response:
        found = filters.parse(request.query.text("filters"), _FILTERS)
        every = request.query.flag("all")
        chosen = self._chooser(found)
        return Json(
            [
                schema.summary(image, self._containers_of(image))
                for image in self.images.list()
                if chosen(image) and (every or image.references or image.repo_digests or self._is_leaf(image))
            ]
        )

    def _is_leaf(self, image: Image) -> bool:
        """Whether nothing was built on it: what a build leaves on the way is not listed."""
        return not self.images.children(image.id)

    def _containers_of(self, image: Image) -> int:
        return sum(1 for container in self.containers if container.record.image_id == image.id)

    def _chooser(self, found: filters.Filters) -> Callable[[Image], bool]:
        dangling = filters.flag(found, "dangling")
        before = [schema.created_at(self.images.get(name).created) for name in found.get("before", ())]
        since = [schema.created_at(self.images.get(name).created) for name in found.get("since", ())]

        def chosen(image: Image) -> bool:
            created = schema.created_at(image.created)
            nameless = not image.references
            return (
                (dangling is None or dangling == (nameless and self._is_leaf(image)))
                and filters.labels_match(found, image.config.labels)
                and all(created < limit for limit in before)
                and all(created > limit for limit in since)
                and listing.old_enough({"until": found.get("until", ())}, created * 10**9, ())
                and _names_match(found.get("reference", ()), image)
            )

        return chosen

    async def inspect(self, request: Request) -> Response:
        return Json(schema.inspect(self._find(request)))

    async def history(self, request: Request) -> Response:
        return Json(schema.history(self.images.history(self._find(request))))

    async def tag(self, request: Request) -> Response:
        image = self._find(request)
        self._tag(image, request.query.text("repo"), request.query.text("tag"))
        return Empty(201)

    async def remove(self, request: Request) -> Response:
        query = request.query
        name = request.parameters["name"]
        removed = await self.images.remove(name, force=query.flag("force"), prune=not query.flag("noprune"))
        for item in removed:
            action = "untag" if item.untagged else "delete"
            if item.untagged or item.deleted.startswith("sha256:"):
                self.events.publish("image", action, item.deleted or item.untagged, {"name": item.untagged or item.deleted})
        return Json(schema.removed(removed))

    async def prune(self, request: Request) -> Response:
        found = filters.parse(request.query.text("filters"), ("dangling", "label", "label!", "until"))
        only_nameless = filters.flag(found, "dangling") is not False
        before = sum(image.size for image in self.images.list())

        def wanted(image: Image) -> bool:
            created = schema.created_at(image.created) * 10**9
            return (not only_nameless or not image.references) and listing.old_enough(
                found, created, tuple(image.config.labels.items())
            )

        removed = await self.images.prune(wanted)
        freed = max(0, before - sum(image.size for image in self.images.list()))
        self.events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return Json({"ImagesDeleted": schema.removed(removed) or None, "SpaceReclaimed": freed})

    async def commit(self, request: Request) -> Response:
        query = request.query
        container = self.containers.get(query.text("container"))
        image = await commit(
            self.images,
            container,
            _changes(query),
            author=query.text("author"),
            comment=query.text("comment"),
            pause=query.flag("pause", default=True),
        )
        if query.text("repo"):
            self._tag(image, query.text("repo"), query.text("tag"))
        self.events.container(container.record, "commit", imageID=image.id)
        return Json({"Id": image.id}, 201)

    def _tag(self, image: Image, repository: str, tag: str) -> str:
        """Give an image a name; the name. InvalidArgument."""
        if tag and not is_tag(tag):
            raise InvalidArgument("invalid tag format")
        reference = parse(f"{repository}:{tag}" if tag else repository).with_default_tag()
        self.images.tag(image.id, str(reference))
        self.events.publish("image", "tag", image.id, {"name": reference.familiar})
        return reference.familiar

    async def save(self, request: Request) -> Response:
        """`docker save`: of one image in the path, or of several in the query."""
        one = request.parameters.get("name")
        names = [one] if one else [name for text in request.query.many("names") for name in text.split(",")]
        for name in names:
            self.images.get(name)
        return Stream(in_thread(lambda: self.images.save(names)), "application/x-tar", eager=False)

    async def not_here(self, request: Request) -> Response:
        raise NotImplementedHere("searching a registry is not supported")

    # jobs

    async def create(self, request: Request) -> Response:
        """Pull, or import an archive (`fromSrc=-`)."""
        query = request.query
        if query.text("fromSrc"):
            return self._import(request)
        if not query.text("fromImage"):
            raise InvalidArgument("invalid reference format")
        reference = _pull_reference(query.text("fromImage"), query.text("tag"))
        platform = parse_platform(query.text("platform"))
        auth = decode_auth(request.headers.get(_REGISTRY_AUTH, ""))

        async def job(say: progress.Say) -> None:
            await self.images.pull(
                str(reference), platform=platform, auth=auth, progress=lambda step: say(progress.message(step))
            )
            self.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})

        return Stream(progress.stream(job, held=1), eager=False)

    def _import(self, request: Request) -> Response:
        query = request.query
        if query.text("fromSrc") != "-":
            raise NotImplementedHere("importing from a URL is not supported; fetch the archive and import the file")

        async def job(say: progress.Say) -> None:
            image = await import_tree(self.images, request.body, _changes(query), comment=query.text("message"))
            if query.text("repo"):
                self._tag(image, query.text("repo"), query.text("tag"))
            self.events.publish("image", "import", image.id, {"name": image.id})
            say({"status": image.id})

        return Stream(progress.stream(job), eager=False)

    async def load(self, request: Request) -> Response:
        quiet = request.query.flag("quiet")

        async def job(say: progress.Say) -> None:
            def step(item: Progress) -> None:
                if not quiet:
                    say(progress.message(item))

            names = await self.images.load(request.body, step)
            for name in names:
                what = "image ID" if is_digest(name) else "image"
                say({"stream": f"Loaded {what}: {name}\n"})
                self.events.publish("image", "load", self.images.get(name).id, {"name": name})

        return Stream(progress.stream(job, held=-1), eager=False)  # Docker tells all its failures in the stream


def _changes(query: Query) -> list[str]:
    """`changes`: instructions, one each, or several with line ends between them."""
    return [line for text in query.many("changes") for line in text.split("\n") if line.strip()]


def _names_match(patterns: tuple[str, ...], image: Image) -> bool:
    """The filter `reference`: patterns over `name`, `name:tag` (path.Match of Go)."""
    if not patterns:
        return True
    from fnmatch import fnmatchcase  # seldom used

    names = {name for text in image.references for name in (text, text.rpartition(":")[0])}
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _pull_reference(name: str, tag: str) -> Reference:
    """`fromImage` and `tag`, which may be a digest. InvalidArgument."""
    if not tag:
        return parse(name).with_default_tag()
    return parse(f"{name}@{tag}" if is_digest(tag) else f"{name}:{tag}")


def parse_platform(text: str) -> str:
    """The query parameter `platform` in full: "linux/arm64/v8", or "" for the machine's own. InvalidArgument."""
    parts = text.split("/") if text else []
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f'"{text}" is an invalid platform: os[/architecture[/variant]] is expected')
    if len(parts) == 1:
        return "" if text == "linux" else f"linux/{text}"
    return text


def decode_auth(text: str) -> RegistryAuth | None:
    """The header X-Registry-Auth: base64 (either alphabet, padded or not) of JSON. What cannot be read is no login."""
    if not text:
        return None
    try:
        padded = text.replace("-", "+").replace("_", "/").rstrip("=")
        value = json.loads(base64.b64decode(padded + "=" * (-len(padded) % 4)))
    except (binascii.Error, ValueError):
        return None
    return auth_of(value)


def auth_of(value: object) -> RegistryAuth | None:
    """One login of a client's configuration; None when there is nothing in it."""
    if not isinstance(value, dict):
        return None
    names = ("username", "password", "identitytoken", "serveraddress")
    found = [str(value.get(name) or "") for name in names]
    return RegistryAuth(*found) if any(found[:3]) else None
