from __future__ import annotations

import pytest

from pybox_image.debian.index import Index, Term, fulfils, parse_relations
from pybox_image.debian.resolve import closure
from pybox_image.errors import ImageError
from tests.unit.images.samples import paragraph


def index(*paragraphs: str) -> Index:
    return Index([("\n".join(paragraphs).encode(), "http://mirror")])


def names(found: Index, *wanted: str, omit: tuple[str, ...] = ()) -> list[str]:
    return [package.name for package in closure(found, wanted, omit=omit)]


def test_relations_are_parsed() -> None:
    assert parse_relations("libc6 (>= 2.38), a:any | b (<< 1:2~), c [amd64]"[:-10]) == (
        (Term("libc6", ">=", "2.38"),),
        (Term("a"), Term("b", "<<", "1:2~")),
    )
    with pytest.raises(ImageError):
        parse_relations("no (such) thing")


def test_a_paragraph_becomes_a_package() -> None:
    found = index(paragraph("a", b"data", "1:2-3", Depends="b (>= 1)", Provides="v (= 7), w", Essential="yes"))
    package = found.candidate("a")
    assert package is not None
    assert (package.version, package.size, package.essential) == ("1:2-3", 4, True)
    assert package.url == "http://mirror/pool/a_1:2-3.deb"
    assert found.essential() == ["a"]
    assert [p.name for p in found.providers(Term("w"))] == ["a"]
    assert found.candidate("b") is None


def test_the_newest_of_several_suites_is_taken() -> None:
    old, new = paragraph("a", version="1.9"), paragraph("a", version="1.10")
    found = Index([(old.encode(), "http://main"), (new.encode(), "http://security")])
    package = found.candidate("a")
    assert package is not None
    assert (package.version, package.base) == ("1.10", "http://security")


def test_dependencies_come_first() -> None:
    found = index(paragraph("a", Depends="b, c"), paragraph("b", Pre_Depends="c"), paragraph("c"), paragraph("d"))
    assert names(found, "a") == ["c", "b", "a"]


def test_a_cycle_ends() -> None:
    found = index(paragraph("a", Depends="b"), paragraph("b", Depends="a"))
    assert sorted(names(found, "a")) == ["a", "b"]


def test_the_first_alternative_that_exists_is_taken() -> None:
    found = index(paragraph("a", Depends="missing | old (>= 2) | c"), paragraph("old"), paragraph("c"))
    assert names(found, "a") == ["c", "a"]


def test_an_alternative_that_was_asked_for_wins() -> None:
    found = index(paragraph("a", Depends="b | c"), paragraph("b"), paragraph("c"))
    assert names(found, "a", "c") == ["c", "a"]


def test_a_provider_fulfils_a_virtual_package() -> None:
    found = index(paragraph("a", Depends="mail"), paragraph("z", Provides="mail"), paragraph("y", Provides="mail"))
    assert names(found, "a") == ["y", "a"]


def test_provided_versions_count() -> None:
    found = index(
        paragraph("a", Depends="abi (>= 3)"),
        paragraph("old", Provides="abi (= 2)"),
        paragraph("bare", Provides="abi"),
        paragraph("new", Provides="abi (= 3)"),
    )
    assert names(found, "a") == ["new", "a"]
    bare = found.candidate("bare")
    assert bare is not None
    assert fulfils(bare, Term("abi"))
    assert not fulfils(bare, Term("abi", ">=", "1"))


def test_omitted_packages_and_what_only_they_need_are_left_out() -> None:
    found = index(paragraph("a", Depends="b, debconf | debconf-2"), paragraph("b"), paragraph("debconf", Depends="perl"))
    assert names(found, "a", omit=("debconf",)) == ["b", "a"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ImageError, match="no package x"):
        closure(index(), ["x"])
    with pytest.raises(ImageError) as caught:
        closure(index(paragraph("a", Depends="b (>= 2) | c"), paragraph("b")), ["a"])
    assert caught.value.details == "nothing fulfils its dependency b (>= 2) | c"


def test_packages_that_exclude_each_other_are_refused() -> None:
    found = index(paragraph("a", Conflicts="mail"), paragraph("b", Provides="mail"))
    with pytest.raises(ImageError, match="a and b cannot"):
        closure(found, ["a", "b"])
    self_conflict = index(paragraph("a", Conflicts="mail", Provides="mail"), paragraph("b", Breaks="a (<< 1)"))
    assert len(closure(self_conflict, ["a", "b"])) == 2
