"""Docker's JSON of images."""

from __future__ import annotations

from collections.abc import Sequence

from pyboxd.api.fields import JsonObject
from pyboxd.api.schema.config import HEALTHCHECK
from pyboxd.engine.timestamps import parse_rfc3339, rfc3339
from pyboxd.errors import InvalidArgument
from pyboxd.image.model import HistoryItem, Image, Removed
from pyboxd.model import ImageConfig


def created_at(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 date in an image; 0 for none."""
    try:
        return parse_rfc3339(text) // 10**9 if text else 0
    except InvalidArgument:
        return 0


def summary(image: Image, containers: int) -> JsonObject:
    """One entry of the list; `containers` is how many were made from it."""
    return {
        "Containers": containers,
        "Created": created_at(image.created),
        "Id": image.id,
        "Labels": dict(image.config.labels) or None,
        "ParentId": image.parent,
        "RepoDigests": list(image.repo_digests),
        "RepoTags": list(image.references),
        "SharedSize": -1,
        "Size": image.size,
    }


def inspect(image: Image) -> JsonObject:
    """GET /images/{name}/json."""
    document = image.document
    value: JsonObject = {
        "Id": image.id,
        "RepoTags": list(image.references),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": document.comment,
        "Created": image.created or rfc3339(0),
        "DockerVersion": document.docker_version,
        "Author": image.author,
        "Config": config(image.config),
        "Architecture": image.architecture,
    }
    if document.variant:
        value["Variant"] = document.variant
    return value | {
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)} if image.layers else {"Type": "layers"},
        "Metadata": {"LastTagTime": rfc3339(int(image.tagged_at * 10**9))},
    }


def config(image: ImageConfig) -> JsonObject:
    """`Config` of an image: a container's configuration with the keys that images do not set at their zero values."""
    value: JsonObject = {
        "Hostname": "",
        "Domainname": "",
        "User": image.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
    }
    if image.exposed_ports:
        value["ExposedPorts"] = {port: {} for port in image.exposed_ports}
    value |= {
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(image.env) or None,
        "Cmd": None if image.cmd is None else list(image.cmd),
        "Image": "",
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
