"""Tables that say how Docker's JSON objects become frozen values and back. No Docker key is named here.

A `Table` lists (JSON key, attribute, kind). Keys are matched without regard to case, unknown ones are ignored, null
means "not there", and a wrong type is an `InvalidArgument` in the words of Go's decoder, as Docker's clients know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen

T = TypeVar("T")
JsonObject = dict[str, Any]


@frozen
class Kind:
    """How one value is read and written; `decode` gets the value and its place ("HostConfig.Memory")."""

    decode: Callable[[Any, str], Any]
    encode: Callable[[Any], Any] = lambda value: value


@frozen
class Field:
    """One key of an object; `omit_empty` leaves its zero value out of the output, `omit_none` only None."""

    key: str
    attribute: str
    kind: Kind
    omit_empty: bool = False
    omit_none: bool = False


def wrong_type(value: object, place: str, wanted: str) -> InvalidArgument:
    """The error for a value of the wrong type; `wanted` is Go's name of the right one."""
    struct = f"Go struct field {place}" if "." in place else "Go value"
    return InvalidArgument(f"invalid JSON: json: cannot unmarshal {_go_name(value)} into {struct} of type {wanted}")


def _go_name(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names: tuple[tuple[type, str], ...] = ((str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")


class Table(Generic[T]):
    """The JSON form of the class `made`; `name` is what errors call it."""

    def __init__(self, made: Callable[..., T], name: str, *fields: Field) -> None:
        self._made = made
        self._name = name
        self._fields = fields
        self._by_key = {field.key.lower(): field for field in fields}

    def decode(self, value: object, place: str = "") -> T:
        """The value that `value` describes. InvalidArgument."""
        return self._made(**self.given(value, place))

    def given(self, value: object, place: str = "") -> dict[str, Any]:
        """Only the attributes that `value` names, decoded."""
        found: dict[str, Any] = {}
        for key, content in read_object(value, place or self._name).items():
            field = self._by_key.get(key.lower())
            if field is not None and content is not None:
                found[field.attribute] = field.kind.decode(content, f"{self._name}.{field.key}")
        return found

    def encode(self, value: T) -> JsonObject:
        """The JSON object of a value."""
        result: JsonObject = {}
        for field in self._fields:
            content = getattr(value, field.attribute)
            if (field.omit_empty and not content) or (field.omit_none and content is None):
                continue
            result[field.key] = field.kind.encode(content)
        return result

    def kind(self) -> Kind:
        """This object as the value of a key."""
        return Kind(self.decode, self.encode)


def given(data: JsonObject, key: str, default: Any) -> Any:
    """The value of a key, `default` when it is missing or null."""
    value = data.get(key)
    return default if value is None else value


def read_object(value: object, place: str) -> JsonObject:
    if not isinstance(value, dict):
        raise wrong_type(value, place, "map")
    return value


def read_list(value: object, place: str, wanted: str = "[]string") -> list[Any]:
    if not isinstance(value, list):
        raise wrong_type(value, place, wanted)
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(value, place, "string")
    if "\0" in value:  # no name, path or argument that the kernel is given can have one
        raise InvalidArgument(f"invalid JSON: {place} has a NUL in it")
    return value


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, place, "bool")
    return value


def _integer(value: object, place: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(value, place, "int64")
    if not -(1 << 63) <= value < 1 << 63:
        raise wrong_type(value, place, "int64")
    return value


def _texts(value: object, place: str) -> tuple[str, ...]:
    return tuple(_text(item, place) for item in read_list(value, place))


def _command(value: object, place: str) -> tuple[str, ...]:
    """A command: a list, or (old clients) one text."""
    return (_text(value, place),) if isinstance(value, str) else _texts(value, place)


def _pairs(value: object, place: str) -> tuple[tuple[str, str], ...]:
    items = read_object(value, place).items()
    return tuple((_text(key, place), "" if content is None else _text(content, place)) for key, content in items)


def _keys(value: object, place: str) -> tuple[str, ...]:
    return tuple(_text(key, place) for key in read_object(value, place))


def _null_or_list(value: Iterable[Any] | None) -> list[Any] | None:
    return None if value is None else list(value)


def list_of(inner: Kind, wanted: str = "[]object") -> Kind:
    """A list whose items are of one kind."""
    return Kind(
        lambda value, place: tuple(inner.decode(item, place) for item in read_list(value, place, wanted)),
        lambda value: [inner.encode(item) for item in value],
    )


def optional(inner: Kind) -> Kind:
    """A value that is null when there is none."""
    return Kind(inner.decode, lambda value: None if value is None else inner.encode(value))


TEXT = Kind(_text)
FLAG = Kind(_flag)
INTEGER = Kind(_integer)
TEXTS = Kind(_texts, list)
TEXTS_OR_NULL = Kind(_texts, _null_or_list)
COMMAND = Kind(_command, _null_or_list)
PAIRS = Kind(_pairs, dict)
KEYS = Kind(_keys, lambda value: {key: {} for key in value})  # a set, as Go writes it: {"80/tcp": {}}
KEYS_OR_NULL = Kind(_keys, lambda value: {key: {} for key in value} if value else None)
