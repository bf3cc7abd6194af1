"""COPY and ADD: what is copied is found and hashed first, and written when no earlier build did the same."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.accounts import owner_of
from pyboxd.image.builder.ignore import Patterns
from pyboxd.image.builder.modes import ModeChange
from pyboxd.image.builder.places import Owner, Root, open_layers, open_plain, writable
from pyboxd.image.builder.sources import Source, content_digest, find_sources
from pyboxd.image.builder.treecopy import CopyRules, TreeCopier
from pyboxd.image.compression import decompressed
from pyboxd.image.extract import Rules, extract
from pyboxd.image.tarread import TarReader
from pyboxd.image.workers import Stop

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_PIECE = 256 * 1024
_MAX_LINKS = 40  # as the kernel's own limit
_START = 1 << 20  # bytes of a file that are looked at to tell whether it is an archive


@dataclass(frozen=True)
class Extra:
    """A file that is in no source tree: a here-document or a download."""

    name: str
    path: str  # of a file of the engine's
    downloaded: bool = False


@dataclass(frozen=True)
class CopyPlan:
    """A COPY or ADD with all words expanded."""

    word: str  # COPY | ADD
    patterns: tuple[str, ...]
    extras: tuple[Extra, ...]
    target: str  # absolute; a slash at the end says that it is a directory
    origin: str  # directory of the context; "" copies from layers
    layers: tuple[str, ...] | None  # of another image, top first; None copies from the context
    owner: str = ""  # as --chown says
    mode: ModeChange | None = None
    exclude: tuple[str, ...] = ()
    unpack: bool | None = False  # None: local archives only


@dataclass(frozen=True)
class Found:
    """What a plan copies."""

    sources: tuple[Source, ...]
    digest: str  # "file:<hex>", "dir:<hex>", "multi:<hex>"


@dataclass(frozen=True)
class Destination:
    """Where to write: the layers of the image so far, and the step's own folders."""

    lower: tuple[str, ...]
    upper: str
    work: str
    empty: str


def find(plan: CopyPlan, empty: str, known: str | None, stop: Stop) -> Found:
    """Look up and hash the sources; `known` is the digest if it need not be computed. Blocking."""
    with _source_root(plan, empty) as root:
        sources: list[Source] = []
        if plan.patterns:
            sources = find_sources(root, plan.patterns, from_context=plan.layers is None)
        if len(sources) + len(plan.extras) > 1 and not plan.target.endswith("/"):
            raise InvalidArgument(
                f"When using {plan.word} with more than one source file, "
                "the destination must be a directory and end with a /"
            )
        if known:
            return Found(tuple(sources), known)
        excluded = Patterns(plan.exclude).matches
        digests = [
            ("dir:" if source.directory else "file:")
            + content_digest(root, source, excluded, stop, owners=plan.layers is not None)
            for source in sources
        ]
    digests += [f"file:{_file_digest(extra, stop)}" for extra in plan.extras]
    names = [source.name for source in sources] + [extra.name for extra in plan.extras]
    return Found(tuple(sources), _combined(digests, names))


def _combined(digests: Sequence[str], names: Sequence[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    both = "\0".join(f"{name}\0{digest}" for name, digest in zip(names, digests, strict=True))
    return "multi:" + hashlib.sha256(both.encode("utf-8", "surrogateescape")).hexdigest()


def _file_digest(extra: Extra, stop: Stop) -> str:
    digest = hashlib.sha256()
    with open(extra.path, "rb", buffering=0) as file:
        while data := file.read(_PIECE):
            stop.check()
            digest.update(data)
    return digest.hexdigest()


def _source_root(plan: CopyPlan, empty: str) -> Root:
    return open_plain(plan.origin) if plan.layers is None else open_layers(plan.layers, empty)


def perform(plan: CopyPlan, found: Found, destination: Destination, stop: Stop) -> None:
    """Write everything into the destination's upper directory. Blocking. InvalidArgument, OSError."""
    place = destination
    with (
        _source_root(plan, place.empty) as source,
        writable(place.lower, place.upper, place.work, place.empty) as target,
    ):
        _Writer(plan, source, target, stop).run(found.sources)


class _Writer:
    def __init__(self, plan: CopyPlan, source: Root, target: Root, stop: Stop) -> None:
        self._plan = plan
        self._source = source
        self._target = target
        self._stop = stop
        self._owner: Owner | None = owner_of(plan.owner, target) if plan.owner else None
        of_copies = self._owner or ((0, 0) if plan.layers is None else None)
        rules = CopyRules(of_copies, plan.mode, Patterns(plan.exclude).matches)
        self._copier = TreeCopier(source, target, rules, stop)

    def run(self, sources: Sequence[Source]) -> None:
        for source in sources:
            descriptor = self._source.open(source.path, _READ)
            try:
                if source.directory:
                    take_over = not self._plan.target.endswith("/")
                    self._copier.contents(descriptor, self._folder(), take_over=take_over)
                elif self._plan.unpack is not False and is_archive(descriptor):
                    self._unpack(descriptor)
                else:
                    self._file(descriptor, source.name)
            finally:
                os.close(descriptor)
        for extra in self._plan.extras:
            self._extra(extra)

    def _extra(self, extra: Extra) -> None:
        descriptor = os.open(extra.path, _READ)
        try:
            if extra.downloaded and self._plan.unpack and is_archive(descriptor):
                self._unpack(descriptor)
            else:
                self._file(descriptor, extra.name)
        finally:
            os.close(descriptor)

    def _folder(self) -> str:
        return self._plan.target.rstrip("/") or "/"

    def _file(self, descriptor: int, name: str) -> None:
        if Patterns(self._plan.exclude).matches(name):
            return
        target = self._plan.target
        there = self._target.status(target)
        if target.endswith("/") or (there is not None and stat.S_ISDIR(there.st_mode)):
            folder, base = self._folder(), name
        else:
            folder, base = self._behind_links(target)
        self._copier.file(descriptor, folder, base)

    def _behind_links(self, target: str) -> tuple[str, str]:
        """Directory and name of a file to write: a link there means what it leads to, dangling or not."""
        for _ in range(_MAX_LINKS):
            folder, base = posixpath.split(target)
            if base in ("", ".", ".."):
                break
            link = self._target.read_link(folder, base)
            if link is None:
                return folder, base
            target = link if link.startswith("/") else f"{folder}/{link}"
        raise InvalidArgument(f"cannot write to {self._plan.target}: it is a link that leads nowhere")

    def _unpack(self, descriptor: int) -> None:
        os.close(self._target.make_directories(self._folder(), self._owner or (0, 0)))
        parents = _InRoot(self._target, self._folder())
        rules = Rules(owners=True, owner=self._owner, devices=True)
        extract(TarReader(decompressed(_chunks(descriptor, self._stop))), parents, rules)


class _InRoot:
    """The directories of an archive below a folder of a root file system; links lead where they lead there."""

    follows = True

    def __init__(self, root: Root, folder: str) -> None:
        self._root = root
        self._folder = folder

    def open(self, path: str, make: bool) -> int:
        whole = f"{self._folder}/{path}"
        return self._root.make_directories(whole) if make else self._root.open_directory(whole)


def is_archive(descriptor: int) -> bool:
    """Whether an open file is a tar archive, compressed or not; its offset is kept."""
    try:
        start = os.pread(descriptor, _START, 0)
        pieces = decompressed(start[at : at + _PIECE] for at in range(0, len(start), _PIECE))
        return next(iter(TarReader(pieces)), None) is not None
    except InvalidArgument:
        return False


def _chunks(descriptor: int, stop: Stop) -> Iterator[bytes]:
    while data := os.read(descriptor, _PIECE):
        stop.check()
        yield data
