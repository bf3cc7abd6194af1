"""The API's lists as Docker's rows: the texts below each column. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pybox.cli.output import ago, moment, size
from pybox.errors import UsageProblem

CONTAINER_COLUMNS = {
    "CONTAINER ID": "ID",
    "IMAGE": "Image",
    "COMMAND": "Command",
    "CREATED": "RunningFor",
    "STATUS": "Status",
    "PORTS": "Ports",
    "NAMES": "Names",
}
IMAGE_COLUMNS = {
    "REPOSITORY": "Repository",
    "TAG": "Tag",
    "IMAGE ID": "ID",
    "CREATED": "CreatedSince",
    "SIZE": "Size",
}


def short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:12]


def container_row(item: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
    """One entry of GET /containers/json as `docker ps --format json` shows it."""
    command = item["Command"]
    if not full and len(command) > 20:
        command = command[:19] + "…"
    row = {
        "ID": item["Id"] if full else short(item["Id"]),
        "Image": item["Image"],
        "Command": json.dumps(command, ensure_ascii=False),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(item["Created"])),
        "RunningFor": f"{ago(time.time() - item['Created'])} ago",
        "Status": item["Status"],
        "State": item["State"],
        "Ports": ports(item.get("Ports") or []),
        "Names": ",".join(name.lstrip("/") for name in item["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())),
        "Networks": ",".join(item.get("NetworkSettings", {}).get("Networks") or {}),
        "Mounts": ",".join(mount.get("Name") or mount.get("Source", "") for mount in item.get("Mounts") or []),
    }
    if "SizeRw" in item:
        row["Size"] = f"{size(item['SizeRw'])} (virtual {size(item.get('SizeRootFs', 0))})"
    return row


def ports(items: Sequence[dict[str, Any]]) -> str:
    """ "0.0.0.0:8080->8080/tcp, 9000/tcp"."""
    texts = []
    for item in sorted(items, key=lambda port: (port["PrivatePort"], port.get("PublicPort", 0))):
        inner = f"{item['PrivatePort']}/{item['Type']}"
        if item.get("PublicPort"):
            address = item.get("IP", "0.0.0.0")
            texts.append(f"{f'[{address}]' if ':' in address else address}:{item['PublicPort']}->{inner}")
        else:
            texts.append(inner)
    return ", ".join(dict.fromkeys(texts))


def image_rows(item: dict[str, Any], *, full: bool = False, digests: bool = False) -> list[dict[str, Any]]:
    """One entry of GET /images/json: a row for each tag."""
    names = [tag.rpartition(":")[::2] for tag in item.get("RepoTags") or []] or [("<none>", "<none>")]
    known = {text.partition("@")[0]: text.partition("@")[2] for text in item.get("RepoDigests") or []}
    return [
        {
            "Repository": name,
            "Tag": tag,
            "Digest": known.get(name, "<none>"),
            "ID": item["Id"] if full else short(item["Id"]),
            "CreatedSince": f"{ago(time.time() - item['Created'])} ago",
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(item["Created"])),
            "Size": size(item["Size"]),
        }
        for name, tag in names
    ]


def filter_query(texts: Iterable[str]) -> str | None:
    """`--filter key=value …` -> the API's JSON."""
    found: dict[str, dict[str, bool]] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageProblem(f"invalid filter '{text}'", resolution="Write --filter KEY=VALUE")
        found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return json.dumps(found) if found else None


def moment_query(text: str | None, now: float | None = None) -> str | None:
    """`--since`: a number of seconds, a time, or a span before now -> Unix seconds."""
    if text is None:
        return None
    if text.replace(".", "", 1).isdigit():
        return text
    if "T" in text or text.count("-") == 2:
        try:
            return f"{moment(text if 'T' in text else text + 'T00:00:00').timestamp():.6f}"
        except ValueError:
            raise UsageProblem(f"invalid value for a time: '{text}'", resolution="Write 2026-01-02T13:23:37Z") from None
    from pybox.app import options

    start = time.time() if now is None else now
    return f"{start - options.duration(text) / 1e9:.6f}"
