"""The query parameter `filters`: `{"label": {"a=b": true}}`, or the lists of old clients. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyboxd import jsontext
from pyboxd.errors import InvalidArgument

Filters = Mapping[str, tuple[str, ...]]


def parse(text: str, known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Values by key. InvalidArgument for a key that is not `known`, or for something that is no filter."""
    if not text:
        return {}
    try:
        value = jsontext.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid filter: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument("invalid filter: an object is expected")
    found: dict[str, tuple[str, ...]] = {}
    for key, content in value.items():
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")
        found[key] = _values(key, content)
    return found


def _values(key: str, content: object) -> tuple[str, ...]:
    if isinstance(content, dict):
        return tuple(text for text, wanted in content.items() if wanted)
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return tuple(content)
    raise InvalidArgument(f"invalid filter '{key}'")


def flag(filters: Filters, key: str) -> bool | None:
    """A filter that is true or false; None when it is not given. InvalidArgument."""
    values = filters.get(key)
    if not values:
        return None
    if len(values) == 1 and values[0].lower() in ("1", "true", "t"):
        return True
    if len(values) == 1 and values[0].lower() in ("0", "false", "f"):
        return False
    raise InvalidArgument(f"invalid filter '{key}={list(values)}'")


def labels_match(filters: Filters, labels: Mapping[str, str]) -> bool:
    """`label` (all must be there) and `label!` (none may)."""
    return all(_label(labels, text) for text in filters.get("label", ())) and not any(
        _label(labels, text) for text in filters.get("label!", ())
    )


def _label(labels: Mapping[str, str], text: str) -> bool:
    name, separator, value = text.partition("=")
    return name in labels and (not separator or labels[name] == value)


def chosen(filters: Filters, key: str, *values: str) -> bool:
    """Whether `key` is not filtered by, or names one of `values`."""
    return not filters.get(key) or any(value in filters[key] for value in values)


def prefixed(filters: Filters, key: str, value: str) -> bool:
    """Whether `key` is not filtered by, or has a beginning of `value`."""
    return not filters.get(key) or value.startswith(filters[key])


def contained(filters: Filters, key: str, value: str) -> bool:
    """Whether `key` is not filtered by, or has a part of `value`."""
    return not filters.get(key) or any(part in value for part in filters[key])
