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
CONTAINER_HEADINGS = {"CreatedAt": "CREATED AT", "LocalVolumes": "LOCAL VOLUMES"}
IMAGE_COLUMNS = {
    "REPOSITORY": "Repository",
    "TAG": "Tag",
    "IMAGE ID": "ID",
    "CREATED": "CreatedSince",
    "SIZE": "Size",
}
IMAGE_HEADINGS = {"CreatedAt": "CREATED AT", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE"}


def short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:12]


def container_row(item: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
    """One entry of GET /containers/json as `docker ps --format json` shows it."""
    command = item["Command"]
    if not full and len(command) > 20:
        command = command[:19] + "…"
    mounts = item.get("Mounts") or []
    return {
        "ID": item["Id"] if full else short(item["Id"]),
        "Image": item["Image"],
        "Command": json.dumps(command, ensure_ascii=False),
        "CreatedAt": moment_text(item["Created"]),
        "RunningFor": f"{ago(time.time() - item['Created'])} ago",
        "Status": item["Status"],
        "State": item["State"],
        "Ports": ports(item.get("Ports") or []),
        "Names": ",".join(name.lstrip("/") for name in item["Names"]),
        "Labels": labels(item),
        "Networks": ",".join(item.get("NetworkSettings", {}).get("Networks") or {}),
        "Mounts": ",".join(_mount(mount, full=full) for mount in mounts),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.get("Driver") == "local")),
        "Platform": None,
        "Size": _sizes(item),
    }


def _sizes(item: dict[str, Any]) -> str:
    own, whole = size(item.get("SizeRw", 0)), item.get("SizeRootFs", 0)
    return f"{own} (virtual {size(whole)})" if whole else own


def _mount(mount: dict[str, Any], *, full: bool) -> str:
    name = str(mount.get("Name") or mount.get("Source", ""))
    return name if full or len(name) <= 15 else f"{name[:14]}…"


def labels(item: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items()))


def moment_text(seconds: float) -> str:
    """A time as lists have it: "2026-11-25 12:37:18 +0000 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def ports(items: Sequence[dict[str, Any]]) -> str:
    """ "0.0.0.0:8080->80/tcp, 9000-9002/tcp": ports in a row that the host has under the same numbers stand together."""
    texts: list[str] = []
    moved: list[str] = []
    runs: dict[str, list[int]] = {}  # what they have in common -> [first, last]
    for item in sorted(items, key=lambda port: (port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0))):
        address, number, kind = item.get("IP", ""), item["PrivatePort"], item["Type"]
        shown = f"[{address}]" if ":" in address else address
        if address and item.get("PublicPort") != number:
            moved.append(f"{shown}:{item.get('PublicPort')}->{number}/{kind}")
            continue
        key = f"{shown}/{kind}"
        run = runs.setdefault(key, [number, number])
        if number > run[1] + 1:
            texts.append(_run(key, run))
            runs[key] = run = [number, number]
        run[1] = number
    return ", ".join([*texts, *(_run(key, run) for key, run in runs.items()), *moved])


def _run(key: str, run: Sequence[int]) -> str:
    address, _, kind = key.rpartition("/")
    numbers = f"{run[0]}" if run[0] == run[1] else f"{run[0]}-{run[1]}"
    return f"{address}:{numbers}->{numbers}/{kind}" if address else f"{numbers}/{kind}"


def image_rows(item: dict[str, Any], *, full: bool = False) -> list[dict[str, Any]]:
    """One entry of GET /images/json: a row for each tag, with the digest that its repository knows the image by."""
    names = [tag.rpartition(":")[::2] for tag in item.get("RepoTags") or []]
    known = {text.partition("@")[0]: text.partition("@")[2] for text in item.get("RepoDigests") or []}
    names += [(name, "<none>") for name in known if name not in dict(names)]
    shared, containers = item.get("SharedSize", -1), item.get("Containers", -1)
    return [
        {
            "Repository": name,
            "Tag": tag,
            "Digest": known.get(name, "<none>"),
            "ID": item["Id"] if full else short(item["Id"]),
            "CreatedSince": f"{ago(time.time() - item['Created'])} ago",
            "CreatedAt": moment_text(item["Created"]),
            "Size": size(item["Size"]),
            "SharedSize": "N/A" if shared < 0 else size(shared),
            "UniqueSize": "N/A" if shared < 0 else size(item["Size"] - shared),
            "VirtualSize": size(item["Size"], digits=4),
            "Containers": "N/A" if containers < 0 else str(containers),
        }
        for name, tag in names or [("<none>", "<none>")]
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
