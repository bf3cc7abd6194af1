"""What a container uses, read from the files of its cgroup. Bytes, nanoseconds, counts."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pyboxd.errors import NotFound
from pyboxd.frozen import frozen

_NO_LIMIT = 0


@frozen
class BlockIo:
    """Traffic of one block device."""

    major: int
    minor: int
    read_bytes: int
    write_bytes: int
    reads: int
    writes: int


@frozen
class Stats:
    """One reading. Limits are 0 where there is none."""

    cpu_total_ns: int
    cpu_user_ns: int
    cpu_system_ns: int
    throttling_periods: int
    throttled_periods: int
    throttled_ns: int
    memory_usage: int
    memory_limit: int
    memory_stat: Mapping[str, int]  # memory.stat under the kernel's names
    memory_failures: int  # how often the limit was hit
    pids: int
    pids_limit: int
    block_io: tuple[BlockIo, ...]


def read_stats(cgroup: str) -> Stats:
    """Read the figures of a cgroup. NotFound when it is gone; a controller that is off gives zeros."""
    if not os.path.isdir(cgroup):
        raise NotFound(f"no such cgroup: {cgroup}")
    cpu = _table(cgroup, "cpu.stat")
    return Stats(
        cpu_total_ns=cpu.get("usage_usec", 0) * 1000,
        cpu_user_ns=cpu.get("user_usec", 0) * 1000,
        cpu_system_ns=cpu.get("system_usec", 0) * 1000,
        throttling_periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory_usage=_number(cgroup, "memory.current"),
        memory_limit=_number(cgroup, "memory.max"),
        memory_stat=_table(cgroup, "memory.stat"),
        memory_failures=_table(cgroup, "memory.events").get("max", 0),
        pids=_number(cgroup, "pids.current"),
        pids_limit=_number(cgroup, "pids.max"),
        block_io=_block_io(_text(cgroup, "io.stat")),
    )


def _text(cgroup: str, name: str) -> str:
    try:
        with open(f"{cgroup}/{name}", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _number(cgroup: str, name: str) -> int:
    text = _text(cgroup, name).strip()
    return int(text) if text.isdigit() else _NO_LIMIT


def _table(cgroup: str, name: str) -> dict[str, int]:
    pairs = (line.split() for line in _text(cgroup, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _block_io(text: str) -> tuple[BlockIo, ...]:
    devices = []
    for line in text.splitlines():
        number, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        major, minor = number.split(":")
        counts = [int(values.get(key, 0)) for key in ("rbytes", "wbytes", "rios", "wios")]
        devices.append(BlockIo(int(major), int(minor), *counts))
    return tuple(devices)
