"""The part of Go templates that people type after `--format`: fields, pipes, functions, `range`, `if`, `with`.

Pure. Raises UsageProblem for what it does not know, never prints a half result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pybox.errors import UsageProblem

_TOKEN = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)

Node = str | tuple[str, str, list[Any], list[Any]]


def render(template: str, value: object) -> str:
    """`template` filled from `value` (dictionaries, lists, scalars as the API's JSON has them)."""
    text = template.replace("\\n", "\n").replace("\\t", "\t")
    nodes, rest, _ = _parse(iter(_split(text)))
    if rest:
        raise _problem(template, f"unexpected {{{{{rest}}}}}")
    return "".join(_run(nodes, value, value))


def _split(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    for match in _TOKEN.finditer(text):
        if match.start() > position:
            yield "text", text[position : match.start()]
        yield "action", match.group(1)
        position = match.end()
    if position < len(text):
        yield "text", text[position:]


def _parse(tokens: Iterator[tuple[str, str]]) -> tuple[list[Node], str, str]:
    """Nodes up to an `end` or `else` (returned as the second value)."""
    nodes: list[Node] = []
    for kind, body in tokens:
        if kind == "text":
            nodes.append(json.dumps(body))
            continue
        word, _, argument = body.partition(" ")
        if word in ("end", "else"):
            return nodes, word, argument
        if word in ("range", "if", "with"):
            inside, stop, _ = _parse(tokens)
            otherwise: list[Node] = []
            if stop == "else":
                otherwise, stop, _ = _parse(tokens)
            if stop != "end":
                raise _problem(body, "missing {{end}}")
            nodes.append((word, argument.strip(), inside, otherwise))
        else:
            nodes.append(body)
    return nodes, "", ""


def _run(nodes: Sequence[Node], value: object, root: object) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield _text(_pipeline(node, value, root))
            continue
        word, expression, inside, otherwise = node
        found = _pipeline(expression, value, root)
        if word == "range":
            items = list(found.values()) if isinstance(found, Mapping) else list(found or [])
            for item in items:
                yield from _run(inside, item, root)
            if not items:
                yield from _run(otherwise, value, root)
        elif found:
            yield from _run(inside, found if word == "with" else value, root)
        else:
            yield from _run(otherwise, value, root)


def _pipeline(expression: str, value: object, root: object) -> Any:
    result: Any = None
    for number, part in enumerate(_pipes(expression)):
        words = _cut(part, " ")
        extra = [result] if number else []
        result = _command(words, extra, value, root)
    return result


def _pipes(expression: str) -> list[str]:
    return _cut(expression, "|")


def _cut(text: str, separator: str) -> list[str]:
    """`text` cut at `separator` where it is outside quotes and parentheses; empty parts of spaces are dropped."""
    parts, depth, quoted, current = [], 0, "", ""
    for character in text:
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in '"`':
            quoted = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == separator and depth == 0:
            parts.append(current)
            current = ""
            continue
        current += character
    return [part for part in [*parts, current] if part.strip() or separator != " "]


def _command(words: list[str], extra: list[Any], value: object, root: object) -> Any:
    if not words:
        raise UsageProblem("The template has an empty action.", resolution="Write a field such as {{.Names}}.")
    function = _FUNCTIONS.get(words[0])
    if function is None:
        return _operand(words[0], value, root)
    return function(*[_operand(word, value, root) for word in words[1:]], *extra)


def _operand(word: str, value: object, root: object) -> Any:
    if word.startswith('"'):
        return json.loads(word)
    if word.startswith("`"):
        return word[1:-1]
    if word.startswith("("):
        inside, _, path = word.rpartition(")")
        return _walk(_pipeline(inside[1:], value, root), path, word)
    if word.lstrip("-").isdigit():
        return int(word)
    start: Any = root if word.startswith("$") else value
    path = word.lstrip("$")
    if not path.startswith("."):
        raise _problem(word, f'function "{word}" not defined')
    return _walk(start, path, word)


def _walk(start: Any, path: str, word: str) -> Any:
    for name in filter(None, path.split(".")):
        start = _field(start, name, word)
    return start


def _field(value: Any, name: str, word: str) -> Any:
    if isinstance(value, Mapping):
        try:
            return value[name]
        except KeyError:
            folded = next((key for key in value if key.lower() == name.lower()), None)
            if folded is not None:
                return value[folded]
            return None
    if value is None:
        return None
    raise _problem(word, f"can't evaluate field {name}")


def _text(value: object) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_text(item) for item in value) + "]"
    return str(value)


def _index(container: Any, *keys: Any) -> Any:
    for key in keys:
        if container is None:
            return None
        container = container.get(key) if isinstance(container, Mapping) else container[int(key)]
    return container


def _printf(form: str, *values: Any) -> str:
    return re.sub(r"%v|%q", "%s", form) % tuple(_text(value) if not isinstance(value, int) else value for value in values)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "upper": lambda value: _text(value).upper(),
    "lower": lambda value: _text(value).lower(),
    "title": lambda value: _text(value).title(),
    "join": lambda items, separator: separator.join(_text(item) for item in items),
    "split": lambda text, separator: str(text).split(separator),
    "len": lambda value: len(value or ""),
    "index": _index,
    "println": lambda *values: " ".join(_text(value) for value in values) + "\n",
    "print": lambda *values: "".join(_text(value) for value in values),
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "truncate": lambda value, length: _text(value)[: int(length)],
}


def _problem(template: str, why: str) -> UsageProblem:
    return UsageProblem(
        "The template cannot be used.",
        f"{template}: {why}",
        "Fields are written {{.Name}}; see --format json.",
    )
