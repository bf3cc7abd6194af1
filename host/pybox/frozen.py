"""Classes of values that do not change: what `dataclass(frozen=True)` makes, without its cost at import.

That one writes and compiles source for every class, half a millisecond each, of which a start of the machine would wait
for fifty; these classes share their methods. Making an instance takes a microsecond longer, so what is made by the
thousand (the folder server's requests) stays with `dataclasses`.

    @frozen
    class Port:
        number: int
        protocol: str = "tcp"
"""

from __future__ import annotations

from typing import Any, TypeVar, dataclass_transform

Value = TypeVar("Value")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[Value]) -> type[Value]:
    """Make a class of its annotated names: positional and keyword arguments, equality by value, a hash, no changes.

    A default is shared by all instances, so it must be a value itself.
    """
    names = tuple(cls.__annotations__)
    defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
    # Attributes and methods, unless the class has its own.
    common = {**_METHODS, "__match_args__": names, "_defaults": defaults}
    for name, value in common.items():
        if name not in cls.__dict__:
            setattr(cls, name, value)
    return cls


def replace(value: Value, **changes: Any) -> Value:
    """Return a value with some parts changed. Raises TypeError for a name that it does not have."""
    return type(value)(**{**value.__dict__, **changes})


def as_dict(value: Any) -> dict[str, Any]:
    """Return the parts of a value by their names, values in it (also in tuples and lists) taken apart in the same way."""
    return {name: _plain(getattr(value, name)) for name in value.__match_args__}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return as_dict(value) if hasattr(type(value), "_defaults") else value


def _init(self: Any, *args: Any, **named: Any) -> None:
    names = self.__match_args__
    if len(args) > len(names):
        raise TypeError(f"{type(self).__name__} has {len(names)} parts, not {len(args)}")
    given = dict(zip(names, args, strict=False))
    if twice := given.keys() & named.keys():
        raise TypeError(f"{type(self).__name__} was given {' and '.join(sorted(twice))} twice")
    parts = {**self._defaults, **given, **named}
    if len(parts) != len(names) or parts.keys() != set(names):
        wrong = sorted(parts.keys() ^ set(names))
        raise TypeError(f"{type(self).__name__} lacks, or does not have, {' and '.join(wrong)}")
    self.__dict__.update(parts)


def _eq(self: Any, other: object) -> bool:
    return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple(getattr(self, name) for name in self.__match_args__))


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
