"""The relay's two directions, between pipes."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pyboxd.boot import relay


def reply(unique: int, body: bytes = b"") -> bytes:
    return struct.pack("<IiQ", 16 + len(body), 0, unique) + body


RESEND = struct.pack("<IiQ", 16, 7, 0)


@contextmanager
def running(work: Callable[[], object]) -> Iterator[None]:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("size", [1, 7, 100, 70_000])
def test_every_reply_is_one_write(size: int) -> None:
    port_out, port_in = os.pipe()
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)  # a read gives what one write wrote
    messages = [reply(number, b"x" * (number % 1500)) for number in range(1000, 1060)]
    data = b"".join(messages)
    with running(lambda: relay.carry_replies(port_out, fuse_in, relay.Connections())):
        for start in range(0, len(data), size):
            os.write(port_in, data[start : start + size])
        assert [os.read(fuse_out, 4096) for _ in messages] == messages


def test_lost_host_is_noticed_once_and_its_half_message_dropped() -> None:
    port_out, port_in = os.pipe()
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)
    os.write(port_in, reply(1) + reply(2)[:9])
    os.close(port_in)
    connections = relay.Connections()
    with running(lambda: relay.carry_replies(port_out, fuse_in, connections)):
        assert os.read(fuse_out, 4096) == reply(1)
        assert os.read(fuse_out, 4096) == RESEND
        assert connections.get() == 1  # both processes see it


def test_requests_are_marked_once_per_connection() -> None:
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)
    port_out, port_in = os.pipe2(os.O_DIRECT)
    connections = relay.Connections()
    with running(lambda: relay.carry_requests(fuse_out, port_in, connections)):
        os.write(fuse_in, b"one")
        assert [os.read(port_out, 4096) for _ in range(2)] == [relay.MARKER, b"one"]
        os.write(fuse_in, b"two")
        assert os.read(port_out, 4096) == b"two"
        connections.count()
        os.write(fuse_in, b"three")
        assert [os.read(port_out, 4096) for _ in range(2)] == [relay.MARKER, b"three"]


def test_both_sides_have_the_same_marker() -> None:
    protocol = pytest.importorskip("pybox.share.protocol")
    assert relay.MARKER == protocol.MARKER
    assert relay.MESSAGE >= protocol.MAX_REQUEST
