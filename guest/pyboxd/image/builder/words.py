"""Quotes, escapes and variables in the words of a Dockerfile. Pure.

The rules are those of BuildKit's shell lexer (frontend/dockerfile/shell/lex.go): `$name`, `${name}`,
`${name:-word}`, `:+`, `:?` (and without the colon), `#`, `##`, `%`, `%%`, `/`, `//`. Unset names are empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyboxd.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_SPACE = " \t\n\v\f\r"


def expand(text: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """`text` as one word: variables replaced, quotes and escapes removed. InvalidArgument for a broken word."""
    return _Lexer(text, env, escape).run()[0]


def expand_words(text: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """The same, split where unquoted white space was (also that which came out of a variable)."""
    return _Lexer(text, env, escape).run()[1]


def expand_text(text: str, env: Mapping[str, str], escape: str = "\\") -> str:
    """Variables in a here-document: quotes are ordinary, an escape counts only before `$` and itself."""
    return _Lexer(text, env, escape).run_text()


def unquoted_words(text: str, escape: str = "\\") -> list[str]:
    """Words of `text` as they stand, quotes and variables kept: splitting alone."""
    words: list[str] = []
    word = ""
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if character == escape and quote != "'" and position + 1 < len(text):
            word += text[position : position + 2]
            position += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _SPACE:
            if word:
                words.append(word)
            word = ""
            position += 1
            continue
        word += character
        position += 1
    return [*words, word] if word else words


class _Words:
    """Collects words; white space inside quotes does not divide."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._word = ""
        self._in_word = False

    def add(self, text: str) -> None:
        """Text that divides at white space."""
        for character in text:
            if character in _SPACE:
                self.end()
            else:
                self._word += character
                self._in_word = True

    def add_raw(self, text: str) -> None:
        """Text that stays together; even nothing makes a word."""
        self._word += text
        self._in_word = True

    def end(self) -> None:
        if self._in_word:
            self.words.append(self._word)
        self._word = ""
        self._in_word = False


class _Lexer:
    def __init__(self, text: str, env: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._env = env
        self._escape = escape
        self._position = 0
        self._words = _Words()

    def run(self) -> tuple[str, list[str]]:
        result = self._until("", self._words)
        self._words.end()
        return result, self._words.words

    def run_text(self) -> str:
        result = ""
        while character := self._peek():
            if character == "$":
                result += self._dollar()
                continue
            self._position += 1
            if character == self._escape and self._peek() in ("$", self._escape):
                character = self._next()
            result += character
        return result

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _next(self) -> str:
        character = self._peek()
        self._position += 1
        return character

    def _until(self, stop: str, words: _Words) -> str:
        """Everything up to the character `stop` ("" is the end), which is consumed."""
        result = ""
        while character := self._peek():
            if character == stop:
                self._position += 1
                return result
            if character == "'":
                piece = self._single()
                words.add_raw(piece)
            elif character == '"':
                piece = self._double()
                words.add_raw(piece)
            elif character == "$":
                piece = self._dollar()
                words.add(piece)
            elif character == self._escape:
                self._position += 1
                piece = self._next()
                words.add_raw(piece) if piece else None
            else:
                piece = self._next()
                words.add(piece)
            result += piece
        if stop:
            raise InvalidArgument(f"unexpected end of statement while looking for matching {stop}")
        return result

    def _single(self) -> str:
        end = self._text.find("'", self._position + 1)
        if end < 0:
            raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
        piece = self._text[self._position + 1 : end]
        self._position = end + 1
        return piece

    def _double(self) -> str:
        self._position += 1
        result = ""
        while character := self._peek():
            if character == '"':
                self._position += 1
                return result
            if character == "$":
                result += self._dollar()
                continue
            self._position += 1
            if character == self._escape:
                following = self._peek()
                if not following:
                    break
                self._position += 1
                if following not in ('"', "$", self._escape):
                    result += character
                character = following
            result += character
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._position += 1
        if self._peek() == "{":
            self._position += 1
            return self._braces()
        name = self._name()
        return self._env.get(name, "") if name else "$"

    def _name(self) -> str:
        found = _NAME.match(self._text, self._position)
        if found is None:
            return ""
        name = found.group()
        self._position = found.end()
        if name[0].isdigit() and self._text[found.start() - 1] != "{":
            name = name[:1]  # `$10` is `$1` and a zero, `${10}` is the tenth
            self._position = found.start() + 1
        return name

    def _braces(self) -> str:
        if self._peek() in ("}", ":", ""):
            raise InvalidArgument("syntax error: bad substitution" if self._peek() else "syntax error: missing '}'")
        name = self._name()
        operator = self._next()
        if operator == "}" and name:
            return self._env.get(name, "")
        if not name or not operator:
            raise InvalidArgument("syntax error: bad substitution" if operator else "syntax error: missing '}'")
        if operator == ":":
            operator += self._next()
        value = self._env.get(name)
        if operator in (":+", ":-", ":?", "+", "-", "?"):
            return self._choose(name, value, operator, self._argument())
        if operator in ("#", "%"):
            greedy = self._peek() == operator
            self._position += greedy
            return _trim(value or "", self._argument(), operator, greedy=greedy)
        if operator == "/":
            every = self._peek() == "/"
            self._position += every
            pattern = self._until("/", _Words())
            return _replace(value or "", pattern, self._argument(), every=every)
        raise InvalidArgument(f"unsupported modifier ({operator}) in substitution")

    def _argument(self) -> str:
        try:
            return self._until("}", _Words())
        except InvalidArgument as error:
            if self._peek():
                raise
            raise InvalidArgument("syntax error: missing '}'") from error

    def _choose(self, name: str, value: str | None, operator: str, word: str) -> str:
        there = bool(value) if operator[0] == ":" else value is not None
        if operator[-1] == "+":
            return word if there else ""
        if there:
            return value or ""
        if operator[-1] == "-":
            return word
        raise InvalidArgument(f"{name}: {word or 'not allowed to be ' + ('empty' if operator[0] == ':' else 'unset')}")


def _trim(value: str, pattern: str, side: str, *, greedy: bool) -> str:
    """`${name#pattern}` and its three relatives."""
    whole = re.compile(_regex(pattern), re.DOTALL)
    lengths: list[int] = list(range(len(value) + 1))
    for length in reversed(lengths) if greedy else lengths:
        piece = value[:length] if side == "#" else value[len(value) - length :]
        if whole.fullmatch(piece):
            return value[length:] if side == "#" else value[: len(value) - length]
    return value


def _replace(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    return re.sub(_regex(pattern), lambda _: replacement, value, count=0 if every else 1, flags=re.DOTALL)


def _regex(pattern: str) -> str:
    """A shell pattern of `*`, `?` and escapes as a regular expression."""
    result = ""
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            result += ".*"
        elif character == "?":
            result += "."
        else:
            result += re.escape(next(characters, "\\") if character == "\\" else character)
    return result
