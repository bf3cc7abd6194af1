"""Expansion of variables, quotes and escapes."""

from __future__ import annotations

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.words import expand, expand_text, expand_words, unquoted_words

ENV = {"PWD": "/home", "A": "1 2", "E": "", "X_y": "v", "LONG": "foo.bar.baz", "1": "one", "SHELL": "bash"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he'll\"'o", 'hell"o'),
        ('he"ll"o', "hello"),
        ('"a\\"b"', 'a"b'),
        ('"a\\\\b"', "a\\b"),
        ('"a\\nb"', "a\\nb"),
        ("a\\nb", "anb"),
        ("a\\\\b", "a\\b"),
        ("'a\\b'", "a\\b"),
        ("$PWD", "/home"),
        ("'$PWD'", "$PWD"),
        ('"$PWD"', "/home"),
        ("\\$PWD", "$PWD"),
        ('"\\$PWD"', "$PWD"),
        ("he$PWD/x", "he/home/x"),
        ("he${PWD}llo", "he/homello"),
        ("$PWDx", ""),
        ("$X_y.z", "v.z"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$%", "$%"),
        ("$1x", "onex"),
        ("$10", "one0"),
        ("${10}", ""),
        ("${PWD:-x}", "/home"),
        ("${nope:-x}", "x"),
        ("${nope-x}", "x"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${PWD:+x}", "x"),
        ("${PWD+x}", "x"),
        ("${E:+x}", ""),
        ("${E+x}", "x"),
        ("${nope:+x}", ""),
        ("${nope:-${PWD}/y}", "/home/y"),
        ("${nope:-'a}b'}", "a}b"),
        ('${nope:-"$A"}', "1 2"),
        ("${nope:-\\}}", "}"),
        ("${PWD:?gone}", "/home"),
        ("${LONG#*.}", "bar.baz"),
        ("${LONG##*.}", "baz"),
        ("${LONG%.*}", "foo.bar"),
        ("${LONG%%.*}", "foo"),
        ("${LONG%x}", "foo.bar.baz"),
        ("${LONG/ba/X}", "foo.Xr.baz"),
        ("${LONG//ba/X}", "foo.Xr.Xz"),
        ("${LONG//./}", "foobarbaz"),
        ("${LONG/b?r/X}", "foo.X.baz"),
        ("한글$PWD", "한글/home"),
        ("trailing\\", "trailing"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, ENV) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'abc", "looking for matching single-quote"),
        ('"abc', "looking for matching double-quote"),
        ('"abc\\', "looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${PWD", "syntax error: missing '}'"),
        ("${PWD:-x", "syntax error: missing '}'"),
        ("${PWD:x}", "unsupported modifier (:x) in substitution"),
        ("${PWD^}", "unsupported modifier (^) in substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${nope:?gone}", "nope: gone"),
        ("${nope?}", "nope: not allowed to be unset"),
        ("${E:?}", "E: not allowed to be empty"),
    ],
)
def test_expand_errors(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        expand(text, ENV)
    assert message in str(caught.value)


def test_other_escape() -> None:
    assert expand("`$PWD C:\\x $PWD", ENV, "`") == "$PWD C:\\x /home"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        ("  a\tb ", ["a", "b"]),
        ("$A", ["1", "2"]),
        ('"$A"', ["1 2"]),
        ("x$A", ["x1", "2"]),
        ("'' a", ["", "a"]),
        ("a\\ b", ["a b"]),
        ("$E", []),
        ("", []),
    ],
)
def test_expand_words(text: str, expected: list[str]) -> None:
    assert expand_words(text, ENV) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b c='d e'", ["a=b", "c='d e'"]),
        ('a="b \\" c" d', ['a="b \\" c"', "d"]),
        ("a\\ b c", ["a\\ b", "c"]),
        ("a='x\\' b", ["a='x\\'", "b"]),
    ],
)
def test_unquoted_words(text: str, expected: list[str]) -> None:
    assert unquoted_words(text) == expected


def test_heredoc_text() -> None:
    assert expand_text("a '$PWD' \"${A}\" \\$A \\\\ \\n\n", ENV) == "a '/home' \"1 2\" $A \\ \\n\n"
