"""The table of routes: (method, path) -> handler, and Docker's version prefix.

Patterns are split at "/" and compared piece by piece: compiling a hundred regular expressions would take
longer than the rest of the engine's start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyboxd.frozen import frozen
from pyboxd.server.message import NOTHING, Handler


@frozen
class Route:
    """`pattern` is a path without version: "/containers/{id}/json". `{name:path}` takes one or more pieces
    (image names have slashes in them); a pattern has at most one such part.
    """

    method: str
    pattern: str
    handler: Handler


@frozen
class _Pattern:
    """Pieces before and after the `{…:path}` part; without such a part `rest` is "" and `after` empty."""

    before: tuple[str, ...]
    rest: str
    after: tuple[str, ...]
    handler: Handler

    def match(self, pieces: Sequence[str]) -> Mapping[str, str] | None:
        head, tail = len(self.before), len(pieces) - len(self.after)
        if self.rest:
            if tail <= head:
                return None
        elif tail != head:
            return None
        found: dict[str, str] = {}
        for wanted, given in zip(self.before + self.after, (*pieces[:head], *pieces[tail:]), strict=True):
            if wanted.startswith("{"):
                if not given:
                    return None
                found[wanted[1:-1]] = given
            elif wanted != given:
                return None
        if self.rest:
            found[self.rest] = "/".join(pieces[head:tail])
        return found


def _compile(route: Route) -> _Pattern:
    pieces = tuple(route.pattern.strip("/").split("/"))
    for index, piece in enumerate(pieces):
        if piece.endswith(":path}"):
            return _Pattern(pieces[:index], piece[1 : -len(":path}")], pieces[index + 1 :], route.handler)
    return _Pattern(pieces, "", (), route.handler)


class Routes:
    """All routes. A pattern without braces wins over one with braces; otherwise the first registered wins."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[_Pattern]] = {}
        for route in routes:
            if "{" not in route.pattern:
                self._exact.setdefault((route.method, route.pattern.strip("/")), route.handler)
            else:
                pattern = _compile(route)
                self._patterns.setdefault((route.method, pattern.before[0]), []).append(pattern)

    def find(self, method: str, path: str) -> tuple[Handler, Mapping[str, str]] | None:
        """Handler and parameters for a decoded path without version; `None` for an unknown path or method."""
        bare = path.strip("/")
        handler = self._exact.get((method, bare))
        if handler is not None:
            return handler, NOTHING
        pieces = bare.split("/")
        for pattern in self._patterns.get((method, pieces[0]), ()):
            found = pattern.match(pieces)
            if found is not None:
                return pattern.handler, found
        return None


def split_version(path: str) -> tuple[str, str]:
    """ "/v1.44/info" -> ("1.44", "/info"); ("", path) when the path names no version."""
    prefix, slash, rest = path[1:].partition("/")
    version = prefix[1:]
    if not slash or not prefix.startswith("v") or not version or version.strip("0123456789."):
        return "", path
    return version, "/" + rest


def version_tuple(version: str) -> tuple[int, int]:
    """ "1.44" -> (1, 44). Missing numbers count as 0, and longer ones than any version has by their beginning."""
    numbers = [int(part[:9]) for part in version.split(".") if part]
    major, minor, *_ = (*numbers, 0, 0)
    return major, minor
