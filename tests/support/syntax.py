"""Source text as a tree, for tests of the sources themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def nodes(source: str) -> Iterator[ast.AST]:
    """All nodes of a module."""
    for attempt in range(5):
        try:
            return ast.walk(ast.parse(source))
        except SystemError:  # CPython 3.11 counts wrongly when two threads parse (github.com/python/cpython/issues/106905)
            if attempt == 4:
                raise
    raise AssertionError
