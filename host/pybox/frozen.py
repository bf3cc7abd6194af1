"""Classes of values that do not change: what `dataclass(frozen=True)` makes, without its cost at import.

That one writes and compiles source for every class, half a millisecond each, of which a start would wait for fifty on the
host and for two hundred in the machine; these classes share their methods. Making an instance takes about as long, with
one or two parts a fraction of a microsecond longer, so what is made by the thousand (the folder server's requests, the
entries of a tar) stays with `dataclasses`. Host and guest have the same text.

    @frozen
    class Port:
        number: int
        protocol: str = "tcp"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar, dataclass_transform

Value = TypeVar("Value")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[Value]) -> type[Value]:
    """Make a class of its annotated names: positional and keyword arguments, equality by value, a hash, no changes.

    The parts of a frozen class that it extends come first. A default is shared by all instances, so it must be a
    value itself.
    """
    parts: dict[str, None] = {}
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        if "_defaults" in base.__dict__:
            parts.update(dict.fromkeys(names(base)))
            defaults.update(defaults_of(base))
    parts.update(dict.fromkeys(cls.__annotations__))
    defaults.update({name: cls.__dict__[name] for name in cls.__annotations__ if name in cls.__dict__})
    # Attributes and methods, unless the class has its own.
    common = {**_METHODS, "__match_args__": tuple(parts), "_names": frozenset(parts), "_defaults": defaults}
    for name, value in common.items():
        if name not in cls.__dict__:
            setattr(cls, name, value)
    return cls


def is_frozen(kind: Any) -> bool:
    """Whether `kind` is such a class, or a value of one."""
    return hasattr(kind, "_defaults")


def names(kind: Any) -> tuple[str, ...]:
    """Return the names of the parts of a frozen class or value, in their order."""
    found: tuple[str, ...] = kind.__match_args__
    return found


def defaults_of(kind: Any) -> Mapping[str, Any]:
    """Return the parts of a frozen class or value that need not be given, with what they are then."""
    found: Mapping[str, Any] = kind._defaults
    return found


def replace(value: Value, **changes: Any) -> Value:
    """Return a value with some parts changed. Raises TypeError for a name that it does not have."""
    return type(value)(**{**value.__dict__, **changes})


def as_dict(value: Any) -> dict[str, Any]:
    """Return the parts of a value by their names, values in it (also in tuples and lists) taken apart in the same way."""
    return {name: _plain(getattr(value, name)) for name in names(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return as_dict(value) if is_frozen(value) else value


def _init(self: Any, /, *args: Any, **named: Any) -> None:
    names, parts = self.__match_args__, self.__dict__
    if not named and len(args) == len(names):  # most often so
        parts.update(zip(names, args))  # noqa: B905 (the keyword would take as long as the rest)
        return
    parts.update(self._defaults)
    if args:
        parts.update(zip(names, args))  # noqa: B905
        if len(args) > len(names) or not named.keys().isdisjoint(names[: len(args)]):
            _complain(self, args, named)
    parts.update(named)
    if parts.keys() != self._names:
        _complain(self, args, named)


def _complain(self: Any, args: tuple[Any, ...], named: dict[str, Any]) -> NoReturn:
    kind, names = type(self).__name__, self.__match_args__
    if len(args) > len(names):
        raise TypeError(f"{kind} has {len(names)} parts, not {len(args)}")
    if twice := named.keys() & set(names[: len(args)]):
        raise TypeError(f"{kind} was given {' and '.join(sorted(twice))} twice")
    wrong = sorted(self.__dict__.keys() ^ self._names)
    raise TypeError(f"{kind} lacks, or does not have, {' and '.join(wrong)}")


def _eq(self: Any, other: object) -> bool:
    return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple(map(self.__dict__.__getitem__, self.__match_args__)))


def _repr(self: Any) -> str:
    parts = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({', '.join(parts)})"


def _refuse(self: Any, name: str, *_: object) -> None:
    raise AttributeError(f"{name} of {type(self).__name__} cannot be changed")


_METHODS: dict[str, Any] = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
}
