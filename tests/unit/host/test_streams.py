"""Stream frames and detach keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybox.app.streams import DetachKeys, detach_keys
from pybox.engine.frames import FrameDecoder, Stream
from pybox.errors import UsageProblem

FRAMES = st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.binary(max_size=300)), max_size=8)


def encode(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@given(FRAMES, st.integers(1, 50))
def test_frames_survive_any_cutting(frames: list[tuple[Stream, bytes]], piece: int) -> None:
    wire = b"".join(encode(stream, data) for stream, data in frames)
    decoder = FrameDecoder()
    found: dict[Stream, bytes] = {Stream.STDOUT: b"", Stream.STDERR: b""}
    for start in range(0, len(wire), piece):
        for stream, data in decoder.feed(wire[start : start + piece]):
            found[stream] += data
    for stream, whole in found.items():
        assert whole == b"".join(data for other, data in frames if other is stream)


def test_unknown_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="9"):
        list(FrameDecoder().feed(encode(9, b"x")))


def test_detach_keys_are_found_across_reads_and_not_sent() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"\x11") == (b"", True)


def test_broken_sequence_is_sent_after_all() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"\x10x") == (b"\x10x", False)
    assert keys.feed(b"\x10\x10\x11") == (b"\x10", True)


def test_detach_keys_option() -> None:
    assert detach_keys({"detach_keys": "ctrl-a,b"}).feed(b"\x01b") == (b"", True)
    assert detach_keys({}).feed(b"\x10\x11") == (b"", True)
    with pytest.raises(UsageProblem, match="Unknown character"):
        detach_keys({"detach_keys": "alt-x"})
