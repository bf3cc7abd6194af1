"""`Packages`: which packages a suite has. Read lazily, because a suite has 60,000 and a build wants a hundred.

The text is searched for `Package:` and `Provides:` lines only, and a paragraph is parsed when it is asked for: a fifth
of a second for all of trixie, where parsing every paragraph with python-debian takes ten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cmp_to_key

from pybox_image.debian.version import compare, satisfies
from pybox_image.errors import ImageError

_PACKAGE = re.compile(rb"^Package: (\S+)$", re.MULTILINE)
_PROVIDES = re.compile(rb"^Provides: (.+)$", re.MULTILINE)
_ESSENTIAL = re.compile(rb"^Essential: yes$", re.MULTILINE)
_TERM = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.\-]*)(?::(?P<architecture>[a-z0-9\-]+))?"
    r"(?:\s*\(\s*(?P<relation><<|<=|=|>=|>>)\s*(?P<version>[^\s)]+)\s*\))?\s*"
)


@dataclass(frozen=True)
class Term:
    """One name in a relation field, for example `libc6 (>= 2.38)`; `relation` is empty when any version will do."""

    name: str
    relation: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.relation} {self.version})" if self.relation else self.name

    def accepts(self, version: str) -> bool:
        """Whether a package of that version fulfils the term."""
        return not self.relation or satisfies(version, self.relation, self.version)


@dataclass(frozen=True)
class Package:
    """One paragraph of `Packages`. `depends` holds Pre-Depends and Depends: every group must be fulfilled by one of
    its alternatives. `base` is the address that `filename` is relative to; `size` counts bytes."""

    name: str
    version: str
    architecture: str
    base: str
    filename: str
    sha256: str
    size: int
    depends: tuple[tuple[Term, ...], ...]
    pre_depends: tuple[tuple[Term, ...], ...]
    conflicts: tuple[Term, ...]
    provides: tuple[Term, ...]
    essential: bool

    @property
    def url(self) -> str:
        return f"{self.base}/{self.filename}"


def parse_relations(field: str) -> tuple[tuple[Term, ...], ...]:
    """Parse a Depends field: groups between commas, alternatives between bars. Raises ImageError on nonsense."""
    groups = (part.strip() for part in field.split(","))
    return tuple(tuple(_term(text.strip()) for text in group.split("|")) for group in groups if group)


def _term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        raise ImageError("the package index cannot be read", f"not a package relation: {text!r}")
    return Term(match["name"], match["relation"] or "", match["version"] or "")


class _Source:
    """The text of one `Packages` file and where its paragraphs begin."""

    def __init__(self, text: bytes, base: str) -> None:
        self._text = text
        self._base = base
        self.starts: dict[str, list[int]] = {}
        for match in _PACKAGE.finditer(text):
            self.starts.setdefault(match[1].decode(), []).append(match.start())
        self.provided: dict[str, list[str]] = {}
        for match in _PROVIDES.finditer(text):
            owner = self._owner(match.start())
            for group in parse_relations(match[1].decode()):
                self.provided.setdefault(group[0].name, []).append(owner)
        self.essential = [self._owner(match.start()) for match in _ESSENTIAL.finditer(text)]

    def packages(self, name: str) -> Iterator[Package]:
        for start in self.starts.get(name, ()):
            end = self._text.find(b"\n\n", start)
            yield _package(self._text[start : end if end >= 0 else None].decode(), self._base)

    def _owner(self, position: int) -> str:
        before = self._text.rfind(b"\n\n", 0, position)
        match = _PACKAGE.search(self._text, before + 1 if before >= 0 else 0)
        if match is None:
            raise ImageError("the package index cannot be read", "a paragraph without a name")
        return match[1].decode()


def _package(paragraph: str, base: str) -> Package:
    fields: dict[str, str] = {}
    for line in paragraph.splitlines():
        if not line.startswith(" "):
            name, _, value = line.partition(": ")
            fields[name] = value
    try:
        pre_depends = parse_relations(fields.get("Pre-Depends", ""))
        conflicts = parse_relations(fields.get("Conflicts", "")) + parse_relations(fields.get("Breaks", ""))
        return Package(
            name=fields["Package"],
            version=fields["Version"],
            architecture=fields["Architecture"],
            base=base,
            filename=fields["Filename"],
            sha256=fields["SHA256"],
            size=int(fields["Size"]),
            depends=pre_depends + parse_relations(fields.get("Depends", "")),
            pre_depends=pre_depends,
            conflicts=tuple(group[0] for group in conflicts),
            provides=tuple(group[0] for group in parse_relations(fields.get("Provides", ""))),
            essential=fields.get("Essential") == "yes",
        )
    except (KeyError, ValueError) as error:
        raise ImageError("the package index cannot be read", f"{error!r} in {paragraph[:80]!r}") from None


class Index:
    """All packages of the suites that were added, newest version first."""

    def __init__(self, sources: Iterable[tuple[bytes, str]] = ()) -> None:
        """`sources` are pairs of a `Packages` text and the address its file names are relative to."""
        self._sources = [_Source(text, base) for text, base in sources]
        self._candidates: dict[str, Package | None] = {}

    def candidate(self, name: str) -> Package | None:
        """Return the newest version of a package in any suite, None where there is none by that name."""
        if name not in self._candidates:
            found = [package for source in self._sources for package in source.packages(name)]
            newest = max(found, key=cmp_to_key(_by_version), default=None)
            self._candidates[name] = newest
        return self._candidates[name]

    def providers(self, term: Term) -> list[Package]:
        """Return the packages that provide `term`, by name. An unversioned provision fulfils no versioned term."""
        names = sorted({name for source in self._sources for name in source.provided.get(term.name, ())})
        candidates = (self.candidate(name) for name in names)
        return [package for package in candidates if package is not None and fulfils(package, term)]

    def essential(self) -> list[str]:
        """Return the names of the packages that every Debian system has."""
        return sorted({name for source in self._sources for name in source.essential})


def _by_version(one: Package, other: Package) -> int:
    return compare(one.version, other.version)


def fulfils(package: Package, term: Term) -> bool:
    """Whether `package` is what `term` asks for, by its own name or by one it provides."""
    if package.name == term.name:
        return term.accepts(package.version)
    return any(
        offered.name == term.name and (not term.relation or (bool(offered.version) and term.accepts(offered.version)))
        for offered in package.provides
    )
