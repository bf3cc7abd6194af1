"""`pybox cp`: files between a container and this computer, with docker's rules of where they end up.

A path may end in "/." (the content of the folder) or "/" (the folder, or what a link to it points at). Nothing is kept
on the way: the archive that the engine reads or writes goes through.
"""

from __future__ import annotations

import base64
import io
import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pybox.app.extraction import extract
from pybox.app.images import pieces
from pybox.app.tarstream import packed
from pybox.engine.client import EngineClient, Query
from pybox.engine.http import Response
from pybox.errors import EngineError, PyboxError, UsageProblem
from pybox.frozen import frozen

Count = Callable[[int], None]  # bytes that have gone through since the last call

_STAT = "x-docker-container-path-stat"
_FOLDER, _LINK, _DEVICE, _IRREGULAR = 1 << 31, 1 << 27, 1 << 26, 1 << 19  # Go's os.FileMode
_MOST_LINKS = 40  # one behind the other, as Linux


@frozen
class InContainer:
    """A path in a container."""

    container: str
    path: str

    def __str__(self) -> str:
        return f"{self.container}:{self.path}"


@frozen
class _Found:
    """What a path in a container is; `mode` is Go's."""

    name: str
    mode: int
    target: str  # of a link, as seen from the container's root


def place(text: str) -> InContainer | str:
    """ "web:/etc" is a path in a container; "/etc", "./a:b" and "-" are of this computer."""
    name, colon, path = text.partition(":")
    if Path(text).is_absolute() or not colon or name.startswith("."):
        return text
    return InContainer(name, path)


def to_stream(client: EngineClient, source: InContainer, output: BinaryIO, *, follow: bool) -> None:
    """Write the tar archive of `source`. Raises EngineError."""
    path, _ = _source(client, source, follow)
    with client.stream("GET", _archive(source), {"path": path}) as response:
        while data := response.read1():
            output.write(data)


def from_container(client: EngineClient, source: InContainer, target: str, count: Count, *, follow: bool) -> list[str]:
    """Copy to this computer; names of what it cannot have come back. Raises PyboxError, OSError."""
    _check_output(target)
    path, name = _source(client, source, follow)
    with client.stream("GET", _archive(source), {"path": path}) as response:
        found = _decoded(response.headers)
        wanted = Path(os.path.realpath(target))
        content = _is_content(path)
        if wanted.is_dir():
            where = wanted if content else wanted / (name or found.name)
        else:
            _check_file(found.mode & _FOLDER != 0, target, exists=wanted.exists())
            where = wanted
        reader = _Reader(response, count)
        left_out = extract(cast(BinaryIO, reader), where, inside=content)
        while reader.read(1 << 16):  # what fills the archive's last block
            pass
    return left_out


def to_container(
    client: EngineClient, source: str | BinaryIO, target: InContainer, count: Count, *, archive: bool, follow: bool
) -> str:
    """Copy a file, a folder, or the archive that is read from a stream; the path that it was copied to.

    `archive`: the files get the owner that the container's programs have. Raises PyboxError, OSError.
    """
    path, found = _destination(client, target)
    if isinstance(source, str):
        local, name = _local(source, follow=follow)
        folder = local.is_dir() and not local.is_symlink()
        if found is not None and found.mode & _FOLDER:
            into, top = path, name
        else:
            _check_file(folder, path, exists=found is not None)
            into, top = posixpath.split(posixpath.normpath(posixpath.join("/", path)))
        body: Iterator[bytes] = packed(lambda tar: _add(tar, local, top))
    elif found is None or not found.mode & _FOLDER:
        raise PyboxError(f'destination "{target}" must be a directory')
    else:
        into, body = path, pieces(source)
    query: Query = {"path": into, "noOverwriteDirNonDir": True, "copyUIDGID": archive}
    headers = {"Content-Type": "application/x-tar"}
    with client.stream("PUT", _archive(target), query, _counted(body, count), headers) as response:
        response.read()
    return path


# -- the container's side -------------------------------------------------------------------------


def _archive(where: InContainer) -> str:
    if not where.path:
        raise UsageProblem("the path in the container cannot be empty", str(where), "Write CONTAINER:PATH.")
    return f"/containers/{where.container}/archive"


def _status(client: EngineClient, where: InContainer, path: str) -> _Found | None:
    try:
        return _decoded(client.head(_archive(where), {"path": path}))
    except EngineError as error:
        if error.status != 404:
            raise
        client.get(f"/containers/{where.container}/json")  # says so when it is the container that is not there
        return None


def _decoded(headers: Any) -> _Found:
    value = json.loads(base64.b64decode(headers[_STAT]))
    return _Found(value["name"], value["mode"], value["linkTarget"])


def _behind(client: EngineClient, where: InContainer) -> tuple[str, _Found | None]:
    """A path behind all links at its end, and what is there (nothing perhaps)."""
    path, found = where.path, _status(client, where, where.path)
    for _ in range(_MOST_LINKS):
        if found is None or not found.mode & _LINK:
            break
        path = found.target
        found = _status(client, where, path)
    return path, found


def _source(client: EngineClient, source: InContainer, follow: bool) -> tuple[str, str]:
    """The path that is asked for, and the name that a followed link gives to what it points at ("" for its own)."""
    path = _behind(client, source)[0] if follow else source.path
    return path, "" if path == source.path else posixpath.basename(posixpath.normpath(source.path))


def _destination(client: EngineClient, target: InContainer) -> tuple[str, _Found | None]:
    """Where a copy goes, behind a link, and what is there."""
    path, found = _behind(client, target)
    if found is not None and found.mode & (_DEVICE | _IRREGULAR):
        kind = "a device" if found.mode & _DEVICE else "an irregular file"
        raise PyboxError(f'destination "{target}" must be a directory or a regular file', f"It is {kind}.")
    return path, found


# -- this computer's side ---------------------------------------------------------------------------


def _is_content(path: str) -> bool:
    """Whether a path means what is in a folder: "." and "/" at its end."""
    return path == "." or path.endswith(("/.", os.sep + ".")) or not path.strip("/")


def _names_folder(path: str) -> bool:
    return path.endswith(("/", os.sep)) or _is_content(path)


def _check_file(folder: bool, target: str, *, exists: bool) -> None:
    """A copy that does not go into a folder. PyboxError when it cannot become `target`."""
    if exists and folder:
        raise PyboxError("cannot copy directory", f"{target} is a file.")
    if not exists and not folder and _names_folder(target):
        raise PyboxError("no such directory", target, "Make it first, or leave out the / at the end.")


def _check_output(target: str) -> None:
    parent = Path(os.path.normpath(target)).parent
    if not parent.is_dir():
        raise PyboxError(f'invalid output path: directory "{parent}" does not exist')
    if _names_folder(target) and Path(target).is_file():
        raise PyboxError(f"{target} is not a directory")
    if Path(target).exists() and not (Path(target).is_dir() or Path(target).is_file()):
        raise PyboxError(f'invalid output path: "{target}" must be a directory or a regular file')


def _local(source: str, *, follow: bool) -> tuple[Path, str]:
    """What is copied, and what its top is called in the archive ("" when its content is copied)."""
    if not source:
        raise UsageProblem("source can not be empty")
    os.lstat(source)  # OSError; a / at the end wants a folder
    folder, base = os.path.split(source)
    behind = follow or base in ("", ".", "..")
    path = Path(os.path.realpath(source)) if behind else Path(os.path.realpath(folder), base)
    return path, "" if _is_content(source) else Path(os.path.abspath(source)).name  # noqa: PTH100 - links stay


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """A file, or a folder with all it holds; `name` "" is the archive's top itself."""
    info = archive.gettarinfo(str(path), name or ".")
    if info is None:  # a socket: no tar holds one
        return
    info.uname = info.gname = ""  # names of this computer, which mean somebody else in the container
    if not info.isreg():
        archive.addfile(info)
    else:
        with path.open("rb") as file:
            archive.addfile(info, file)
    if info.isdir():
        for inner in sorted(path.iterdir()):
            _add(archive, inner, posixpath.join(name, inner.name))


def _counted(body: Iterator[bytes], count: Count) -> Iterator[bytes]:
    for piece in body:
        count(len(piece))
        yield piece


class _Reader(io.RawIOBase):
    """An answer's body, as a file that `tarfile` reads."""

    def __init__(self, response: Response, count: Count) -> None:
        self._response = response
        self._count = count

    def read(self, size: int = -1) -> bytes:
        data = self._response.read1(size) if size > 0 else self._response.read()
        self._count(len(data))
        return data
