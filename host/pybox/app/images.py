"""Use cases of images: pull, push, load, save, import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from pybox.app.logins import Logins, names_registry, registry_of
from pybox.engine.client import EngineClient, Query
from pybox.errors import EngineError, UsageProblem

CHUNK = 1024 * 1024
ProgressLine = dict[str, Any]
Show = Callable[[ProgressLine], None]


def pull(
    client: EngineClient, logins: Logins, reference: str, show: Show, *, platform: str = "", every: bool = False
) -> None:
    """Pull `reference` ("name", "name:tag", "name@digest"), or `every` tag; each progress object goes to `show`."""
    name, tag = split_reference(reference)
    query = {"fromImage": name, "tag": None if every else tag or "latest", "platform": platform or None}
    headers = {"X-Registry-Auth": logins.header(registry_of(name))}
    _follow(client.json_lines("POST", "/images/create", query, headers=headers), show)


def push(client: EngineClient, logins: Logins, reference: str, show: Show, *, platform: str, every: bool) -> None:
    """Push `reference`, or `every` tag of a repository; of a `platform` ("linux/arm64/v8"), or "" for what is there."""
    import json

    name, tag = split_reference(reference)
    parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False)) if platform else {}
    query = {"tag": None if every else tag or "latest", "platform": json.dumps(parts) if parts else None}
    headers = {"X-Registry-Auth": logins.header(registry_of(name))}
    _follow(client.json_lines("POST", f"/images/{name}/push", query, headers=headers), show)


def load(client: EngineClient, archive: BinaryIO, show: Show) -> None:
    """Load an archive made by `save`, `docker save` or `image bootstrap -o`."""
    headers = {"Content-Type": "application/x-tar"}
    _follow(client.json_lines("POST", "/images/load", {"quiet": False}, pieces(archive), headers), show)


def save(client: EngineClient, references: list[str], output: BinaryIO) -> None:
    """Write an archive of the named images."""
    with client.stream("GET", "/images/get", {"names": references}) as response:
        while data := response.read1():
            output.write(data)


def import_archive(client: EngineClient, archive: BinaryIO | None, query: Query, show: Show) -> None:
    """Make an image of an archive of files; None: of the one at the address in the query's `fromSrc`."""
    body = None if archive is None else pieces(archive)
    _follow(client.json_lines("POST", "/images/create", query, body, {"Content-Type": "application/x-tar"}), show)


def pieces(source: BinaryIO) -> Iterator[bytes]:
    """What a file holds, as a request sends it."""
    while data := source.read(CHUNK):
        yield data


def split_reference(reference: str) -> tuple[str, str]:
    """("registry/name", the tag or digest, or "" when there is neither)."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    head, slash, last = reference.rpartition("/")
    name, colon, tag = last.partition(":")
    if colon and not tag:
        raise UsageProblem("invalid reference format", reference, "Write NAME, NAME:TAG or NAME@DIGEST.")
    return head + slash + name, tag


def full_reference(reference: str) -> str:
    """A reference with everything that it leaves out: "debian" is "docker.io/library/debian:latest"."""
    name, tag = split_reference(reference)
    if not names_registry(name):
        name = f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag or 'latest'}"


def _follow(lines: Iterator[ProgressLine], show: Show) -> None:
    for line in lines:
        if "error" in line:
            raise EngineError(str(line["error"]), status=500)
        show(line)
