"""The text of a Dockerfile as a list of raw instructions with their line numbers. Pure.

Rules and messages are those of BuildKit (frontend/dockerfile/parser): parser directives, comments, continued lines,
here-documents behind RUN, COPY and ADD. What an instruction's arguments mean is said by `instructions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image.builder import words

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
_FLAG_END = re.compile(r"\s")
_MAX_FILE = 4 * 1024 * 1024  # bytes of a Dockerfile
_WITH_HEREDOCS = {"RUN", "COPY", "ADD"}


@frozen
class Heredoc:
    """A here-document: `name` is its delimiter, `expand` whether variables in it are replaced."""

    name: str
    content: str
    expand: bool
    chomp: bool  # `<<-`: leading tabs were removed
    descriptor: str = ""  # digits before `<<`


@frozen
class RawInstruction:
    """One instruction: its name in capitals, `--flags`, and the rest of its logical line."""

    line: int  # number of its first line, from 1
    name: str
    flags: tuple[str, ...]
    rest: str
    original: str  # the logical line, continued lines joined
    heredocs: tuple[Heredoc, ...] = ()


@frozen
class Dockerfile:
    """A parsed file; `escape` is the character that continues lines and takes meaning away."""

    instructions: tuple[RawInstruction, ...]
    escape: str = "\\"


def fail(line: int, message: str) -> InvalidArgument:
    """The error for a fault in that line, in Docker's words."""
    return InvalidArgument(f"dockerfile parse error on line {line}: {message}")


def parse(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Parse a file; InvalidArgument tells the line. `name` is what an empty file is called in the message."""
    if len(data) > _MAX_FILE:
        raise InvalidArgument(f"the Dockerfile ({name}) is larger than 4 MiB")
    if not data.strip():
        raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    escape, start = _directives(lines)
    instructions = tuple(_Reader(lines, start, escape).instructions())
    if not instructions:
        raise InvalidArgument("file with no instructions")
    return Dockerfile(instructions, escape)


def parse_line(line: str, number: int, escape: str = "\\") -> RawInstruction:
    """One instruction that stands alone, such as an ONBUILD trigger (which may bring here-documents along)."""
    lines = line.split("\n")
    found = list(_Reader(lines, 0, escape, continued=False).instructions())
    if len(found) != 1:
        raise fail(number, f"one instruction expected: {line!r}")
    raw = found[0]
    return RawInstruction(number, raw.name, raw.flags, raw.rest, raw.original, raw.heredocs)


def json_list(text: str) -> list[str] | None:
    """The strings of a JSON array, None for anything else."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _directives(lines: list[str]) -> tuple[str, int]:
    """The escape character, and the index of the first line that is no directive."""
    escape = "\\"
    seen: set[str] = set()
    for number, line in enumerate(lines):
        found = _DIRECTIVE.match(line.lstrip())
        if found is None:
            return escape, number
        key, value = found.group(1).lower(), found.group(2)
        if key in ("escape", "syntax", "check"):
            if key in seen:
                raise fail(number + 1, f"only one {key} parser directive can be used")
            seen.add(key)
        if key == "escape":
            if value not in ("\\", "`"):
                raise fail(number + 1, f"invalid ESCAPE token '{value}' does not match ` or \\")
            escape = value
    return escape, len(lines)


class _Reader:
    def __init__(self, lines: list[str], start: int, escape: str, *, continued: bool = True) -> None:
        self._lines = lines
        self._next = start
        self._escape = escape
        self._continued = continued
        mark = re.escape(escape)
        self._continuation = re.compile(rf"(^|[^{mark}]){mark}[ \t]*$")

    def instructions(self) -> Iterator[RawInstruction]:
        while self._next < len(self._lines):
            first = self._next + 1
            line = self._logical_line()
            if line.strip():
                yield self._instruction(line.strip(), first)

    def _logical_line(self) -> str:
        """A line with those that continue it; "" for comments and empty lines."""
        line = self._lines[self._next].lstrip(" \t\v\f\r")
        self._next += 1
        if line.startswith("#"):
            return ""
        line, more = self._without_mark(line)
        while more and self._next < len(self._lines):
            following = self._lines[self._next]
            self._next += 1
            if not following.strip() or following.lstrip().startswith("#"):
                continue
            piece, more = self._without_mark(following)
            line += piece
        return line

    def _without_mark(self, line: str) -> tuple[str, bool]:
        found = self._continuation.search(line) if self._continued else None
        return (line[: found.end(1)], True) if found else (line, False)

    def _instruction(self, line: str, number: int) -> RawInstruction:
        word, _, rest = _cut(line)
        name = word.upper()
        try:
            flags, rest = _flags(rest, self._escape)
        except InvalidArgument as error:
            raise fail(number, str(error)) from error
        heredocs = tuple(self._heredocs(line, number)) if _may_have_heredocs(name, rest) else ()
        return RawInstruction(number, name, flags, rest, line, heredocs)

    def _heredocs(self, line: str, number: int) -> Iterator[Heredoc]:
        for start in heredoc_starts(line, self._escape):
            content: list[str] = []
            while True:
                if self._next >= len(self._lines):
                    raise fail(number, "unterminated heredoc")
                text = self._lines[self._next]
                self._next += 1
                text = text.lstrip("\t") if start.chomp else text
                if text == start.name:
                    break
                content.append(text + "\n")
            yield Heredoc(start.name, "".join(content), start.expand, start.chomp, start.descriptor)


def heredoc_starts(line: str, escape: str = "\\") -> list[Heredoc]:
    """The here-documents that a line announces, without their content."""
    if json_list(_cut(line)[2]) is not None:
        return []
    found = (heredoc_start(word) for word in words.unquoted_words(line, escape))
    return [heredoc for heredoc in found if heredoc]


def heredoc_start(word: str) -> Heredoc | None:
    """The here-document that a word such as `<<-"EOF"` announces."""
    matched = _HEREDOC.fullmatch(word)
    if matched is None or not matched.group(3):
        return None
    descriptor, dash, rest = matched.groups()
    try:
        name = words.expand(re.sub(r"\$", r"\\$", rest), {})
    except InvalidArgument:
        return None
    if not name:
        return None
    return Heredoc(name, "", expand=not set(rest) & set("\"'"), chomp=bool(dash), descriptor=descriptor)


def _may_have_heredocs(name: str, rest: str) -> bool:
    while name == "ONBUILD":
        word, _, rest = _cut(rest)
        name = word.upper()
    return name in _WITH_HEREDOCS and "<<" in rest


def _cut(line: str) -> tuple[str, str, str]:
    found = _FLAG_END.search(line)
    if found is None:
        return line, "", ""
    return line[: found.start()], found.group(), line[found.end() :].strip()


def _flags(rest: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Leading `--name[=value]` words, quotes in them removed; a lone `--` ends them."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, length = _flag_word(rest, escape)
        rest = rest[length:].lstrip()
        if word == "--":
            break
        flags.append(word)
    return tuple(flags), rest


def _flag_word(rest: str, escape: str) -> tuple[str, int]:
    word = quote = ""
    position = 0
    while position < len(rest):
        character = rest[position]
        if quote:
            if character == quote:
                quote = ""
            elif character == escape and position + 1 < len(rest):
                position += 1
                word += rest[position]
            else:
                word += character
        elif character.isspace():
            break
        elif character in "'\"":
            quote = character
        elif character == escape and position + 1 < len(rest):
            position += 1
            word += rest[position]
        else:
            word += character
        position += 1
    return word, position
