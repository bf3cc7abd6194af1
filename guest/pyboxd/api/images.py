"""/images: list, inspect, names, removal, and the jobs that bring images in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

from pyboxd.api import filters, listing, progress
from pyboxd.api.archive import in_thread
from pyboxd.api.registry import REGISTRY_AUTH, decode_auth
from pyboxd.api.schema import images as schema
from pyboxd.engine.commit import commit, import_tree
from pyboxd.engine.containers import Containers
from pyboxd.engine.events import Events
from pyboxd.errors import Forbidden, InvalidArgument, NotFound
from pyboxd.frozen import frozen, replace
from pyboxd.image.model import Image, Progress, Removed
from pyboxd.image.reference import DIGEST_ALGORITHMS, Reference, is_digest, parse
from pyboxd.image.room import ImageRoom
from pyboxd.server.message import Empty, Json, Query, Request, Response, Stream
from pyboxd.server.routes import Route

_FILTERS = ("dangling", "label", "before", "since", "reference", "until")
_PIECE = 256 * 1024
_STEP = 512 * 1024  # bytes between two messages of progress


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
        names = found.get("reference", ())
        images = [_only_named(image, names) for image in self.images.list()] if names else self.images.list()
        shared = self.images.shared_sizes(images) if request.query.flag("shared-size") else {}
        return Json(
            [
                schema.summary(image, self._containers_of(image), request.version, shared.get(image.id, -1))
                for image in images
                if chosen(image) and (every or _is_named(image) or self._is_leaf(image)) and (not names or _is_named(image))
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
            )

        return chosen

    async def inspect(self, request: Request) -> Response:
        return Json(schema.inspect(self._find(request), request.version))

    async def history(self, request: Request) -> Response:
        return Json(schema.history(self.images.history(self._find(request))))

    async def tag(self, request: Request) -> Response:
        reference = _new_name(request.query)
        self._tag(self._find(request), reference)
        return Empty(201)

    async def remove(self, request: Request) -> Response:
        query = request.query
        name = request.parameters["name"]
        removed = await self.images.remove(name, force=query.flag("force"), prune=not query.flag("noprune"))
        self._tell(removed)
        return Json(schema.removed(removed))

    def _tell(self, removed: Sequence[Removed]) -> None:
        for item in removed:
            if item.image:
                self.events.publish("image", "untag" if item.untagged else "delete", item.image, {"name": item.image})

    async def prune(self, request: Request) -> Response:
        found = filters.parse(request.query.text("filters"), ("dangling", "label", "label!", "until"))
        only_nameless = filters.flag(found, "dangling") is not False
        before = self.images.layer_sizes()

        def wanted(image: Image) -> bool:
            created = schema.created_at(image.created) * 10**9
            return (not only_nameless or not image.references) and listing.old_enough(
                found, created, tuple(image.config.labels.items())
            )

        removed = await self.images.prune(wanted)
        self._tell(removed)
        left = self.images.layer_sizes()
        freed = sum(size for diff_id, size in before.items() if diff_id not in left)
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
            self._tag(image, _new_name(query))
        self.events.container(container.record, "commit", imageID=image.id)
        return Json({"Id": image.id}, 201)

    def _tag(self, image: Image, reference: Reference) -> None:
        self.images.tag(image.id, str(reference))
        self._publish("tag", image, reference.familiar)

    def _publish(self, action: str, image: Image, name: str = "") -> None:
        self.events.publish("image", action, image.id, {**image.config.labels, "name": name or image.id})

    async def save(self, request: Request) -> Response:
        """`docker save`: of one image in the path, or of several in the query."""
        one = request.parameters.get("name")
        names = [one] if one else [name for text in request.query.many("names") for name in text.split(",")]
        for image in [self._saved(name) for name in names]:
            self._publish("save", image)
        return Stream(in_thread(lambda: self.images.save(names)), "application/x-tar", eager=False)

    def _saved(self, name: str) -> Image:
        try:
            return self.images.get(name)
        except NotFound:
            raise NotFound(f"No such image: {name}") from None  # as it was given, without a tag

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
        auth = decode_auth(request.headers.get(REGISTRY_AUTH, ""))

        async def job(say: progress.Say) -> None:
            pull = self.images.pull if reference.tag or reference.digest else self.images.pull_all
            await pull(str(reference), platform=platform, auth=auth, progress=lambda step: say(progress.message(step)))
            self.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})

        return Stream(progress.stream(job, held=1), eager=False)

    def _import(self, request: Request) -> Response:
        """Make an image of an archive: the request's body (`-`), or what is at an address."""
        query = request.query
        source = query.text("fromSrc")
        address = source if source == "-" or "://" in source else f"http://{source}"
        comment = query.text("message") or f"Imported from {source}"
        name = _new_name(query) if query.text("repo") else None

        async def job(say: progress.Say) -> None:
            async with self._archive(request, address, say) as archive:
                image = await import_tree(self.images, archive, _changes(query), comment=comment)
            if name is not None:
                self._tag(image, name)
            self._publish("import", image)
            say({"status": image.id})

        return Stream(progress.stream(job), eager=False)

    @asynccontextmanager
    async def _archive(self, request: Request, address: str, say: progress.Say) -> AsyncIterator[AsyncIterator[bytes]]:
        if address == "-":
            yield request.body
            return
        said = 0

        def report(done: int, total: int) -> None:
            nonlocal said
            if not done:
                say({"status": f"Downloading from {address}"})
            elif done - said >= _STEP or done == total:
                said = done
                say(progress.message(Progress("Importing", "", done, total or None)))

        async with self.images.fetched(address, report) as path:
            yield in_thread(lambda: _pieces(path))

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
                self._publish("load", self.images.get(name))

        return Stream(progress.stream(job, held=-1), eager=False)  # Docker tells all its failures in the stream


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_PIECE):
            yield data


def _changes(query: Query) -> list[str]:
    """`changes`: instructions, one each, or several with line ends between them."""
    return [line for text in query.many("changes") for line in text.split("\n") if line.strip()]


def _is_named(image: Image) -> bool:
    return bool(image.references or image.repo_digests)


def _only_named(image: Image, patterns: tuple[str, ...]) -> Image:
    """The filter `reference`: an image with no names but those that match patterns over `name` and `name:tag`."""

    def chosen(names: tuple[str, ...], mark: str) -> tuple[str, ...]:
        return tuple(
            text for text in names if any(_matches(text, it) or _matches(text.rpartition(mark)[0], it) for it in patterns)
        )

    return replace(image, references=chosen(image.references, ":"), repo_digests=chosen(image.repo_digests, "@"))


def _matches(name: str, pattern: str) -> bool:
    """Go's path.Match: no wildcard stands for a slash."""
    from fnmatch import fnmatchcase  # seldom used

    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _new_name(query: Query) -> Reference:
    """`repo` and `tag`: the name that an image shall get. InvalidArgument."""
    reference = parse(query.text("repo"))
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.familiar_name in DIGEST_ALGORITHMS:
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    tag = query.text("tag")
    return reference.with_tag(tag) if tag else reference.with_default_tag()


def _pull_reference(name: str, tag: str) -> Reference:
    """`fromImage` and `tag`, which may be a digest; without one, all tags are meant. InvalidArgument, Forbidden."""
    reference = parse(name.removesuffix(":"))  # `pull --all-tags` of old clients leaves the colon
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    if not tag:
        return reference
    return reference.with_digest(tag) if is_digest(tag) else reference.with_tag(tag)


def parse_platform(text: str) -> str:
    """The query parameter `platform` in full: "linux/arm64/v8", or "" for the machine's own. InvalidArgument."""
    parts = text.split("/") if text else []
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f'"{text}" is an invalid platform: os[/architecture[/variant]] is expected')
    if len(parts) == 1:
        return "" if text == "linux" else f"linux/{text}"
    return text
