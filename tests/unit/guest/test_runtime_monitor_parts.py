"""The monitor's parts on sockets and pipes of the test's own: buffers that end, senders that wait, helpers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyboxd.errors import NotFound, SystemFailure
from pyboxd.runtime import codec, helper, record, wire
from pyboxd.runtime.eventloop import READ, WRITE, EventLoop
from pyboxd.runtime.peer import HIGH_WATER, Peer
from pyboxd.runtime.spec import Exit, HelperResult
from pyboxd.runtime.stdio import Input, Output
from pyboxd.runtime.wire import Answer, Request, State


class Turns:
    """An event loop that is run until something is so."""

    def __init__(self) -> None:
        self.loop = EventLoop()

    def until(self, condition: Callable[[], object]) -> None:
        """Go round until `condition` holds; fails after a few seconds."""
        for _ in range(500):
            if condition():
                return
            self.loop.running = True
            self.loop.at(0.01, self._stop)
            self.loop.run()
        raise AssertionError("it never became so")

    def _stop(self) -> None:
        self.loop.running = False


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.loop.close()


@pytest.fixture
def ends(turns: Turns) -> Iterator[Ends]:
    made = Ends(turns)
    yield made
    made.engine.close()
    made.peer.drop()


class Ends:
    """A peer with the engine's end of its connection."""

    def __init__(self, turns: Turns) -> None:
        self.engine, theirs = socket.socketpair()
        self.engine.settimeout(5)
        self.frames: list[tuple[int, bytes]] = []
        self.gone = False
        self.rooms = 0
        self.peer = Peer(theirs, turns.loop, self._frame, self._is_gone, self._room)

    def _frame(self, peer: Peer, kind: int, payload: bytes) -> None:
        self.frames.append((kind, payload))

    def _is_gone(self, peer: Peer) -> None:
        self.gone = True

    def _room(self) -> None:
        self.rooms += 1


def test_a_peer_receives_sends_and_goes(turns: Turns, ends: Ends) -> None:
    ends.engine.sendall(wire.pack(wire.STDIN, b"one") + wire.pack(wire.STDIN, b""))
    turns.until(lambda: len(ends.frames) == 2)
    assert ends.frames == [(wire.STDIN, b"one"), (wire.STDIN, b"")]
    ends.peer.answer(Answer(pid=7))
    ((kind, payload),) = wire.Unpacker().feed(ends.engine.recv(1000))
    assert kind == wire.ANSWER and codec.loads(Answer, payload) == Answer(pid=7)
    ends.engine.close()
    turns.until(lambda: ends.gone)
    assert ends.peer.gone
    ends.peer.send(wire.STDOUT, b"nobody hears it")


def test_a_peer_that_does_not_read_fills_and_has_room_again(turns: Turns, ends: Ends) -> None:
    sent = 0
    while not ends.peer.full:
        ends.peer.send(wire.STDOUT, b"x" * 10_000)
        sent += 1
    assert sent * 10_000 > HIGH_WATER and ends.rooms == 0
    received = bytearray()
    unpacker = wire.Unpacker()

    def read() -> bool:
        for _, payload in unpacker.feed(ends.engine.recv(65536)):
            received.extend(payload)
        return len(received) == sent * 10_000

    turns.until(read)
    assert ends.rooms == 1 and not ends.peer.full


def test_a_peer_ends_when_it_has_sent_everything(turns: Turns, ends: Ends) -> None:
    ends.peer.attached = True
    for _ in range(50):
        ends.peer.send(wire.STDOUT, b"x" * 10_000)
    ends.peer.end()
    assert not ends.gone
    total = 0

    def read() -> bool:
        nonlocal total
        data = ends.engine.recv(65536)
        total += len(data)
        return not data

    turns.until(read)
    assert total == 50 * 10_005 and ends.gone


def test_a_request_that_comes_too_late_costs_no_answer(turns: Turns, ends: Ends) -> None:
    """The engine asks while the monitor says its last word: it can still send, and reads that word and the end."""
    ends.peer.send(wire.ANSWER, b"last")
    ends.peer.end()
    ends.engine.sendall(wire.pack(wire.REQUEST, codec.dumps(Request("start"))))
    assert ends.engine.recv(65536) == wire.pack(wire.ANSWER, b"last")
    assert ends.engine.recv(65536) == b""
    assert not ends.gone
    ends.engine.close()
    turns.until(lambda: ends.gone)
    assert not ends.frames


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff\xff", wire.pack(99, b"")])
def test_a_peer_that_talks_nonsense_is_dropped(turns: Turns, ends: Ends, garbage: bytes) -> None:
    ends.engine.sendall(garbage)
    turns.until(lambda: ends.gone)


def test_input_waits_for_the_process_and_its_sender_for_the_input(turns: Turns, ends: Ends) -> None:
    read, write = os.pipe()
    stdin = Input(turns.loop, write)
    data = b"y" * 65536
    for _ in range(4):
        stdin.feed(data, ends.peer)
    ends.engine.sendall(wire.pack(wire.STDIN, b"not read yet"))
    turns.until(lambda: True)
    assert ends.frames == []
    taken = 0

    def take() -> bool:
        nonlocal taken
        taken += len(os.read(read, 65536))
        return taken == 4 * 65536

    turns.until(take)
    turns.until(lambda: ends.frames)
    stdin.feed(b"last", ends.peer)
    stdin.end()
    stdin.feed(b"too late", ends.peer)
    assert os.read(read, 100) == b"last" and os.read(read, 100) == b""
    os.close(read)


def test_input_that_nobody_takes_any_more_is_dropped(turns: Turns, ends: Ends) -> None:
    read, write = os.pipe()
    stdin = Input(turns.loop, write)
    os.close(read)
    stdin.feed(b"x" * 100, ends.peer)
    stdin.feed(b"x" * 100, ends.peer)
    stdin.end()
    stdin.close()


def test_output_can_wait_and_is_drained(turns: Turns) -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    output = Output(turns.loop, read, wire.STDOUT, lambda _, data: seen.append(data))
    os.write(write, b"one")
    turns.until(lambda: seen == [b"one"])
    output.pause()
    os.write(write, b"two")
    turns.until(lambda: True)
    assert seen == [b"one"]
    output.drain()
    assert seen == [b"one", b"two"] and output.closed
    os.close(write)


def test_the_end_of_output_is_told_once(turns: Turns) -> None:
    read, write = os.pipe()
    seen: list[bytes] = []
    output = Output(turns.loop, read, wire.STDERR, lambda _, data: seen.append(data))
    os.close(write)
    turns.until(lambda: output.closed)
    output.drain()
    output.close()
    assert seen == [b""]


def test_a_terminal_loses_nothing_of_a_line_without_an_end(turns: Turns) -> None:
    ours, theirs = os.openpty()
    seen: list[bytes] = []
    output = Output(turns.loop, ours, wire.STDOUT, lambda _, data: seen.append(data), terminal=True)
    os.write(theirs, b"name: ")
    turns.until(lambda: seen == [b"name: "])
    os.write(theirs, b"one\ntwo")
    turns.until(lambda: b"".join(seen) == b"name: one\r\ntwo")
    os.write(theirs, b"!")
    os.close(theirs)
    turns.until(lambda: output.closed)
    assert b"".join(seen) == b"name: one\r\ntwo!" and seen[-1] == b""


def test_a_loop_forgets() -> None:
    loop = EventLoop()
    read, write = os.pipe()
    calls: list[int] = []
    loop.watch(read, READ, calls.append)
    loop.watch(read, READ | WRITE, calls.append)
    loop.watch(read, 0, calls.append)
    loop.forget(read)
    loop.forget(read)
    os.write(write, b"x")
    loop.at(0.0, lambda: setattr(loop, "running", False))
    loop.run()
    assert calls == []
    loop.close()
    os.close(read)
    os.close(write)


def test_records(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    record.clear(folder)
    assert record.read_exit(folder) is None
    with pytest.raises(NotFound):
        record.read_state(folder)
    record.write_state(folder, State(5, "/cgroup"))
    record.write_exit(folder, Exit(3, False, 1.25))
    assert record.read_state(folder) == State(5, "/cgroup")
    assert record.read_exit(folder) == Exit(3, False, 1.25)
    assert sorted(os.listdir(folder)) == ["exit.json", "state.json"]
    record.clear(folder)
    assert os.listdir(folder) == []


def run_helper(args: tuple[str, ...], stdin: bytes | None = None, timeout: float = 30) -> HelperResult:
    ours, theirs = socket.socketpair()
    worker = threading.Thread(target=helper.run, args=(theirs,))
    worker.start()
    with ours:
        ours.sendall(helper.pack_job(helper.Job(args, timeout, stdin is not None), stdin or b""))
        worker.join()
        theirs.close()
        received = b""
        while data := ours.recv(65536):
            received += data
    return helper.unpack_result(received, args)


def test_helper_programs() -> None:
    assert run_helper(("/bin/sh", "-c", "cat; echo err >&2; exit 3"), b"in") == HelperResult(3, b"in", b"err\n")
    assert run_helper(("/bin/sh", "-c", "cat")) == HelperResult(0, b"", b"")
    assert run_helper(("/bin/sh", "-c", "kill -9 $$")).status == 137
    assert run_helper(("/bin/true",), b"x" * 1_000_000).status == 0
    environment = run_helper(("/usr/bin/env",)).stdout.decode().split()
    assert sorted(environment) == sorted(f"{name}={value}" for name, value in helper.ENVIRONMENT.items())


def test_helper_programs_that_fail() -> None:
    with pytest.raises(SystemFailure, match="No such file"):
        run_helper(("/no/such/program",))
    with pytest.raises(SystemFailure, match="took too long"):
        run_helper(("/bin/sleep", "100"), timeout=0.2)
    with pytest.raises(SystemFailure, match="the helper process died"):
        helper.unpack_result(b"", ("x",))
