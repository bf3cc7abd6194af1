"""Patterns of .dockerignore."""

from __future__ import annotations

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.ignore import Patterns, component_regex, read_patterns


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("abc", "abc", True),
        ("abc", "abc/def", True),
        ("abc", "x/abc", False),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "abc/x/y", True),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("**", "a/b/c", True),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("**/c", "a/b/xc", False),
        ("**/*.o", "a/b.o", True),
        ("**.o", "a/b.o", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dirx/file", False),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/**", "dir/dir2/dir2/file", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/../b", "b", True),
        ("./a", "a", True),
        ("a.b", "axb", False),
        ("a(b)", "a(b)", True),
        ("foo/", "foo/x", True),
    ],
)
def test_one_pattern(pattern: str, path: str, expected: bool) -> None:
    assert Patterns([pattern]).matches(path) is expected


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["*", "!a"], "a", False),
        (["*", "!a"], "b", True),
        (["dir", "!dir/keep"], "dir/keep", False),
        (["dir", "!dir/keep"], "dir/drop", True),
        (["!a", "a"], "a", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "!README*.md", "README-secret.md"], "README.md", False),
        (["**", "!**/*.go"], "a/b/c.go", False),
    ],
)
def test_last_match_wins(patterns: list[str], path: str, expected: bool) -> None:
    assert Patterns(patterns).matches(path) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*a*a*b", "aaab", True),
        ("*a*b*a", "ababab", False),
        ("*ab*/c*d*e", "xabab/cdde", True),
        ("*ab*/c*d*e", "xabab/cedd", False),
        ("x*?*y", "xay", True),
        ("x*?*y", "xy", False),
        ("**/**/*a*/**/b", "q/xax/r/b", True),
        ("*[ab]*c", "zbzbzc", True),
        ("*a" * 40 + "b", "a" * 200, False),
        ("**/**/**/**/**/**/**/**/b", "/".join("a" * 60), False),
    ],
)
def test_many_stars(pattern: str, path: str, expected: bool) -> None:
    assert Patterns([pattern]).matches(path) is expected


@pytest.mark.parametrize("pattern", ["[", "a[", "[]a]", "[-]", "[x-]", "[-x]", "\\", "a\\", "[a-b-c]", "[z-a]", "!"])
def test_malformed(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        Patterns([pattern])


def test_reading() -> None:
    data = b"\xef\xbb\xbf# comment\n\n /foo/ \r\n! bar/../baz\n  # no comment\n."
    assert read_patterns(data) == ["foo", "!baz", "# no comment", "."]


@pytest.mark.parametrize(("pattern", "name", "expected"), [("a*", "ab", True), ("**", "x", True), ("a*", ".a", False)])
def test_components(pattern: str, name: str, expected: bool) -> None:
    assert bool(component_regex(pattern).fullmatch(name)) is expected
