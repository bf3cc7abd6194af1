"""What `-v`, `--mount`, `--tmpfs`, `--volumes-from` and VOLUME mean: texts and requests -> mount points. Pure.

Rules and words of moby, volume/mounts/linux_parser.go and daemon/volumes.go.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from pyboxd.engine.model import MountPoint, MountRequest, Pairs
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen, replace

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_ACCESS = {"ro": False, "rw": True}
_LABELS = frozenset({"z", "Z"})
_CONSISTENCY = frozenset({"consistent", "cached", "delegated", "default"})
PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_DEFAULT_PROPAGATION = "rprivate"


@frozen
class Wanted:
    """A mount point, and what has to be known to make its volume."""

    point: MountPoint
    copy: bool = False  # fill an empty volume with the image's files
    labels: Pairs = ()
    options: Pairs = ()
    anonymous: bool = False


def parse_bind(text: str, volume_driver: str = "") -> Wanted:
    """One `-v SOURCE:TARGET[:MODE]`. InvalidArgument."""
    drive = text[:2] if _DRIVE.match(text) else ""
    source, *rest = text[len(drive) :].split(":")
    source = drive + source
    if len(rest) not in (1, 2) or not source or not rest[0]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    target = check_target(rest[0], text, "bind" if is_path(source) else "volume")
    mode = rest[1] if len(rest) == 2 else ""
    options = _parse_mode(mode)
    if is_path(source):
        point = MountPoint(
            type="bind",
            source=source if drive or "\\" in source else posixpath.normpath(source),
            destination=target,
            mode=mode,
            writable=options.writable,
            propagation=options.propagation or _DEFAULT_PROPAGATION,
            create_source=True,
        )
        return Wanted(point)
    check_volume_name(source)
    point = MountPoint(
        type="volume",
        name=source,
        destination=target,
        driver=volume_driver or "local",
        mode=mode or "z",
        writable=options.writable,
    )
    return Wanted(point, copy=options.copy)


def is_path(source: str) -> bool:
    """Whether the left side of `-v` is a path of the host and no volume's name."""
    return source.startswith(("/", "\\\\")) or _DRIVE.match(source) is not None


def check_volume_name(name: str) -> None:
    """InvalidArgument, in Docker's words."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not VOLUME_NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


def check_target(target: str, specification: str = "", kind: str = "bind") -> str:
    """A mount's place in the container, cleaned up. InvalidArgument."""
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{specification or target}': invalid mount config for type \"{kind}\": "
            f"invalid mount path: '{target}' mount path must be absolute"
        )
    clean = "/" + posixpath.normpath(target).lstrip("/")
    if clean == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{specification or target}': invalid specification: destination can't be '/'"
        )
    return clean


@frozen
class _Mode:
    writable: bool = True
    propagation: str = ""
    copy: bool = True


def _parse_mode(mode: str) -> _Mode:
    parsed = _Mode()
    for word in mode.split(",") if mode else ():
        if word in _ACCESS:
            parsed = replace(parsed, writable=_ACCESS[word])
        elif word in PROPAGATIONS:
            parsed = replace(parsed, propagation=word)
        elif word == "nocopy":
            parsed = replace(parsed, copy=False)
        elif word not in _LABELS and word not in _CONSISTENCY:
            raise InvalidArgument(f"invalid mode: {mode}")
    return parsed


def from_request(request: MountRequest) -> Wanted:
    """One `--mount`. InvalidArgument; whether a bind's source exists is for the caller to see."""
    kind = f'invalid mount config for type "{request.type}"'
    if not request.target:
        raise InvalidArgument(f"{kind}: field Target must not be empty")
    if not request.target.startswith("/"):
        raise InvalidArgument(f"{kind}: invalid mount path: '{request.target}' mount path must be absolute")
    target = check_target(request.target)
    match request.type:
        case "bind":
            return Wanted(_bind(request, target, kind))
        case "volume":
            return _volume(request, target, kind)
        case "tmpfs":
            return Wanted(_tmpfs(request, target, kind))
    raise InvalidArgument(f'invalid mount config for type "{request.type}": mount type unknown')


def _bind(request: MountRequest, target: str, kind: str) -> MountPoint:
    if not request.source:
        raise InvalidArgument(f"{kind}: field Source must not be empty")
    if not is_path(request.source):
        raise InvalidArgument(f"{kind}: invalid mount path: '{request.source}' mount path must be absolute")
    if request.propagation and request.propagation not in PROPAGATIONS:
        raise InvalidArgument(f"{kind}: invalid propagation mode: {request.propagation}")
    posix = request.source.startswith("/")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(request.source) if posix else request.source,
        destination=target,
        writable=not request.read_only,
        propagation=request.propagation or _DEFAULT_PROPAGATION,
        recursive=not request.non_recursive,
        create_source=request.create_mountpoint,
    )


def _volume(request: MountRequest, target: str, kind: str) -> Wanted:
    if request.source:
        check_volume_name(request.source)
    if request.subpath and (request.subpath.startswith("/") or ".." in request.subpath.split("/")):
        raise InvalidArgument(f"{kind}: subpath must be a relative path within the volume")
    point = MountPoint(
        type="volume",
        name=request.source,
        destination=target,
        driver=request.driver or "local",
        mode="z",
        writable=not request.read_only,
        subpath=request.subpath,
    )
    copy = not request.no_copy and not request.subpath
    return Wanted(point, copy, request.labels, request.driver_options, anonymous=not request.source)


def _tmpfs(request: MountRequest, target: str, kind: str) -> MountPoint:
    if request.source:
        raise InvalidArgument(f"{kind}: field Source must not be specified")
    options = ["noexec", "nosuid", "nodev"]
    for words in request.tmpfs_options:
        options.append("=".join(words))
    if request.tmpfs_size:
        options.append(f"size={request.tmpfs_size}")
    if request.tmpfs_mode:
        options.append(f"mode={request.tmpfs_mode:o}")
    return MountPoint(type="tmpfs", destination=target, writable=not request.read_only, options=tuple(options))


def from_tmpfs(target: str, options: str) -> Wanted:
    """One `--tmpfs TARGET[:OPTIONS]`. InvalidArgument."""
    words = tuple(word for word in options.split(",") if word)
    given = {word.removeprefix("no") for word in words}
    defaults = tuple(word for word in ("noexec", "nosuid", "nodev") if word.removeprefix("no") not in given)
    point = MountPoint(
        type="tmpfs",
        destination=check_target(target),
        writable="ro" not in words,
        options=defaults + tuple(word for word in words if word not in ("ro", "rw")),
        shown=False,
    )
    return Wanted(point)


def from_image(target: str) -> Wanted:
    """One VOLUME of the image, or `-v TARGET`: a new volume without a name."""
    point = MountPoint(type="volume", destination=check_target(target), driver="local")
    return Wanted(point, copy=True, anonymous=True)


def parse_volumes_from(text: str) -> tuple[str, bool | None]:
    """`--volumes-from CONTAINER[:MODE]`: the container, and whether its mounts become writable (None: as they are)."""
    name, _, mode = text.partition(":")
    if not name:
        raise InvalidArgument(f"malformed volumes-from specification: {text}")
    return name, _parse_mode(mode).writable if mode else None


def arrange(groups: Sequence[Sequence[Wanted]], anonymous: Sequence[Wanted]) -> list[Wanted]:
    """One mount per place: within a group two for one place are an error, later groups win over earlier ones, and
    volumes without a name yield to everything."""
    chosen: dict[str, Wanted] = {}
    for group in groups:
        seen: set[str] = set()
        for wanted in group:
            target = wanted.point.destination
            if target in seen:
                raise InvalidArgument(f"Duplicate mount point: {target}")
            seen.add(target)
            chosen[target] = wanted
    for wanted in anonymous:
        chosen.setdefault(wanted.point.destination, wanted)
    return list(chosen.values())
