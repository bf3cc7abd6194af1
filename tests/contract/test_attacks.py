"""The table of published attacks names tests that exist, and no attack whose test is gone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support import syntax

TESTS = Path(__file__).parents[1]
TABLE = TESTS / "guest/ATTACKS.md"


def names_in(module: str) -> set[str]:
    files = list(TESTS.rglob(f"{module}.py"))
    nodes = [node for file in files for node in syntax.nodes(file.read_text())]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_attack_has_its_tests() -> None:
    rows = [line.strip("|").split("|") for line in TABLE.read_text().splitlines() if re.match(r"\| (CVE|GHSA)", line)]
    assert len(rows) > 25
    for published, _, where in rows:
        for part in where.split(";"):
            module, _, names = part.strip().partition(": ")
            wanted = set(names.split(", "))
            assert wanted <= names_in(module.strip()), (published, module, wanted - names_in(module.strip()))


def test_every_attack_that_a_test_names_is_in_the_table() -> None:
    table = TABLE.read_text()
    for file in (*(TESTS / "guest").glob("*.py"), *(TESTS / "unit/guest").glob("*.py")):
        for name in re.findall(r"CVE-\d+-\d+|GHSA(?:-\w{4}){3}", file.read_text()):
            assert name in table, (file.name, name)
