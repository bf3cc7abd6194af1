"""Docker's JSON of images."""

from __future__ import annotations

from collections.abc import Sequence

from pyboxd.api.fields import JsonObject
from pyboxd.api.schema.config import HEALTHCHECK
from pyboxd.engine.timestamps import parse_rfc3339, rfc3339
from pyboxd.errors import InvalidArgument
from pyboxd.image.model import HistoryItem, Image, Removed
from pyboxd.model import ImageConfig

Version = tuple[int, int]  # of the API
NEWEST: Version = (1, 51)
# Since when clients are told so (moby, api/docs/CHANGELOG.md).
_NAMELESS_IS_EMPTY: Version = (1, 43)
_NO_VIRTUAL_SIZE: Version = (1, 44)
_NO_CONTAINER: Version = (1, 45)
_IMAGE_CONFIG: Version = (1, 50)
_CONTAINERS_COUNTED: Version = (1, 51)
_OF_CONTAINERS: JsonObject = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def created_at(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 date in an image; 0 for none."""
    try:
        return parse_rfc3339(text) // 10**9 if text else 0
    except InvalidArgument:
        return 0


def summary(image: Image, containers: int, version: Version = NEWEST, shared: int = -1) -> JsonObject:
    """One entry of the list; `containers` is how many were made from it, `shared` how many bytes of its layers other
    images have, too (-1: not asked for)."""
    tags, digests = list(image.references), list(image.repo_digests)
    if version < _NAMELESS_IS_EMPTY and not tags and not digests:
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    value: JsonObject = {
        "Containers": containers if version >= _CONTAINERS_COUNTED else -1,
        "Created": created_at(image.created),
        "Id": image.id,
        "Labels": dict(image.config.labels) or None,
        "ParentId": image.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.size,
    }
    return value if version >= _NO_VIRTUAL_SIZE else value | {"VirtualSize": image.size}


def inspect(image: Image, version: Version = NEWEST) -> JsonObject:
    """GET /images/{name}/json."""
    document = image.document
    value: JsonObject = {
        "Id": image.id,
        "RepoTags": list(image.references),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": document.comment or (document.history[-1].comment if document.history else ""),
        "Created": image.created or rfc3339(0),
        "DockerVersion": document.docker_version,
        "Author": image.author,
        "Config": config(image.config, version),
        "Architecture": image.architecture,
    }
    if document.variant:
        value["Variant"] = document.variant
    if version < _NO_CONTAINER:
        value |= {"Container": "", "ContainerConfig": config(ImageConfig(), version)}
    if version < _NO_VIRTUAL_SIZE:
        value["VirtualSize"] = image.size
    return value | {
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)} if image.layers else {"Type": "layers"},
        "Metadata": {"LastTagTime": rfc3339(int(image.tagged_at * 10**9))},
    }


def config(image: ImageConfig, version: Version = NEWEST) -> JsonObject:
    """`Config` of an image. Old clients get the keys of containers, too, which images do not set."""
    value: JsonObject = dict(_OF_CONTAINERS) if version < _IMAGE_CONFIG else {}
    if image.exposed_ports:
        value["ExposedPorts"] = {port: {} for port in image.exposed_ports}
    value |= {
        "User": image.user,
        "Env": list(image.env) or None,
        "Cmd": None if image.cmd is None else list(image.cmd),
        "Volumes": {path: {} for path in image.volumes} or None,
        "WorkingDir": image.working_dir,
        "Entrypoint": None if image.entrypoint is None else list(image.entrypoint),
        "OnBuild": list(image.on_build) or None,
        "Labels": dict(image.labels) or None,
    }
    if image.healthcheck is not None:
        value["Healthcheck"] = HEALTHCHECK.encode(image.healthcheck)
    if image.stop_signal:
        value["StopSignal"] = image.stop_signal
    if image.shell:
        value["Shell"] = list(image.shell)
    return value


def history(items: Sequence[HistoryItem]) -> list[JsonObject]:
    """GET /images/{name}/history, newest first."""
    return [
        {
            "Comment": item.entry.comment,
            "Created": created_at(item.entry.created),
            "CreatedBy": item.entry.created_by,
            "Id": item.id,
            "Size": item.size,
            "Tags": list(item.references) or None,
        }
        for item in items
    ]


def removed(items: Sequence[Removed]) -> list[JsonObject]:
    """What a removal did."""
    return [{"Untagged": item.untagged} if item.untagged else {"Deleted": item.deleted} for item in items]
