"""Use cases of images: pull, load, save."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pybox.engine.client import EngineClient
from pybox.errors import EngineError, UsageProblem

CHUNK = 1024 * 1024
ProgressLine = dict[str, Any]


def pull(client: EngineClient, reference: str, show: Callable[[ProgressLine], None], *, platform: str = "") -> None:
    """Pull `reference` ("name", "name:tag", "name@digest"); each progress object goes to `show`."""
    name, tag = split_reference(reference)
    query = {"fromImage": name, "tag": tag, "platform": platform or None}
    headers = {"X-Registry-Auth": registry_auth(registry_of(name))}
    for line in client.json_lines("POST", "/images/create", query, headers=headers):
        _raise(line)
        show(line)


def load(client: EngineClient, archive: BinaryIO, show: Callable[[ProgressLine], None]) -> None:
    """Load an archive made by `save`, `docker save` or `image bootstrap -o`."""

    def pieces() -> Iterator[bytes]:
        while data := archive.read(CHUNK):
            yield data

    headers = {"Content-Type": "application/x-tar"}
    for line in client.json_lines("POST", "/images/load", {"quiet": False}, pieces(), headers):
        _raise(line)
        show(line)


def save(client: EngineClient, references: list[str], output: BinaryIO) -> None:
    """Write an archive of the named images."""
    with client.stream("GET", "/images/get", {"names": references}) as response:
        while data := response.read1():
            output.write(data)


def split_reference(reference: str) -> tuple[str, str]:
    """("registry/name", "tag" or digest); without a tag "latest"."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    head, slash, last = reference.rpartition("/")
    name, colon, tag = last.partition(":")
    if colon and not tag:
        raise UsageProblem("invalid reference format", reference, "Write NAME, NAME:TAG or NAME@DIGEST.")
    return head + slash + name, tag or "latest"


def registry_of(name: str) -> str:
    """The registry that `name` belongs to, as Docker's config.json names it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return "https://index.docker.io/v1/"


def registry_auth(registry: str, config: Path | None = None) -> str:
    """The X-Registry-Auth header for `registry`, from the Docker client's own configuration (read, never written)."""
    path = config or Path.home() / ".docker" / "config.json"
    try:
        entry = json.loads(path.read_text()).get("auths", {}).get(registry, {})
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (OSError, ValueError, AttributeError):
        user = password = ""
    known = {"username": user, "password": password, "serveraddress": registry} if user else {}
    return base64.urlsafe_b64encode(json.dumps(known).encode()).decode()


def _raise(line: ProgressLine) -> None:
    if "error" in line:
        raise EngineError(str(line["error"]), status=500)
