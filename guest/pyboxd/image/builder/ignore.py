"""Patterns of a .dockerignore file (and of `COPY --exclude`). Pure.

Semantics of github.com/moby/patternmatcher: `*`, `?` and `[…]` stay inside a path component, `**` crosses them, a
pattern that matches a folder matches all below it, `!` makes exceptions, and the last pattern that matches decides.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen


def read_patterns(data: bytes) -> list[str]:
    """The patterns of a file: comments and empty lines left out, paths cleaned, a leading `/` dropped."""
    patterns = []
    for raw in data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n"):
        if raw.startswith("#"):
            continue
        pattern = raw.strip()
        if not pattern:
            continue
        negated = pattern.startswith("!")
        pattern = pattern[1:].strip() if negated else pattern
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = pattern.lstrip("/") or "."
        patterns.append("!" + pattern if negated else pattern)
    return patterns


@frozen
class _Pattern:
    regex: re.Pattern[str]
    depth: int  # components; a match can only be at this many, or at any depth with `**`
    any_depth: bool
    negated: bool

    def matches(self, components: list[str]) -> bool:
        """Whether the path or a folder above it is meant."""
        if not self.any_depth:
            if len(components) < self.depth:
                return False
            return self.regex.fullmatch("/".join(components[: self.depth])) is not None
        return any(self.regex.fullmatch("/".join(components[:end])) for end in range(len(components), 0, -1))


class Patterns:
    """A compiled list of patterns; InvalidArgument for one that is malformed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_compile(pattern) for pattern in patterns if pattern]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    @property
    def has_exceptions(self) -> bool:
        return any(pattern.negated for pattern in self._patterns)

    def matches(self, path: str) -> bool:
        """Whether `path` (relative, clean) is left out."""
        components = path.split("/")
        matched = False
        for pattern in self._patterns:
            if pattern.negated == matched and pattern.matches(components):
                matched = not pattern.negated
        return matched


def _compile(text: str) -> _Pattern:
    negated = text.startswith("!")
    pattern = text[1:] if negated else text
    if negated and not pattern:
        raise InvalidArgument('illegal exclusion pattern: "!"')
    pattern = posixpath.normpath(pattern)
    return _Pattern(re.compile(_regex(pattern), re.DOTALL), pattern.count("/") + 1, "**" in pattern, negated)


def component_regex(pattern: str) -> re.Pattern[str]:
    """Go's `path.Match` for a pattern or a single component of one."""
    return re.compile(_regex(pattern, stars=False), re.DOTALL)


_STAR = "[^/]*"
_FOLDERS, _ANYTHING = "(?:.*/)?", ".*"  # what `**/` and `**` mean


def _regex(pattern: str, *, stars: bool = True) -> str:
    pieces = list(_pieces(pattern, stars))
    result = ""
    for index, piece in enumerate(pieces):
        if piece != _STAR:
            result += piece
            continue
        # What lies between two stars of a component may be found where it is first: a regular expression that would
        # also try all other places takes a time that grows with the length to the power of the number of stars.
        result += ")" if _another_star(reversed(pieces[:index])) else ""
        result += "(?>[^/]*?" if _another_star(pieces[index + 1 :]) else _STAR
    return result


def _another_star(pieces: Iterable[str]) -> bool:
    """Whether a star comes before the component ends."""
    return next((piece for piece in pieces if piece in (_STAR, _FOLDERS, _ANYTHING, "/")), "") == _STAR


def _pieces(pattern: str, stars: bool) -> Iterator[str]:
    """Regular expressions of one character each, and of the three kinds of stars."""
    position = 0
    crossing = ""  # `**/**/` is no more than `**/`
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*" and stars and pattern.startswith("*", position):
            position += 1
            piece = _ANYTHING
            if pattern.startswith("/", position):
                position += 1
                piece = _FOLDERS
            if piece != crossing:
                yield piece
            crossing = piece
            continue
        crossing = ""
        if character == "*":
            yield _STAR
        elif character == "?":
            yield "[^/]"
        elif character == "[":
            piece, position = _character_class(pattern, position)
            yield piece
        elif character == "\\":
            if position >= len(pattern):
                raise _malformed(pattern)
            yield re.escape(pattern[position])
            position += 1
        else:
            yield re.escape(character)


def _character_class(pattern: str, position: int) -> tuple[str, int]:
    """`[…]` from behind the bracket on, in Go's syntax: `^` negates, `\\` escapes, ranges."""
    result = "["
    if pattern.startswith("^", position):
        result += "^/"
        position += 1
    empty = True
    while True:
        if position >= len(pattern):
            raise _malformed(pattern)
        character = pattern[position]
        position += 1
        if character == "]" and not empty:
            return result + "]", position
        if character in "-]":
            raise _malformed(pattern)
        low, position = _class_character(pattern, position - 1)
        result += re.escape(low)
        if pattern.startswith("-", position):
            high, position = _class_character(pattern, position + 1)
            if high < low:
                raise _malformed(pattern)
            result += "-" + re.escape(high)
        empty = False


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    if position < len(pattern) and pattern[position] == "\\":
        position += 1
    elif position < len(pattern) and pattern[position] in "-]":
        raise _malformed(pattern)
    if position >= len(pattern):
        raise _malformed(pattern)
    return pattern[position], position + 1


def _malformed(pattern: str) -> InvalidArgument:
    return InvalidArgument(f"syntax error in pattern: {pattern}")
