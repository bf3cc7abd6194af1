"""What all stages of one build share: its folder, its doors, and what was built so far."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.frozen import frozen
from pyboxd.image.builder.arguments import GlobalArguments
from pyboxd.image.builder.cache import Cache
from pyboxd.image.builder.contexttree import ContextTree
from pyboxd.image.builder.doors import BuildOutput, BuildRequest, ImageStore, OutputSink, StepRunner
from pyboxd.image.builder.stages import Recipe, Stage, find
from pyboxd.image.model import Image, Progress
from pyboxd.image.reference import parse
from pyboxd.model import ImageConfig

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


@frozen
class StageResult:
    """A finished stage."""

    image: Image | None  # None: scratch, and nothing was done to it
    config: ImageConfig
    arguments: Mapping[str, str]  # that the stage declared; stages built on it see them
    author: str = ""


@frozen
class StepFolder:
    """The writable part of an overlay for one step."""

    upper: str
    work: str

    def is_empty(self) -> bool:
        """Whether the step changed nothing."""
        with os.scandir(self.upper) as entries:
            return next(entries, None) is None

    def remove(self) -> None:
        """Give the space back; blocking."""
        shutil.rmtree(os.path.dirname(self.upper), ignore_errors=True)


@dataclass
class Session:
    """One build."""

    images: ImageStore
    runner: StepRunner
    cache: Cache
    request: BuildRequest
    output: OutputSink
    folder: str
    cache_mounts: str  # directory of `RUN --mount=type=cache`
    cache_locks: dict[str, asyncio.Lock]  # of those that one RUN of all builds at a time may use
    context: ContextTree
    recipe: Recipe
    arguments: GlobalArguments
    cache_sources: tuple[Image, ...] = ()
    results: dict[int, StageResult] = field(default_factory=dict)
    _steps: int = 0

    @property
    def empty(self) -> str:
        """An empty directory, the only layer of an image that has none."""
        return f"{self.folder}/empty"

    def say(self, text: str) -> None:
        """Print, unless the build is quiet."""
        if text and not self.request.quiet:
            self.output(BuildOutput(stream=text))

    def new_folder(self, what: str) -> str:
        """A new directory of this build."""
        self._steps += 1
        path = f"{self.folder}/{what}-{self._steps}"
        os.mkdir(path)
        return path

    def new_step(self) -> StepFolder:
        """Folders for a step that writes."""
        path = self.new_folder("step")
        step = StepFolder(f"{path}/upper", f"{path}/work")
        os.mkdir(step.upper)
        os.chmod(step.upper, 0o755)  # the mode of `/` while the step runs
        os.mkdir(step.work)
        return step

    async def lower(self, image: Image | None) -> tuple[str, ...]:
        """The image's mounted layers, top first."""
        return await self.images.mount_layers(image) if image else ()

    async def source_image(self, name: str, stage: Stage) -> Image | None:
        """What `--from=name` means in that stage. InvalidArgument, NotFound and what a pull raises."""
        found = find(self.recipe.stages[: stage.index], name)
        if found is not None:
            return self.results[found.index].image
        if name.isascii() and name.isdigit():
            raise InvalidArgument(f"invalid from flag value {name}: there is no stage of that number before this one")
        return await self.base_image(name, "")

    async def base_image(self, name: str, platform: str) -> Image:
        """An image of the store, pulled if it is not there, is for another platform, or shall be pulled."""
        wanted = platform or self.request.platform
        if not self.request.pull:
            try:
                image = self.images.get(name)
            except NotFound:
                pass
            else:
                if not wanted or architecture_of(wanted) in ("", image.architecture):
                    return image
        reference = parse(name)
        auth = self.request.auth(reference.domain)
        return await self.images.pull(name, platform=wanted, auth=auth, progress=self._progress)

    def _progress(self, progress: Progress) -> None:
        if not self.request.quiet:
            self.output(BuildOutput(progress=progress))


def architecture_of(platform: str) -> str:
    """The architecture that `os/architecture`, or one of the two alone, names; "" for none."""
    parts = platform.lower().split("/")
    name = parts[1] if len(parts) > 1 else ("" if parts[0] == "linux" else parts[0])
    return _ARCHITECTURES.get(name, name)
