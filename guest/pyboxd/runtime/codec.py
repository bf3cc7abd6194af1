"""Frozen values to JSON and back, driven by their annotations; nothing in the values knows about it.

Tuples and sets become lists, values become objects with their field names. Decoding is strict: an unknown key or
a wrong type is an `InvalidArgument` that names the place (`ContainerSpec.mounts[0].target`).
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import defaults_of, is_frozen, names

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]
_PRIMITIVES = (str, int, float, bool)
_decoders: dict[Any, Decoder] = {}


def dumps(value: Any, sparse: bool = False) -> bytes:
    """One value as compact JSON.

    `sparse` leaves out fields that have their default: for messages, which both sides read with the same
    defaults, and not for what is kept.
    """
    encoded = encode(value, sparse)
    return json.dumps(encoded, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def loads(kind: type[T], data: bytes) -> T:
    """The value of class `kind` that JSON text describes. InvalidArgument."""
    try:
        parsed = json.loads(data.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise InvalidArgument(f"{kind.__name__}: not JSON: {error}") from error
    decoded: T = decoder(kind)(parsed, kind.__name__)
    return decoded


def prepare(*kinds: Any) -> None:
    """Make the decoders of these classes now: in a process that forks, all its children have them then."""
    for kind in kinds:
        decoder(kind)


def encode(value: Any, sparse: bool = False) -> Any:
    """A value as the objects that `json` takes."""
    if value is None or isinstance(value, _PRIMITIVES):
        return value
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [encode(item, sparse) for item in value]
    if is_frozen(value):
        contents = vars(value)
        defaults = defaults_of(value) if sparse else {}
        return {
            name: encode(contents[name], sparse)
            for name in names(value)
            if name not in defaults or contents[name] != defaults[name]
        }
    raise TypeError(f"cannot encode {type(value).__name__}")


def decoder(kind: Any) -> Decoder:
    """The function that decodes values of `kind`; made once per kind."""
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = _make_decoder(kind)
    return found


def _make_decoder(kind: Any) -> Decoder:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PRIMITIVES:
        return _primitive(kind)
    if is_frozen(kind):
        return _object(kind)
    if origin is types.UnionType:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _optional(decoder(inner))
    if origin is frozenset:
        return _sequence(frozenset, decoder(arguments[0]))
    if origin is tuple and arguments[-1] is Ellipsis:
        return _sequence(tuple, decoder(arguments[0]))
    if origin is tuple:
        return _fixed(tuple(decoder(argument) for argument in arguments))
    raise TypeError(f"no decoder for {kind}")


def _primitive(kind: type) -> Decoder:
    def decode(value: Any, place: str) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise InvalidArgument(f"{place}: {kind.__name__} expected, not {type(value).__name__}")
        return value

    return decode


def _optional(inner: Decoder) -> Decoder:
    return lambda value, place: None if value is None else inner(value, place)


def _sequence(container: Callable[[Any], Any], inner: Decoder) -> Decoder:
    def decode(value: Any, place: str) -> Any:
        items = _list(value, place)
        return container([inner(item, f"{place}[{index}]") for index, item in enumerate(items)])

    return decode


def _fixed(inners: tuple[Decoder, ...]) -> Decoder:
    def decode(value: Any, place: str) -> Any:
        items = _list(value, place)
        if len(items) != len(inners):
            raise InvalidArgument(f"{place}: {len(inners)} items expected, not {len(items)}")
        return tuple(inner(item, f"{place}[{index}]") for index, (inner, item) in enumerate(zip(inners, items, strict=True)))

    return decode


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidArgument(f"{place}: list expected, not {type(value).__name__}")
    return value


def _object(kind: Any) -> Decoder:
    hints = typing.get_type_hints(kind)
    inners = {name: decoder(hints[name]) for name in names(kind)}
    needed = inners.keys() - defaults_of(kind).keys()

    def decode(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise InvalidArgument(f"{place}: object expected, not {type(value).__name__}")
        wrong = sorted((value.keys() - inners.keys()) | (needed - value.keys()))
        if wrong:
            raise InvalidArgument(f"{place}: unknown or missing: {', '.join(wrong)}")
        return kind(**{name: inners[name](content, f"{place}.{name}") for name, content in value.items()})

    return decode
