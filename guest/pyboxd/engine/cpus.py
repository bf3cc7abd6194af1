"""Processors and memory of the machine, and the kernel's list format ("0-2,5")."""

from __future__ import annotations

import os
import re

_ONLINE = "/sys/devices/system/cpu/online"
_NODES = "/sys/devices/system/node/online"
_LIST = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_LAST = 8191  # the kernel's own bound of a number
_LONGEST = 4096  # characters


def count() -> int:
    """Processors that are online."""
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory the kernel has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def online() -> frozenset[int]:
    """Numbers of the processors that are online."""
    return _read_list(_ONLINE)


def memory_nodes() -> frozenset[int]:
    """Numbers of the memory nodes."""
    return _read_list(_NODES)


def _read_list(path: str) -> frozenset[int]:
    try:
        with open(path) as file:
            return parse_list(file.read().strip())
    except FileNotFoundError:  # a kernel without NUMA has one node and no file for it
        return frozenset({0})


def parse_list(text: str) -> frozenset[int]:
    """The numbers of "0-2,5". ValueError."""
    if len(text) > _LONGEST or not _LIST.fullmatch(text):
        raise ValueError(text)
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high <= _LAST:
            raise ValueError(part)
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def format_list(numbers: frozenset[int]) -> str:
    """The shortest list text of `numbers`."""
    parts: list[str] = []
    ordered = sorted(numbers)
    start = 0
    for index, number in enumerate(ordered):
        if index + 1 == len(ordered) or ordered[index + 1] != number + 1:
            first = ordered[start]
            parts.append(str(first) if first == number else f"{first}-{number}")
            start = index + 1
    return ",".join(parts)
