"""Durations as Go writes them: `1h30m`, `1.5s`, `300ms`. Pure."""

from __future__ import annotations

import re

from pyboxd.errors import InvalidArgument

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> int:
    """Nanoseconds; InvalidArgument in Go's words."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    parts = list(_PART.finditer(rest))
    if not parts or "".join(part.group() for part in parts) != rest:
        problem = "missing unit in duration" if re.fullmatch(r"[\d.]*\d[\d.]*", rest) else "invalid duration"
        raise InvalidArgument(f'time: {problem} "{text}"')
    return sign * sum(round(float(part.group(1)) * _UNITS[part.group(2)]) for part in parts)


def format_duration(nanoseconds: int) -> str:
    """As Go prints it: `1m30s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    for unit in ("ns", "us", "ms"):
        if nanoseconds < _UNITS["s"] and (unit == "ms" or nanoseconds < _UNITS[unit] * 1000):
            return f"{nanoseconds / _UNITS[unit]:g}{unit}"
    hours, rest = divmod(nanoseconds, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{rest / _UNITS['s']:.9f}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"
