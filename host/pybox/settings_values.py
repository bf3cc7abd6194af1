"""What the values of settings may be, and how they are written: on the command line, in TOML, in JSON."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pybox.errors import UsageProblem
from pybox.frozen import frozen
from pybox.model import Accelerator, Arch

MIB = 1024 * 1024
GIB = 1024 * MIB
_UNITS = {"": 1, "b": 1, "k": 1024, "m": MIB, "g": GIB, "t": 1024 * GIB}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_IDLE = re.compile(r"(suspend|stop):(\d+)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
LEAST_MEMORY_MIB = 512
LEAST_DISK = GIB


class _Wrong(Exception):
    """A value that cannot be: what is wrong, and what would be right."""

    def __init__(self, seen: str, resolution: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.resolution = resolution


Plain = str | int | bool | list[str]
Choice = TypeVar("Choice", bound=StrEnum)


@frozen
class Key:
    """One setting. `parse` takes text, number, truth or list and returns the value that Settings holds."""

    name: str
    parse: Callable[[Any], Any]
    help: str

    def from_text(self, text: str, place: str = "") -> Any:
        """Take what a person typed: lists are separated by commas."""
        return self._checked(_split(text) if self._is_list else text.strip(), place)

    def from_toml(self, value: object, place: str) -> Any:
        return self._checked(value, place)

    def from_json(self, value: Any) -> Any:
        return self._checked(value, "in the start request")

    def to_toml(self, text: str) -> Plain:
        """Return how a typed value stands in the file, checked first."""
        self.from_text(text)
        if self._is_list:
            return _split(text)
        if self.parse is flag:
            return _truth(text)
        return int(text) if re.fullmatch(r"\d+", text.strip()) else text.strip()

    @property
    def _is_list(self) -> bool:
        return self.parse in (words, folders, paths, addresses)

    def _checked(self, value: object, place: str) -> Any:
        try:
            return self.parse(value)
        except _Wrong as wrong:
            where = f" {place}" if place else ""
            raise UsageProblem(
                f"the setting {self.name} cannot be {to_text(value)!r}{where}", wrong.seen, wrong.resolution
            ) from None


def to_text(value: object) -> str:
    """Return a value as one would type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value)


def to_toml_text(value: object) -> str:
    """Return a value as TOML. JSON's strings, numbers and lists are TOML's."""
    return json.dumps(value, ensure_ascii=False)


# -- one function per kind of value -----------------------------------------------------------------


def memory(value: object) -> int | None:
    """Return MiB. A bare number means MiB, because nobody gives a machine 4096 bytes."""
    if value in ("", None):
        return None
    size = _size(value, bare=MIB) // MIB
    if size < LEAST_MEMORY_MIB:
        raise _Wrong(f"{size} MiB are too few for the engine", f"Give {LEAST_MEMORY_MIB} (MiB) or more, or 4G.")
    return size


def disk_size(value: object) -> int:
    """Return bytes, whole MiB."""
    size = _size(value, bare=1) // MIB * MIB
    if size < LEAST_DISK:
        raise _Wrong("the least is 1 GiB", "Give a size with a unit, such as 64G.")
    return size


def cpus(value: object) -> int | None:
    if value in ("", None):
        return None
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else 0
    if not 1 <= number <= 64:
        raise _Wrong("not a number from 1 to 64", "Give a number of CPUs, such as 2.")
    return number


def arch(value: object) -> Arch | None:
    return _choice(value, Arch)


def accelerator(value: object) -> Accelerator | None:
    return None if value == "auto" else _choice(value, Accelerator)


def _choice(value: object, kind: type[Choice]) -> Choice | None:
    if value in ("", None):
        return None
    try:
        return kind(str(value))
    except ValueError:
        raise _Wrong("not one of the known names", f"Take one of {', '.join(kind)}.") from None


def plain(value: object) -> str:
    if not isinstance(value, str) or "\n" in value:
        raise _Wrong("not a line of text", "Give one line of text.")
    return value


def url(value: object) -> str:
    text = plain(value)
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise _Wrong("not an http or https address", "Give an address such as https://example.org/path.")
    return text


def host_ip(value: object) -> str:
    text = plain(value)
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise _Wrong("not an IPv4 address", "Give 127.0.0.1 (this host only) or 0.0.0.0 (all networks).") from None


def absolute_path(value: object) -> str:
    text = plain(value)
    if text and not Path(text).expanduser().is_absolute():
        raise _Wrong("not an absolute path", "Give the whole path.")
    return str(Path(text).expanduser()) if text else ""


@frozen
class Idle:
    """What a machine does by itself when nobody has used it for some time."""

    suspends: bool  # else it stops
    seconds: int
    text: str  # as it was typed: suspend:15m

    def __str__(self) -> str:
        return self.text


def idle(value: object) -> Idle | None:
    if value in ("", None, "off", False):
        return None
    match = _IDLE.fullmatch(str(value).strip())
    if match is None or (seconds := int(match[2]) * _SECONDS[match[3]]) == 0:
        raise _Wrong("neither `off` nor what to do and after how long", "Give suspend:15m, stop:2h or off.")
    return Idle(match[1] == "suspend", seconds, match[0])


def words(value: object) -> tuple[str, ...]:
    return tuple(plain(item) for item in _list(value))


def paths(value: object) -> tuple[str, ...]:
    return tuple(absolute_path(item) for item in _list(value))


def addresses(value: object) -> tuple[str, ...]:
    return tuple(host_ip(item) for item in _list(value))


def folders(value: object) -> tuple[str, ...]:
    """Return shares as they are written: PATH or PATH:ro, absolute or from `~`."""
    found = words(value)
    for item in found:
        path = item.removesuffix(":ro")
        if not Path(path).expanduser().is_absolute():
            raise _Wrong(f"{item!r} is not an absolute path", "Give whole paths, or paths that begin with ~.")
    return found


def flag(value: object) -> bool:
    return value if isinstance(value, bool) else _truth(value)


def _truth(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise _Wrong("neither true nor false", "Give true or false.")


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise _Wrong("not a list", 'Give a list: ["one", "two"] in the file, one,two elsewhere.')
    return value


def _split(text: str) -> list[str]:
    bare = text.strip()
    return [] if bare in ("", "[]") else [item.strip() for item in bare.split(",") if item.strip()]


def _size(value: object, bare: int) -> int:
    """Return bytes; a number without a unit counts in `bare` bytes."""
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, int | str) else None
    if match is None:
        raise _Wrong("not a size", "Give a number with a unit: 512M, 4G.")
    unit = bare if match[2] == "" and str(value).strip()[-1:].isdigit() else _UNITS[match[2].lower()]
    return int(float(match[1]) * unit)
