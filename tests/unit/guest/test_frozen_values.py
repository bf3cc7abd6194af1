"""Which values of the engine are real dataclasses: each such class takes half a millisecond of every start."""

from __future__ import annotations

import ast
from pathlib import Path

import pyboxd
from tests.support import syntax

ROOT = Path(pyboxd.__file__).parent
# Made for every file of an archive or a tree, and for every line of a log, so that the time of making one counts.
OFTEN = {
    "engine/changes.py": {"Change"},
    "engine/logs.py": {"LogEntry"},
    "image/tarread.py": {"TarEntry"},
}


def test_other_values_are_frozen_without_dataclasses() -> None:
    found: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        for node in syntax.nodes(path.read_text()):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(decorator).startswith("dataclass(frozen=True") for decorator in node.decorator_list
            ):
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(node.name)
    assert found == OFTEN
