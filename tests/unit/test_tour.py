"""The tour of the docker CLI: what it makes of outputs, and that its steps are complete."""

from __future__ import annotations

import shlex

import pytest

from tests.clients.tour import CLIENTS, Says, Seen, groups, like, mistaken, step
from tests.clients.tour_words import plain

ID = "0123456789ab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"sha256:{'ab' * 32}\n", "sha256:<id>\n"),
        (
            f"{ID}   tour:base   2 minutes ago   Exited (3) Less than a second ago\n",
            "<id>  tour:base  <time> ago  Exited (3) <time> ago\n",
        ),
        ("2026-01-02T03:04:05.678Z first\n", "<time> first\n"),
        ("Total reclaimed space: 1.5kB\n", "Total reclaimed space: <size>\n"),
        ("1.00%   2MiB / 1.9GiB\n", "<share>  <size> / <size>\n"),
        ("80/tcp -> 127.0.0.1:32768\n", "80/tcp -> 127.0.0.1:<port>\n"),
        ("172.17.0.2\ttour-first\n", "<address>  tour-first\n"),
        ("10.98.0.9 67108864\n", "10.98.0.9 67108864\n"),
        ("hi\r\n", "hi\n"),
        ("open /here/nosuch\n", "open <folder>/nosuch\n"),
        ("a\0b", "<archive>"),
        ("docker: no.\nSee 'docker run --help'.\n", "docker: no\n"),
        ("docker: no\n\nRun 'docker run --help' for more information\n", "docker: no\n"),
        ("DEPRECATED: The legacy builder is old.\n            Use another.\n\nno\n", "no\n"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text, "/here") == expected


def test_a_step_that_goes_otherwise_is_told() -> None:
    taken = step("x", "a\n", old=Says("b\n"), pybox=Says(like("c+\n")), why="it is")
    assert mistaken(Seen(taken, Says("a\n")), 26, pybox=False) == ""
    assert mistaken(Seen(taken, Says("b\n")), 20, pybox=True) == ""
    assert mistaken(Seen(taken, Says("cc\n")), 28, pybox=True) == ""
    assert "status 0" in mistaken(Seen(taken, Says("a\n", status=1)), 26, pybox=False)
    assert "is 'a" in mistaken(Seen(taken, Says("a\n")), 26, pybox=True)  # a difference that is gone


def test_the_steps() -> None:
    steps = [item for group in groups().values() for item in group]
    assert len(steps) > 300
    for item in steps:
        assert shlex.split(item.command)
        assert item.why or item.pybox is None, item.command
        assert {client for client, _ in item.clients} <= set(CLIENTS)
