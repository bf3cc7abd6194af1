"""The order of Debian version numbers (deb-version(7))."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache

# `Version` of the same module uses libapt where it happens to be installed; this one is the same everywhere.
from debian.debian_support import NativeVersion

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">>": operator.gt,
}


@cache
def compare(left: str, right: str) -> int:
    """Return a negative number, zero or a positive number as `left` is older than, equal to or newer than `right`."""
    one, other = NativeVersion(left), NativeVersion(right)
    return (one > other) - (one < other)


def satisfies(version: str, relation: str, wanted: str) -> bool:
    """Whether `version` fulfils `relation wanted`, for example `1.2-1` for `>= 1.0`."""
    return _RELATIONS[relation](compare(version, wanted), 0)
