"""What the builder takes, what it hands out, and what it needs from others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pyboxd.errors import PyboxdError
from pyboxd.frozen import frozen
from pyboxd.image.layerstore import Layer
from pyboxd.image.model import HistoryEntry, Image, Progress, ProgressSink
from pyboxd.model import EMPTY, ImageConfig, RegistryAuth

BuildArguments = Mapping[str, "str | None"]
NO_ARGUMENTS: BuildArguments = {}


class BuildFailed(PyboxdError):
    """A command of the Dockerfile ended with a status other than 0; `code` is that status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@frozen
class BuildRequest:
    """One build, as the query of `POST /build` describes it."""

    dockerfile: str = "Dockerfile"  # path inside the context
    tags: tuple[str, ...] = ()  # references that the result gets
    args: BuildArguments = NO_ARGUMENTS  # None: named, but without a value
    labels: Mapping[str, str] = EMPTY
    target: str = ""  # name or number of the last stage to build; "" is the last one
    no_cache: bool = False
    pull: bool = False  # ask the registry for base images even when they are here
    quiet: bool = False  # print the image's id and nothing else
    remove: bool = True  # say that intermediate containers are removed (they always are)
    network: str = ""  # network mode of RUN; "" is the default network
    memory: int = 0  # bytes; 0 is no limit
    shm_size: int = 0  # bytes of /dev/shm; 0 is the default
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    platform: str = ""  # "os/architecture[/variant]"; "" is this machine's
    cache_from: tuple[str, ...] = ()  # images of the store whose steps serve like those of earlier builds
    auth: Callable[[str], RegistryAuth | None] = lambda _: None  # registry ("docker.io") -> credentials


@frozen
class BuildOutput:
    """One message of a build: exactly one of the three is set."""

    stream: str = ""  # text for the user, with its line ends
    image_id: str = ""  # the finished image
    progress: Progress | None = None  # of a pull


OutputSink = Callable[[BuildOutput], None]


@frozen
class StepMount:
    """A mount that exists only while a RUN runs."""

    kind: str  # "bind" | "tmpfs"
    source: str  # path in the guest; "" for tmpfs
    target: str  # absolute path in the container
    readonly: bool = False
    size: int = 0  # bytes of a tmpfs; 0 is the kernel's default
    mode: int = 0o1777  # of a tmpfs


@frozen
class RunStep:
    """One command to run in a container over the layers of the image so far."""

    lower: tuple[str, ...]  # overlay lower directories, top first; empty over `scratch`
    upper: str  # changes are written here
    work: str  # overlayfs's own, on the same file system as `upper`
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str = "/"
    user: str = ""  # Docker's USER
    hostname: str = ""
    network: str = ""  # "" default | "none" | "host" | name of a network
    memory: int = 0  # bytes; 0 is no limit
    shm_size: int = 0  # bytes; 0 is the default
    extra_hosts: tuple[str, ...] = ()
    mounts: tuple[StepMount, ...] = ()


class StepRunner(Protocol):
    """Runs one step and waits for it; the engine's."""

    async def run(self, step: RunStep, output: Callable[[int, bytes], None]) -> int:
        """Status of the command. `output` gets (1 stdout | 2 stderr, bytes). PyboxdError if it cannot start."""
        ...


class ImageStore(Protocol):
    """The part of the store of images that the builder uses."""

    @property
    def architecture(self) -> str: ...
    def get(self, name: str) -> Image: ...
    async def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None, progress: ProgressSink
    ) -> Image: ...
    async def mount_layers(self, image: Image) -> tuple[str, ...]: ...
    def layer(self, diff_id: str) -> Layer | None: ...
    def add(self, raw: bytes, layers: Sequence[Layer], *, parent: str = "") -> Image: ...
    def set_parent(self, image_id: str, parent: str) -> None: ...
    async def commit(
        self, parent: Image | None, upper: str | None, config: ImageConfig, entry: HistoryEntry, *, author: str = ""
    ) -> Image: ...
    def tag(self, image_id: str, reference: str) -> None: ...
