"""`pybox build`: packs the context (honouring .dockerignore) and follows the engine's answer."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pybox.app.ignore import IgnoreRules
from pybox.app.logins import Logins
from pybox.app.tarstream import packed
from pybox.engine.client import EngineClient, Query
from pybox.errors import EngineError, UsageProblem
from pybox.frozen import frozen


@frozen
class BuildRequest:
    """One build. `dockerfile` is relative to the context unless it is absolute or "-" (read from `dockerfile_text`)."""

    context: Path
    dockerfile: str = "Dockerfile"
    dockerfile_text: bytes | None = None
    tags: tuple[str, ...] = ()
    build_args: tuple[tuple[str, str | None], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    target: str = ""
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    network: str = ""
    memory: int = 0
    shm_size: int = 0
    add_hosts: tuple[str, ...] = ()
    platform: str = ""


def build(client: EngineClient, request: BuildRequest, logins: Logins, show: Callable[[str], None]) -> str:
    """Build; the image's id. Raises EngineError with the failed step's exit status in `exit_code`."""
    name, extra = _dockerfile(request)
    query: Query = {
        "t": list(request.tags),
        "dockerfile": name,
        "buildargs": json.dumps(dict(request.build_args)),
        "labels": json.dumps(dict(request.labels)),
        "target": request.target or None,
        "nocache": request.no_cache,
        "pull": request.pull,
        "q": request.quiet,
        "rm": True,
        "networkmode": request.network or None,
        "memory": request.memory or None,
        "shmsize": request.shm_size or None,
        "extrahosts": list(request.add_hosts),
        "platform": request.platform or None,
        "version": 1,
    }
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": logins.configuration_header()}
    return follow(client.json_lines("POST", "/build", query, _stream(request, name, extra), headers), show)


def follow(lines: Iterator[dict[str, Any]], show: Callable[[str], None]) -> str:
    """Hand the build's text on as it comes; the image id it ends with."""
    image = ""
    for line in lines:
        if "error" in line:
            code = int(line.get("errorDetail", {}).get("code") or 1)
            raise EngineError(str(line["error"]), status=500, exit_code=code)
        if "aux" in line:
            image = str(line["aux"].get("ID", image))
        if text := line.get("stream") or line.get("status"):
            show(str(text))
    return image


def _dockerfile(request: BuildRequest) -> tuple[str, bytes | None]:
    """The Dockerfile's name inside the context, and its content when it lies outside."""
    if not request.context.is_dir():
        raise UsageProblem(
            "unable to prepare context",
            f"path {str(request.context)!r} not found",
            "Name a folder with a Dockerfile.",
        )
    if request.dockerfile_text is not None:
        return ".dockerfile.stdin", request.dockerfile_text
    path = Path(request.dockerfile)
    if not path.is_absolute() and (request.context / path).is_file():
        return path.as_posix(), None
    if path.is_file():
        resolved, context = path.resolve(), request.context.resolve()
        if resolved.is_relative_to(context):
            return resolved.relative_to(context).as_posix(), None
        return ".dockerfile.outside", path.read_bytes()
    missing = path if path.is_absolute() else request.context / path
    raise UsageProblem(
        "unable to prepare context: unable to evaluate symlinks in Dockerfile path",
        f"lstat {missing}: no such file or directory",
        "Write a Dockerfile there, or name another with -f.",
    )


def _stream(request: BuildRequest, dockerfile: str, extra: bytes | None) -> Iterator[bytes]:
    """The context as a tar stream."""

    def fill(archive: tarfile.TarFile) -> None:
        for path, name in _files(request.context, dockerfile):
            _add(archive, path, name)
        if extra is not None:
            info = tarfile.TarInfo(dockerfile)
            info.size = len(extra)
            archive.addfile(info, io.BytesIO(extra))

    return packed(fill)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    info = archive.gettarinfo(str(path), name)
    if info is None:  # a socket: no tar holds one
        return
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if info.isreg():
        with path.open("rb") as file:
            archive.addfile(info, file)
    else:
        archive.addfile(info)


def _files(context: Path, dockerfile: str) -> Iterator[tuple[Path, str]]:
    rules = _rules(context, dockerfile)
    kept = {dockerfile, ".dockerignore"}
    for folder, folders, files in os.walk(context):
        base = Path(folder).relative_to(context).as_posix()
        prefix = "" if base == "." else f"{base}/"
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in links and not rules.may_skip_folder(prefix + name))
        for name in sorted([*folders, *files, *links]):
            relative = prefix + name
            if relative in kept or not rules.excludes(relative):
                yield Path(folder) / name, relative


def _rules(context: Path, dockerfile: str) -> IgnoreRules:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = context / name
        if path.is_file():
            return IgnoreRules(path.read_text(errors="replace"))
    return IgnoreRules("")
