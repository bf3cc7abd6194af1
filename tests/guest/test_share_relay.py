"""The relay's two directions, between pipes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pyboxd.boot import folders, relay
from pyboxd.boot.start import RELAY_ORDER


def reply(unique: int, body: bytes = b"") -> bytes:
    return struct.pack("<IiQ", 16 + len(body), 0, unique) + body


def greeting(letter: bytes) -> bytes:
    return struct.pack("<I4sQ", 32, relay.GREETING, 0) + letter * 16


RESEND = struct.pack("<IiQ", 16, 7, 0)


@contextmanager
def running(work: Callable[[], object]) -> Iterator[int]:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.mark.parametrize("size", [1, 7, 100, 70_000])
def test_every_reply_is_one_write(size: int) -> None:
    port_out, port_in = os.pipe()
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)  # a read gives what one write wrote
    messages = [reply(number, b"x" * (number % 1500)) for number in range(1000, 1060)]
    data = b"".join(messages)
    with running(lambda: relay.carry_replies(port_out, fuse_in, relay.Greetings())):
        for start in range(0, len(data), size):
            os.write(port_in, data[start : start + size])
        assert [os.read(fuse_out, 4096) for _ in messages] == messages


def test_half_a_message_of_a_lost_host_is_dropped() -> None:
    port_out, port_in = socket.socketpair()
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)
    port_in.sendall(reply(1) + reply(2)[:9])
    port_in.shutdown(socket.SHUT_WR)
    with running(lambda: relay.carry_replies(port_out.fileno(), fuse_in, relay.Greetings())):
        assert os.read(fuse_out, 4096) == reply(1)
        assert not select.select([fuse_out], [], [], 0.3)[0]


def test_an_order_waits_until_the_host_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole messages get to the kernel first, half of one is forgotten; who gave the order hears of it then."""
    monkeypatch.setattr(folders, "RELAY_DONE", str(tmp_path / "done"))
    monkeypatch.setattr(folders, "RELAY_PROCESS", str(tmp_path / "pid"))
    monkeypatch.setattr(relay, "RELAY_DONE", str(tmp_path / "done"))
    monkeypatch.setattr(folders, "RELAY_NAME", "")
    asyncio.run(folders.forget_cut_message())  # nobody is there yet
    port_out, port_in = socket.socketpair()
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)
    signal.pthread_sigmask(signal.SIG_BLOCK, {RELAY_ORDER})
    with running(lambda: relay.carry_replies(port_out.fileno(), fuse_in, relay.Greetings(), relay._tell_done)) as child:
        (tmp_path / "pid").write_text(str(child))

        async def order() -> None:
            asked = asyncio.create_task(folders.forget_cut_message())
            await asyncio.sleep(0.1)
            port_in.sendall(reply(1) + reply(2)[:9])
            assert await asyncio.to_thread(os.read, fuse_out, 4096) == reply(1)
            assert not asked.done()
            port_in.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(asked, 4)

        asyncio.run(order())
        assert not select.select([fuse_out], [], [], 0.1)[0]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {RELAY_ORDER})


def test_a_relay_that_does_not_obey_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "RELAY_DONE", str(tmp_path / "done"))
    monkeypatch.setattr(folders, "RELAY_PROCESS", str(tmp_path / "pid"))
    monkeypatch.setattr(folders, "PATIENCE", 0.1)
    (tmp_path / "pid").write_text(str(os.getpid()))
    asyncio.run(folders.forget_cut_message())  # the number is not a relay's any more
    monkeypatch.setattr(folders, "RELAY_NAME", "")
    signal.pthread_sigmask(signal.SIG_BLOCK, {RELAY_ORDER})
    with running(lambda: time.sleep(100)) as child:
        (tmp_path / "pid").write_text(str(child))
        asyncio.run(folders.forget_cut_message())
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {RELAY_ORDER})


def test_greeting_is_for_the_other_process_and_makes_the_kernel_ask_again() -> None:
    port_out, port_in = os.pipe()
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)
    greetings = relay.Greetings()
    os.write(port_in, greeting(b"1") + reply(1) + greeting(b"2"))
    with running(lambda: relay.carry_replies(port_out, fuse_in, greetings)):
        greetings.wait()
        assert [os.read(fuse_out, 4096) for _ in range(3)] == [RESEND, reply(1), RESEND]
        assert greetings.get() == b"2" * 16


def test_secret_goes_before_the_first_request_of_a_connection() -> None:
    fuse_out, fuse_in = os.pipe2(os.O_DIRECT)
    port_out, port_in = os.pipe2(os.O_DIRECT)
    greetings = relay.Greetings()
    with running(lambda: relay.carry_requests(fuse_out, port_in, greetings)):
        os.write(fuse_in, b"one")
        assert not select.select([port_out], [], [], 0.3)[0]  # nothing for a host that has not greeted
        greetings.put(b"1" * 16)
        assert [os.read(port_out, 4096) for _ in range(2)] == [b"1" * 16, b"one"]
        os.write(fuse_in, b"two")
        assert os.read(port_out, 4096) == b"two"
        greetings.put(b"2" * 16)
        os.write(fuse_in, b"three")
        assert [os.read(port_out, 4096) for _ in range(2)] == [b"2" * 16, b"three"]


def test_both_sides_have_the_same_numbers() -> None:
    protocol = pytest.importorskip("pybox.share.protocol")
    secret = b"s" * relay.SECRET_LENGTH
    assert protocol.greeting(secret) == greeting(b"s")
    assert protocol.SECRET_LENGTH == relay.SECRET_LENGTH
    assert relay.MESSAGE >= protocol.MAX_REQUEST
