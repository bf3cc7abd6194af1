"""Frames between engine and monitor, failures and their words, packets of the handshake."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.runtime import handshake, wire
from pyboxd.runtime.failure import CommandFailure, Failure, StartFailure, start_failure, words

FRAMES = st.lists(st.tuples(st.integers(0, wire.EXIT), st.binary(max_size=50)), max_size=8)


@given(FRAMES, st.integers(1, 20))
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], size: int) -> None:
    stream = b"".join(wire.pack(kind, payload) for kind, payload in frames)
    unpacker = wire.Unpacker()
    received = []
    for position in range(0, len(stream), size):
        received += unpacker.feed(stream[position : position + size])
    assert received == frames


@pytest.mark.parametrize("header", [b"\x09\0\0\0\0", b"\x01\xff\xff\xff\xff"])
def test_what_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(SystemFailure):
        wire.Unpacker().feed(header)


@pytest.mark.parametrize(
    ("detail", "code", "kind"),
    [
        ('exec: "x": executable file not found in $PATH', 127, CommandFailure),
        ('exec: "/x": permission denied', 126, CommandFailure),
        ('exec: "/": is a directory', 126, CommandFailure),
        ('error mounting "/a" to rootfs at "/b": not a directory', 127, CommandFailure),
        ("something else", 128, StartFailure),
    ],
)
def test_failures(detail: str, code: int, kind: type[StartFailure]) -> None:
    error = start_failure(Failure(detail), is_exec=False)
    assert type(error) is kind and error.exit_code == code
    assert isinstance(error, InvalidArgument) == (kind is CommandFailure)
    assert str(error).startswith("failed to create task for container: ")
    end = "unknown: permission denied" if "is a directory" in detail else "unknown"
    assert str(error).endswith(f"error during container init: {detail}: {end}")
    assert str(start_failure(Failure(detail), is_exec=True)) == (
        f"OCI runtime exec failed: exec failed: unable to start container process: {detail}: {end}"
    )
    assert str(start_failure(Failure(detail, plain=True), is_exec=False)) == detail


def test_an_error_reads_as_go_prints_it() -> None:
    assert words(OSError(2, "mount: No such file or directory", "/x")) == "mount: no such file or directory (/x)"
    assert words(OSError(13, os.strerror(13))) == "permission denied"
    assert words(OSError("odd")) == "odd"


def test_the_handshake_carries_failures_and_descriptors() -> None:
    ours, theirs = handshake.pair()
    with ours, theirs:
        handshake.send(theirs, "failed", Failure("why"))
        assert handshake.receive(ours) == handshake.Message("failed", Failure("why"))
        read, write = os.pipe()
        handshake.send(theirs, "terminal", descriptor=write)
        os.close(write)
        message = handshake.receive(ours)
        assert message and message.name == "terminal"
        os.write(message.descriptor, b"through")
        os.close(message.descriptor)
        assert os.read(read, 10) == b"through"
        os.close(read)
        theirs.close()
        assert handshake.receive(ours) is None
