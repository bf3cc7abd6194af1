"""Values and doors of the image room: what it hands out and what it needs from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pyboxd.frozen import frozen
from pyboxd.model import ImageConfig

GATEWAY = "10.0.2.2"  # QEMU's user network: the host's loopback


@frozen
class RegistrySettings:
    """`insecure` holds `host[:port]`; the proxies are URLs, `no_proxy` is the usual comma-separated list.

    `gateway` is the address at which the user's own computer is reached. `mirror`, `host[:port]` or "", has Docker
    Hub's images: pulls ask it in the place of the hub.
    """

    insecure: frozenset[str] = frozenset()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    gateway: str = GATEWAY
    mirror: str = ""


@frozen
class Platform:
    """`os/architecture[/variant]`; "" means any."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@frozen
class HistoryEntry:
    """One line of an image's history, as its configuration carries it (image-spec, config.md)."""

    created: str = ""  # RFC 3339
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@frozen
class ImageDocument:
    """An image configuration: the JSON whose digest is the image's id."""

    architecture: str
    os: str
    config: ImageConfig = ImageConfig()
    layers: tuple[str, ...] = ()  # diff ids, lowest first
    history: tuple[HistoryEntry, ...] = ()
    created: str = ""  # RFC 3339
    author: str = ""
    comment: str = ""
    variant: str = ""
    docker_version: str = ""


@frozen
class Image:
    """An image of the store."""

    id: str  # "sha256:…", the digest of raw_config
    references: tuple[str, ...]  # familiar, with tag: "ubuntu:latest"
    repo_digests: tuple[str, ...]  # familiar: "ubuntu@sha256:…"
    document: ImageDocument
    raw_config: bytes
    size: int  # bytes of file content in all layers
    parent: str  # id of the image it was built on, "" if unknown
    tagged_at: float  # seconds since the epoch, 0 if never tagged

    @property
    def config(self) -> ImageConfig:
        return self.document.config

    @property
    def layers(self) -> tuple[str, ...]:
        """Diff ids, lowest layer first."""
        return self.document.layers

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        return self.document.history

    @property
    def created(self) -> str:
        return self.document.created

    @property
    def author(self) -> str:
        return self.document.author

    @property
    def architecture(self) -> str:
        return self.document.architecture

    @property
    def os(self) -> str:
        return self.document.os

    @property
    def short_id(self) -> str:
        return short_id(self.id)


@frozen
class HistoryItem:
    """One row of `docker history`."""

    id: str  # image id, or "<missing>"
    entry: HistoryEntry
    size: int
    references: tuple[str, ...] = ()


@frozen
class Progress:
    """One message of a pull or load, with the fields of Docker's JSON stream."""

    status: str
    id: str = ""
    current: int | None = None  # bytes done
    total: int | None = None  # bytes expected


@frozen
class Pushed:
    """A tag that a registry has now; `digest` and `size` (in bytes) are its manifest's."""

    tag: str
    digest: str
    size: int


@frozen
class RemoteImage:
    """What a registry has under a name; `size` is that of the manifest or index, in bytes."""

    media_type: str
    digest: str
    size: int
    platforms: tuple[Platform, ...]


@frozen
class SearchResult:
    """A repository that a search has found."""

    name: str
    description: str
    stars: int
    official: bool


@frozen
class Removed:
    """One record of an image removal: exactly one of the first two is set."""

    untagged: str = ""  # familiar reference
    deleted: str = ""  # image id, or a layer's chain id
    image: str = ""  # id of the image that was untagged or deleted; "" for a layer


@frozen
class ImageUse:
    """A container that was made from an image."""

    container_id: str
    running: bool


@frozen
class HelperResult:
    """How a helper program ended."""

    status: int
    stdout: bytes
    stderr: bytes


class HelperOutcome(Protocol):
    """What is read of a helper's result; `HelperResult` is one."""

    @property
    def status(self) -> int: ...
    @property
    def stderr(self) -> bytes: ...


class HelperRunner(Protocol):
    """Runs a program outside the engine (the runtime's spawner does it)."""

    async def run_helper(self, args: Sequence[str], stdin: bytes | None = None, timeout: float = ...) -> HelperOutcome: ...


ProgressSink = Callable[[Progress], None]
ImageUsers = Callable[[str], Sequence[ImageUse]]  # image id -> containers made from it


def short_id(digest: str) -> str:
    """The twelve hex digits that Docker prints for an id."""
    return digest.removeprefix("sha256:")[:12]
