"""`.dockerignore`: which files of a build context are left out (moby's patternmatcher rules). Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable


class IgnoreRules:
    """The last matching pattern decides; a pattern that matches a folder covers what is below it."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for number, line in enumerate(text.splitlines()):
            line = line.lstrip("\ufeff") if number == 0 else line
            if line.startswith("#") or not (pattern := line.strip()):
                continue
            negated = pattern.startswith("!")
            pattern = posixpath.normpath(pattern.lstrip("!").strip()).lstrip("/")
            if pattern not in ("", "."):
                self._rules.append((negated, re.compile(_translate(pattern))))

    def excludes(self, path: str) -> bool:
        """Whether `path` ("a/b", relative to the context) is left out."""
        parents = ["/".join(path.split("/")[: depth + 1]) for depth in range(path.count("/") + 1)]
        excluded = False
        for negated, pattern in self._rules:
            if negated == excluded and _any_match(pattern, parents):
                excluded = not negated
        return excluded

    def may_skip_folder(self, path: str) -> bool:
        """Whether nothing below the excluded folder `path` can be included again."""
        return self.excludes(path) and not any(negated for negated, _ in self._rules)


def _any_match(pattern: re.Pattern[str], paths: Iterable[str]) -> bool:
    return any(pattern.fullmatch(path) for path in paths)


def _translate(pattern: str) -> str:
    out, position = "", 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            if pattern[position : position + 1] == "*":
                position += 1
                if pattern[position : position + 1] == "/":
                    position += 1
                    out += "(?:.*/)?"
                else:
                    out += ".*"
            else:
                out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[" and "]" in pattern[position:]:
            end = pattern.index("]", position)
            out += "[" + pattern[position:end].replace("\\", "\\\\") + "]"
            position = end + 1
        elif character == "\\" and position < len(pattern):
            out += re.escape(pattern[position])
            position += 1
        else:
            out += re.escape(character)
    return out
