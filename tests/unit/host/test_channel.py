"""The hostagent's codec of the control channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybox.hostagent.channel import (
    LINE_LIMIT,
    Answer,
    Event,
    Message,
    Receiver,
    Refusal,
    Request,
    Resync,
    decode,
    encode,
)

MESSAGES: list[Message] = [
    Resync("aa"),
    Request(1, "publish", {"host_port": 8080}),
    Answer(1, {"host_ip": "127.0.0.1"}),
    Refusal(2, "brief", "details", "resolution"),
    Event("hello", {"protocol": 1}),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_there_and_back(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.lists(st.integers(min_value=1, max_value=40)))
def test_pieces_of_any_size(cuts: list[int]) -> None:
    data = b"".join(encode(message) for message in MESSAGES)
    receiver = Receiver()
    found: list[Message] = []
    for cut in cuts:
        found += receiver.feed(data[:cut])
        data = data[cut:]
    found += receiver.feed(data)
    assert found == MESSAGES


def test_what_comes_before_the_resync_is_dropped() -> None:
    receiver = Receiver()
    assert list(receiver.feed(b"\xff\0garbage\n" + encode(Event("ready")))) == []
    assert list(receiver.feed(encode(Resync("a")) + encode(Event("ready")))) == [Resync("a"), Event("ready")]


def test_a_repeated_resync_is_nothing_new() -> None:
    receiver = Receiver()
    assert list(receiver.feed(encode(Resync("a")) * 2 + encode(Resync("b")))) == [Resync("a"), Resync("b")]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'{"type": "dance"}',
        b'{"type": ["event"]}',
        b'{"type": "event"}',
        b'{"type": "event", "name": "x", "params": 3}',
        b'{"type": "request", "id": "1", "method": "x"}',
        b'{"type": "request", "id": true, "method": "x"}',
        b'{"type": "answer"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_lines_that_are_no_messages_are_skipped(line: bytes) -> None:
    receiver = Receiver()
    assert list(receiver.feed(encode(Resync("a")) + line + b"\n" + encode(Event("next"))))[1:] == [Event("next")]


def test_unknown_fields_are_ignored() -> None:
    assert decode(b'{"type": "event", "name": "x", "params": {}, "colour": "blue"}') == Event("x")


def test_a_refusal_without_words_still_refuses() -> None:
    assert decode(b'{"type": "answer", "id": 1, "error": {"code": 5}}') == Refusal(1, "refused without a reason")


def test_the_limit() -> None:
    with pytest.raises(ValueError, match="limit"):
        encode(Event("x", {"data": "x" * LINE_LIMIT}))
    receiver = Receiver()
    list(receiver.feed(encode(Resync("a"))))
    assert list(receiver.feed(b"x" * LINE_LIMIT)) == []
    assert list(receiver.feed(b"still the same line\n" + encode(Event("next")))) == [Event("next")]
