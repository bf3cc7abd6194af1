"""COPY and ADD: what is copied is found and hashed first, and written when no earlier build did the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image.builder.accounts import owner_of
from pyboxd.image.builder.contexttree import ContextTree
from pyboxd.image.builder.ignore import Patterns
from pyboxd.image.builder.modes import ModeChange
from pyboxd.image.builder.places import InRoot, Root, open_layers, open_plain, writable
from pyboxd.image.builder.sources import Source, content_digest, find_sources
from pyboxd.image.builder.treecopy import CopyRules, TreeCopier
from pyboxd.image.builder.trees import Item, RootTree, Tree
from pyboxd.image.compression import decompressed
from pyboxd.image.extract import Rules, extract
from pyboxd.image.tarread import TarReader
from pyboxd.image.workers import Stop
from pyboxd.linux.inroot import Owner

_PIECE = 256 * 1024
_MAX_LINKS = 40  # as the kernel's own limit


@frozen
class Extra:
    """A file that is in no source tree: a here-document or a download."""

    name: str
    path: str  # of a file of the engine's
    downloaded: bool = False


@frozen
class CopyPlan:
    """A COPY or ADD with all words expanded."""

    word: str  # COPY | ADD
    patterns: tuple[str, ...]
    extras: tuple[Extra, ...]
    target: str  # absolute; a slash at the end says that it is a directory
    context: ContextTree
    layers: tuple[str, ...] | None  # of another image, top first; None copies from the context
    owner: str = ""  # as --chown says
    mode: ModeChange | None = None
    exclude: tuple[str, ...] = ()
    unpack: bool | None = False  # None: local archives only

    @property
    def is_whole_image(self) -> bool:
        """Whether this is `COPY --from=image / /`, with nothing changed on the way."""
        changed = self.owner or self.mode or self.exclude or self.extras
        return self.layers is not None and self.patterns == ("/",) and self.target == "/" and not changed


@frozen
class Found:
    """What a plan copies."""

    sources: tuple[Source, ...]
    digest: str  # "file:<hex>", "dir:<hex>", "multi:<hex>"


@frozen
class Destination:
    """Where to write: the layers of the image so far, and the step's own folders."""

    lower: tuple[str, ...]
    upper: str
    work: str
    empty: str


def find(plan: CopyPlan, empty: str, known: str | None, stop: Stop) -> Found:
    """Look up and hash the sources; `known` is the digest if it need not be computed. Blocking."""
    with _source_tree(plan, empty) as tree:
        sources: list[Source] = []
        if plan.patterns:
            sources = find_sources(tree, plan.patterns, from_context=plan.layers is None)
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
            + content_digest(tree, source, excluded, stop, owners=plan.layers is not None)
            for source in sources
        ]
    digests += [f"file:{_file_digest(extra, stop)}" for extra in plan.extras]
    names = [source.name for source in sources] + [extra.name for extra in plan.extras]
    return Found(tuple(sources), _combined(digests, names, f"unpack={plan.unpack}"))


def _combined(digests: Sequence[str], names: Sequence[str], how: str) -> str:
    """One digest of what is copied: contents, and the names, because a folder as the target takes them over."""
    both = "\0".join((how, *(f"{name}\0{digest}" for name, digest in zip(names, digests, strict=True))))
    kind = "multi" if len(digests) > 1 else digests[0].partition(":")[0]
    return f"{kind}:" + hashlib.sha256(both.encode("utf-8", "surrogateescape")).hexdigest()


def _file_digest(extra: Extra, stop: Stop) -> str:
    digest = hashlib.sha256()
    with open(extra.path, "rb", buffering=0) as file:
        while data := file.read(_PIECE):
            stop.check()
            digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def _source_tree(plan: CopyPlan, empty: str) -> Iterator[Tree]:
    if plan.layers is None:
        yield plan.context
        return
    with open_layers(plan.layers, empty) as root:
        yield RootTree(root)


def perform(plan: CopyPlan, found: Found, destination: Destination, stop: Stop) -> None:
    """Write everything into the destination's upper directory. Blocking. InvalidArgument, OSError."""
    place = destination
    with (
        _source_tree(plan, place.empty) as source,
        writable(place.lower, place.upper, place.work, place.empty) as target,
    ):
        _Writer(plan, source, target, stop).run(found.sources)


class _Writer:
    def __init__(self, plan: CopyPlan, source: Tree, target: Root, stop: Stop) -> None:
        self._plan = plan
        self._source = source
        self._target = target
        self._stop = stop
        self._owner: Owner | None = owner_of(plan.owner, target) if plan.owner else None
        of_copies = self._owner or ((0, 0) if plan.layers is None else None)
        self._excluded = Patterns(plan.exclude).matches
        self._copier = TreeCopier(target, CopyRules(of_copies, plan.mode, self._excluded), stop)

    def run(self, sources: Sequence[Source]) -> None:
        for source in sources:
            with self._source.item(source.path) as item:
                if source.directory:
                    take_over = not self._plan.target.endswith("/")
                    self._copier.contents(item, self._folder(), take_over=take_over)
                else:
                    self._file(item, source.name, unpack=self._plan.unpack is not False)
        for extra in self._plan.extras:
            folder, name = posixpath.split(extra.path)
            with open_plain(folder) as root, RootTree(root).item(name) as item:
                self._file(item, extra.name, unpack=extra.downloaded and bool(self._plan.unpack))

    def _folder(self) -> str:
        return self._plan.target.rstrip("/") or "/"

    def _file(self, item: Item, name: str, *, unpack: bool) -> None:
        if self._excluded(name):
            return
        if unpack and is_archive(item, self._stop):
            self._unpack(item)
            return
        target = self._plan.target
        there = self._target.status(target)
        if target.endswith("/") or (there is not None and stat.S_ISDIR(there.st_mode)):
            folder, base = self._folder(), name
        else:
            folder, base = self._behind_links(target)
        self._copier.file(item, folder, base)

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

    def _unpack(self, item: Item) -> None:
        os.close(self._target.make_directories(self._folder(), self._owner or (0, 0)))
        rules = Rules(owners=True, owner=self._owner, devices=True)
        extract(TarReader(decompressed(item.chunks(self._stop))), InRoot(self._target, self._folder()), rules)


def is_archive(item: Item, stop: Stop) -> bool:
    """Whether a regular file is a tar archive, compressed or not."""
    try:
        return next(iter(TarReader(decompressed(item.chunks(stop)))), None) is not None
    except InvalidArgument:
        return False
