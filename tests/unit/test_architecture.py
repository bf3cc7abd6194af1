"""The directions of imports, and the few things that only one module may touch (design: "Layout")."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import syntax

ROOT = Path(__file__).parents[2]

HOST_ORDER = (
    {"cli"},
    {"app"},
    {"hostagent"},
    {"machine"},
    {"engine", "forward", "share"},
    {"qemu", "hostos"},
    {"process", "settings", "settings_values", "paths", "files", "log", "model", "errors", "frozen"},
)
# The shapes that handlers are written against; the rest of `server` is above `api`.
HANDLER_SHAPES = {"message", "routes", "frames", "websocket", "websocket_channel"}

GUEST_ORDER = (
    {"server"},
    {"api"},
    {"handlers"},
    {"boot"},
    {"engine"},
    {"image", "network", "runtime"},
    {"linux"},
    {"model", "errors", "database", "locations", "frozen", "jsontext"},
)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in syntax.nodes(path.read_text()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def room(parts: Sequence[str]) -> str:
    if len(parts) > 1 and parts[0] == "server" and parts[1].removesuffix(".py") in HANDLER_SHAPES:
        return "handlers"
    return parts[0].removesuffix(".py")


def rank(order: tuple[set[str], ...], room: str) -> int | None:
    return next((level for level, rooms in enumerate(order) if room in rooms), None)


def wrong_directions(package: str, folder: str, order: tuple[set[str], ...]) -> list[str]:
    found = []
    for path in modules(folder):
        own = room(path.relative_to(ROOT / folder).parts)
        if own.startswith("__"):
            continue
        own_rank = rank(order, own)
        assert own_rank is not None, f"{path} is in no known room"
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != package or len(parts) < 2 or room(parts[1:]) == own:
                continue
            other = rank(order, room(parts[1:]))
            bottom = own_rank == other == len(order) - 1
            if other is None or other < own_rank or (other == own_rank and not bottom):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


def test_host_imports_go_down() -> None:
    assert wrong_directions("pybox", "host/pybox", HOST_ORDER) == []


def test_guest_imports_go_down() -> None:
    assert wrong_directions("pyboxd", "guest/pyboxd", GUEST_ORDER) == []


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("host/pybox", "pyboxd"),
        ("guest/pyboxd", "pybox"),
        ("images/pybox_image", "pybox"),
        ("guest/pyboxd", "pybox_image"),
    ],
)
def test_packages_keep_apart(folder: str, forbidden: str) -> None:
    guilty = [str(path) for path in modules(folder) if any(name.split(".")[0] == forbidden for name in imports(path))]
    assert guilty == []


def test_only_app_knows_the_image_builder() -> None:
    guilty = [
        str(path.relative_to(ROOT))
        for path in modules("host/pybox")
        if path.relative_to(ROOT / "host/pybox").parts[0] != "app"
        and any(name.split(".")[0] == "pybox_image" for name in imports(path))
    ]
    assert guilty == []


@pytest.mark.parametrize("module", ["init", "monitor"])
def test_runtime_processes_know_no_engine(module: str) -> None:
    path = ROOT / f"guest/pyboxd/runtime/{module}.py"
    assert not [name for name in imports(path) if name.startswith(("pyboxd.engine", "pyboxd.api", "asyncio"))]


def users(folder: str, attribute: str, base: str) -> set[str]:
    found = set()
    for path in modules(folder):
        for node in syntax.nodes(path.read_text()):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == attribute
                and isinstance(node.value, ast.Name)
                and node.value.id == base
            ):
                found.add(path.relative_to(ROOT / folder).as_posix())
    return found


def importers(folder: str, module: str) -> set[str]:
    return {path.relative_to(ROOT / folder).as_posix() for path in modules(folder) if module in imports(path)}


def test_one_place_asks_which_system_this_is() -> None:
    assert users("host/pybox", "platform", "sys") <= {"hostos/__init__.py"}


def test_one_process_door() -> None:
    assert importers("host/pybox", "subprocess") <= {"process.py"}
    assert len(importers("guest/pyboxd", "subprocess")) <= 1


def test_one_loader_of_c_libraries() -> None:
    guilty = {name for name in importers("guest/pyboxd", "ctypes") if "CDLL(" in (ROOT / "guest/pyboxd" / name).read_text()}
    assert guilty <= {"linux/libc.py"}


@pytest.mark.parametrize("folder", ["host/pybox", "guest/pyboxd", "images/pybox_image"])
def test_modules_and_functions_stay_small(folder: str) -> None:
    for path in modules(folder):
        text = path.read_text()
        assert text.count("\n") <= 460, f"{path} is too long"
        for node in syntax.nodes(text):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 80, f"{path}:{node.lineno} {node.name} has {length} lines"
