"""What an image was made of: `manifest.json` beside it, and a copy inside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pybox_image.debian.index import Package
from pybox_image.errors import ImageError

FILE = "manifest.json"
IN_ROOT = "usr/lib/pybox/manifest.json"


@dataclass(frozen=True)
class PackageEntry:
    """A package in the image, with the hash of the .deb that it came from."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What goes into an image. `id` is a hash of all its files as they are before the bake; the same id means the
    same files in the guest. The guest code is not part of it: it travels beside the image.
    """

    id: str
    suite: str
    architecture: str
    kernel: str
    packages: tuple[PackageEntry, ...]


@dataclass(frozen=True)
class Manifest:
    """A finished image: its contents, and size in bytes and SHA-256 of each of its files by name."""

    contents: Contents
    files: dict[str, tuple[int, str]]

    @property
    def id(self) -> str:
        return self.contents.id


def contents(suite: str, architecture: str, kernel: str, packages: Iterable[Package], parts: Iterable[bytes]) -> Contents:
    """Describe an image that is to be made of `parts`: the raw tree, the initrd, what the bake runs."""
    entries = tuple(sorted((PackageEntry(item.name, item.version, item.sha256) for item in packages), key=_by_name))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return Contents(digest.hexdigest()[:16], suite, architecture, kernel, entries)


def _by_name(entry: PackageEntry) -> str:
    return entry.name


def contents_json(described: Contents) -> bytes:
    """Return the copy for inside the image."""
    return (json.dumps(asdict(described), indent=1) + "\n").encode()


def to_json(manifest: Manifest) -> bytes:
    """Return the text of `manifest.json`."""
    files = {name: {"size": size, "sha256": digest} for name, (size, digest) in manifest.files.items()}
    return (json.dumps({**asdict(manifest.contents), "files": files}, indent=1) + "\n").encode()


def read(folder: Path) -> Manifest:
    """Read the manifest of the image in `folder`. Raises ImageError when there is none or it is damaged."""
    path = folder / FILE
    try:
        return _decode(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(
            f"there is no usable guest image in {folder}", f"{FILE}: {error}", "Build the image again."
        ) from None


def _decode(value: Any) -> Manifest:
    packages = tuple(PackageEntry(**entry) for entry in value["packages"])
    described = Contents(value["id"], value["suite"], value["architecture"], value["kernel"], packages)
    files = {name: (int(item["size"]), str(item["sha256"])) for name, item in value["files"].items()}
    return Manifest(described, files)
