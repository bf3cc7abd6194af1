"""Kernel modules: loaded by name with what they depend on, without a process."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pyboxd.linux.process import finit_module


def _name(path: str) -> str:
    return os.path.basename(path).partition(".")[0].replace("-", "_")


def parse_dependencies(text: str) -> dict[str, tuple[str, list[str]]]:
    """modules.dep -> module name -> (its path, names it needs directly or not, nearest first)."""
    found = {}
    for line in text.splitlines():
        path, _, needs = line.partition(":")
        found[_name(path)] = (path, [_name(need) for need in needs.split()])
    return found


def load_order(table: dict[str, tuple[str, list[str]]], names: Iterable[str]) -> list[str]:
    """Paths of the modules in an order in which each finds what it needs. KeyError names an unknown module."""
    order: dict[str, None] = {}

    def add(name: str) -> None:
        path, needs = table[name]
        if path not in order:
            for need in reversed(needs):
                add(need)
            order[path] = None

    for name in names:
        add(name)
    return list(order)


def load(names: Iterable[str], folder: str = "") -> None:
    """Load modules that are not loaded yet; what is built into the kernel counts as loaded.

    `folder` is where modules.dep is, by default that of the running kernel. OSError when one cannot be loaded,
    KeyError when the image does not have one.
    """
    folder = folder or f"/usr/lib/modules/{os.uname().release}"
    with open(f"{folder}/modules.dep") as file:
        table = parse_dependencies(file.read())
    with open(f"{folder}/modules.builtin") as file:
        built_in = {_name(path) for path in file.read().split()}
    wanted = [name for name in names if name not in built_in and not _is_loaded(name)]
    for path in load_order(table, wanted):
        if not _is_loaded(_name(path)):
            _load_file(f"{folder}/{path}")


def _is_loaded(name: str) -> bool:
    return os.path.exists(f"/sys/module/{name}")


def _load_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        finit_module(descriptor)
    except FileExistsError:
        pass  # a request of the kernel itself was faster
    finally:
        os.close(descriptor)
