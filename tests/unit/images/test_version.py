from __future__ import annotations

import pytest

from pybox_image.debian.version import compare, satisfies

# From the older to the newer; from deb-version(7), Debian Policy 5.6.12 and versions that exist.
ASCENDING = [
    ("1.0", "1.1"),
    ("1.9", "1.10"),
    ("1.0~rc1", "1.0"),
    ("1.0~~", "1.0~"),
    ("1.0~beta1~svn1245", "1.0~beta1"),
    ("1.0", "1.0+b1"),
    ("1.0-1", "1.0-1+b1"),
    ("1.0-1", "1.0-1.1"),
    ("9.0", "1:0.1"),
    ("1:1.3.dfsg+really1.3.1-1", "1:1.3.dfsg+really1.3.1-1+deb13u1"),
    ("2.41-12", "2.41-12+deb13u5"),
    ("3.5.9-1~deb13u1", "3.5.9-1"),
    ("1.0a", "1.0+"),
    ("a", "b"),
    ("1.0-a", "1.0-b"),
    ("6.12.117-1", "6.12.118-1"),
    ("0", "0.0"),
]


@pytest.mark.parametrize(("older", "newer"), ASCENDING)
def test_order(older: str, newer: str) -> None:
    assert compare(older, newer) < 0
    assert compare(newer, older) > 0
    assert compare(older, older) == 0


@pytest.mark.parametrize("pair", [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.01", "1.1"), ("1.0-0", "1.0-00")])
def test_equal(pair: tuple[str, str]) -> None:
    assert compare(*pair) == 0


@pytest.mark.parametrize(("relation", "fulfilled"), [("<<", False), ("<=", True), ("=", True), (">=", True), (">>", False)])
def test_relations_of_equal_versions(relation: str, fulfilled: bool) -> None:
    assert satisfies("1.0-1", relation, "1.0-1") is fulfilled
