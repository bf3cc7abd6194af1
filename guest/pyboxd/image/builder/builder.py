"""The Dockerfile builder: an uploaded context in, an image out, printed as Docker's classic builder prints.

A build has a folder of its own below `temporary`, which is gone when the build ends, however it ends. Stages that the
target does not need are not built.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable

from pyboxd import locations
from pyboxd.database import Database
from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.frozen import replace
from pyboxd.image.builder import cachefrom, words
from pyboxd.image.builder.arguments import GlobalArguments, platform_arguments
from pyboxd.image.builder.cache import Cache
from pyboxd.image.builder.context import apply_ignore_file, read_dockerfile, receive
from pyboxd.image.builder.contexttree import ContextTree
from pyboxd.image.builder.doors import BuildOutput, BuildRequest, ImageStore, OutputSink, StepRunner
from pyboxd.image.builder.instructions import Instruction, Label
from pyboxd.image.builder.parser import parse
from pyboxd.image.builder.session import Session, architecture_of
from pyboxd.image.builder.stagebuild import StageBuild
from pyboxd.image.builder.stages import Stage, divide, needed, with_bases
from pyboxd.image.model import Image
from pyboxd.image.reference import parse as parse_reference

CACHE_MOUNTS = f"{locations.DATA}/buildcache"


class Builder:
    """Builds images; several builds may run at once."""

    def __init__(
        self,
        images: ImageStore,
        runner: StepRunner,
        database: Database,
        temporary: str = locations.TEMPORARY,
        *,
        cache_mounts: str = CACHE_MOUNTS,
    ) -> None:
        self._images = images
        self._runner = runner
        self._cache = Cache(database)
        self._temporary = temporary
        self._cache_mounts = cache_mounts
        self._cache_locks: dict[str, asyncio.Lock] = {}

    async def build(self, request: BuildRequest, context: AsyncIterator[bytes], output: OutputSink) -> Image:
        """Build and tag. BuildFailed for a failed RUN, another PyboxdError for everything else that goes wrong."""
        tags = [parse_reference(tag).with_default_tag() for tag in request.tags]
        folder = f"{self._temporary}/build-{secrets.token_hex(16)}"
        os.makedirs(f"{folder}/empty")
        os.chmod(f"{folder}/empty", 0o755)
        try:
            tree = await receive(context, f"{folder}/context")
            with contextlib.closing(tree):
                session = self._session(request, tree, output, folder)
                self._find_cache_sources(session)
                image = await self._stages(session)
        except OSError as error:
            raise SystemFailure(f"build: {error.strerror or error}") from error
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
        output(BuildOutput(image_id=image.id))
        session.say(f"Successfully built {image.short_id}\n")
        for tag in tags:
            self._images.tag(image.id, str(tag))
            session.say(f"Successfully tagged {tag.familiar}\n")
        if request.quiet:
            output(BuildOutput(stream=f"{image.id}\n"))
        return self._images.get(image.id)

    def forget_cache(self) -> None:
        """Drop the records of all steps and the caches of `RUN --mount=type=cache`."""
        self._cache.forget()
        shutil.rmtree(self._cache_mounts, ignore_errors=True)

    def _session(self, request: BuildRequest, context: ContextTree, output: OutputSink, folder: str) -> Session:
        name = request.dockerfile or "Dockerfile"
        recipe = divide(parse(read_dockerfile(context, name), name))
        apply_ignore_file(context, name)
        arguments = self._arguments(request)
        for argument in recipe.arguments:
            for written, default in argument.arguments:
                known = arguments.for_bases()
                value = None if default is None else words.expand(default, known, recipe.escape)
                arguments.declare(words.expand(written, known, recipe.escape), value)
        return Session(
            images=self._images,
            runner=self._runner,
            cache=self._cache,
            request=request,
            output=output,
            folder=folder,
            cache_mounts=self._cache_mounts,
            cache_locks=self._cache_locks,
            context=context,
            recipe=with_bases(recipe, arguments.for_bases()),
            arguments=arguments,
        )

    def _find_cache_sources(self, session: Session) -> None:
        session.cache_sources, missing = cachefrom.sources(self._images, session.request.cache_from)
        for name in missing:
            session.say(f"[Warning] {name} serves as no cache: it is not here; pull it before the build\n")

    def _arguments(self, request: BuildRequest) -> GlobalArguments:
        own = f"linux/{self._images.architecture}"
        target = own
        if request.platform:
            architecture = architecture_of(request.platform) or self._images.architecture
            variant = "/".join(request.platform.split("/")[2:])
            target = f"linux/{architecture}" + (f"/{variant}" if variant else "")
        return GlobalArguments(request.args, platform_arguments(target, own))

    async def _stages(self, session: Session) -> Image:
        request = session.request
        stages = list(needed(session.recipe, request.target))
        if request.labels:
            stages[-1] = _with_labels(stages[-1], request)
        first = session.recipe.arguments
        say_step = _step_printer(session, len(first) + sum(1 + len(stage.instructions) for stage in stages))
        for argument in first:
            say_step(argument)
        for stage in stages:
            session.results[stage.index] = await StageBuild(session, stage, say_step).run()
        image = session.results[stages[-1].index].image
        if image is None:
            raise InvalidArgument("No image was generated. Is your Dockerfile empty?")
        unused = session.arguments.not_consumed()
        if unused:
            session.say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
        return image


def _step_printer(session: Session, total: int) -> Callable[[Instruction], None]:
    numbers = iter(range(1, total + 1))

    def say(instruction: Instruction) -> None:
        session.say(f"Step {next(numbers)}/{total} : {instruction.text}\n")

    return say


def _with_labels(stage: Stage, request: BuildRequest) -> Stage:
    """`--label`s are a last LABEL of the target."""
    pairs = tuple((_literal(name), _literal(value)) for name, value in request.labels.items())
    text = "LABEL" + "".join(f" {name}={value}" for name, value in request.labels.items())
    return replace(stage, instructions=(*stage.instructions, Label(stage.start.line, text, pairs)))


def _literal(text: str) -> str:
    """`text` so that nothing in it is expanded."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
