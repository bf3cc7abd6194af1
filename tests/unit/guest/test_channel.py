"""The control channel's wire format on the guest's side, and the conversation over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyboxd.boot import control, folders
from pyboxd.boot.channel import LINE_LIMIT, Answer, Event, Failure, Message, Peer, Request, Resync, decode, encode
from pyboxd.boot.configuration import Configuration, Moment
from pyboxd.boot.control import ControlClient
from pyboxd.errors import InvalidArgument, SystemFailure, Unavailable

texts = st.text(max_size=20)
params = st.dictionaries(texts, st.one_of(st.none(), st.booleans(), st.integers(), texts, st.lists(texts)), max_size=4)
numbers = st.integers(min_value=0, max_value=2**53)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Resync, texts),
    st.builds(Request, numbers, texts, params),
    st.builds(Answer, numbers, params),
    st.builds(Answer, numbers, st.just({}), st.builds(Failure, texts, texts, texts)),
    st.builds(Event, texts, params),
)


@given(messages)
def test_messages_survive_the_wire(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line) == message


@settings(deadline=None)
@given(st.lists(messages, max_size=5), st.data())
def test_bytes_may_come_in_any_pieces(sent: list[Message], data: st.DataObject) -> None:
    stream = encode(Resync("first token")) + b"".join(map(encode, sent))
    peer, position = Peer(), 0
    got: list[Message] = []
    while position < len(stream):
        size = data.draw(st.integers(1, len(stream) - position))
        got += peer.feed(stream[position : position + size])
        position += size
    expected: list[Message] = []
    token = ""
    for message in [Resync("first token"), *sent]:
        if isinstance(message, Resync) and message.token == token:
            continue
        if isinstance(message, Resync):
            token = message.token
        expected.append(message)
    assert got == expected


@given(st.binary(max_size=200))
def test_garbage_is_never_a_message(garbage: bytes) -> None:
    peer = Peer()
    list(peer.feed(garbage + b"\n"))
    assert list(peer.feed(encode(Resync("t")) + encode(Event("e")))) == [Resync("t"), Event("e")]


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "1", "{}", "{", "[" * 100_000, '{"type": 1}', '{"type": "unknown"}'),
        *('{"type": "resync"}', '{"type": "resync", "token": 1}', '{"type": "request", "id": 1}'),
        '{"type": "request", "id": "1", "method": "ping"}',
        '{"type": "request", "id": 1, "method": "x", "params": []}',
    ],
)
def test_lines_that_are_no_message(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(line.encode())


def test_unknown_fields_are_ignored() -> None:
    assert decode(b'{"type": "event", "name": "x", "later": 1, "params": {"a": 1}}') == Event("x", {"a": 1})
    assert decode(b'{"type": "answer", "id": 3}') == Answer(3)


def test_what_comes_before_the_resync_is_dropped() -> None:
    peer = Peer()
    assert list(peer.feed(encode(Event("old")) + b'{"half": ' + encode(Event("lost")))) == []
    assert list(peer.feed(encode(Resync("a")) + encode(Event("new")))) == [Resync("a"), Event("new")]
    assert list(peer.feed(encode(Resync("a")) + encode(Resync("b")))) == [Resync("b")]


def test_long_lines_are_skipped() -> None:
    peer = Peer()
    list(peer.feed(encode(Resync("a"))))
    assert list(peer.feed(b"x" * (LINE_LIMIT * 2 + 5))) == []
    assert list(peer.feed(b"rest of it\n" + encode(Event("next")))) == [Event("next")]
    with pytest.raises(ValueError, match="over the limit"):
        encode(Event("big", {"x": "y" * LINE_LIMIT}))


class Host:
    """The other side: sends and expects messages as plain JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, **message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def next(self, **expected: Any) -> dict[str, Any]:
        """The next message that has the expected fields; others are passed over."""
        while True:
            message: dict[str, Any] = json.loads(await self.reader.readline())
            if expected.items() <= message.items():
                return message

    async def silence(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.reader.readline()


class Engine:
    """Handlers that remember what they were called with."""

    def __init__(self) -> None:
        self.configured: list[tuple[Configuration, Moment]] = []
        self.stops: list[float] = []
        self.busy = False
        self.hold = asyncio.Event()
        self.hold.set()

    async def configure(self, configuration: Configuration, moment: Moment) -> None:
        await self.hold.wait()
        if configuration.hostname == "refused":
            raise SystemFailure("the data disk cannot be read")
        if configuration.hostname == "bug":
            raise ZeroDivisionError
        self.configured.append((configuration, moment))

    async def stop(self, timeout: float) -> None:
        self.stops.append(timeout)


Test = Callable[[Host, ControlClient, Engine], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_files_of_the_guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(control, "phases", lambda: [("init", 3.5)])
    yield


def converse(test: Test) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        engine = Engine()
        client = ControlClient(engine.configure, engine.stop, is_busy=lambda: engine.busy)
        client.attach(os.dup(ours.fileno()))
        ours.close()
        host = Host(*await asyncio.open_connection(sock=theirs))
        async with asyncio.timeout(10):
            await test(host, client, engine)
        client.close()
        host.writer.close()

    asyncio.run(main())


async def meet(host: Host) -> None:
    host.send(type="resync", token="host")
    await host.next(type="event", name="hello")
    await host.next(type="event", name="phase")


def test_introduction() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        token = (await host.next(type="resync"))["token"]
        assert len(bytes.fromhex(token)) == 16
        host.send(type="resync", token="abc")
        assert (await host.next())["token"] == token
        hello = (await host.next())["params"]
        assert hello["protocol"] == 2 and hello["state"] == "fresh" and hello["generation"] == ""
        assert (await host.next())["params"] == {"name": "init", "seconds": 3.5}
        host.send(type="resync", token="abc")  # nothing new
        await host.silence()

    converse(test)


def test_a_new_host_after_a_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the middle of an earlier one's line, and over the same port, which knows nothing of a change."""
    cut: list[str] = []

    async def forget() -> None:
        cut.append("forgotten")

    monkeypatch.setattr(folders, "forget_cut_message", forget)

    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        host.send(type="request", id=1, method="configure", params={"hostname": "box"})
        await host.next(id=1)
        host.send(type="request", id=2, method="sync")
        assert await host.next(id=2) == {"type": "answer", "id": 2, "result": {}}
        asked = asyncio.create_task(client.publish("tcp", "", 80, 40001))
        await host.next(method="publish")
        host.writer.write(b'{"type": "answer", "id": 1, "resu')
        host.writer.write(b"\n")
        host.send(type="resync", token="another")
        assert (await host.next(name="hello"))["params"]["state"] == "configured"
        with pytest.raises(Unavailable, match="began anew"):
            await asked
        host.send(type="request", id=1, method="folders")
        await host.next(id=1)
        assert cut == ["forgotten"]

    converse(test)


def test_configure_ping_stop_and_unknown_requests() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        host.send(type="request", id=1, method="configure", params={"hostname": "box", "time": 5.5})
        assert await host.next(id=1) == {"type": "answer", "id": 1, "result": {}}
        assert engine.configured == [(Configuration(hostname="box"), Moment(5.5))]
        for busy in (False, True):
            engine.busy = busy
            host.send(type="request", id=7, method="activity")
            assert (await host.next(id=7))["result"] == {"busy": busy}
        host.send(type="request", id=2, method="ping")
        assert "result" in await host.next(id=2)
        host.send(type="request", id=3, method="dance", params={})
        assert "does not know the request dance" in (await host.next(id=3))["error"]["brief"]
        host.send(type="request", id=4, method="stop", params={"timeout": 3})
        assert "result" in await host.next(id=4)
        assert engine.stops == [3]
        host.send(type="resync", token="another")
        assert (await host.next(name="hello"))["params"]["state"] == "configured"

    converse(test)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"hostname": "refused"}, "the data disk cannot be read"),
        ({"hostname": "bug"}, "internal error"),
        ({"hostname": 1}, "hostname has a value of the wrong type"),
    ],
)
def test_a_failed_configure(params: dict[str, Any], words: str) -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        host.send(type="request", id=1, method="configure", params=params)
        error = (await host.next(id=1))["error"]
        assert words in error["brief"] and error.keys() == {"brief", "details", "resolution"}
        host.send(type="request", id=2, method="ping")
        await host.next(id=2)

    converse(test)


def test_requests_that_wait_do_not_block_others_and_answers_of_an_older_life_are_dropped() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        engine.hold.clear()
        host.send(type="request", id=1, method="configure", params={})
        host.send(type="request", id=2, method="ping")
        await host.next(id=2)
        host.send(type="resync", token="new life")
        await host.next(name="phase")
        engine.hold.set()
        await host.silence()
        assert len(engine.configured) == 1

    converse(test)


def test_publish_and_release() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        first = asyncio.create_task(client.publish("tcp", "", 0, 40001))
        second = asyncio.create_task(client.publish("udp", "0.0.0.0", 53, 40002))
        one, two = await host.next(method="publish"), await host.next(method="publish")
        assert one["params"] == {"protocol": "tcp", "host_ip": "", "host_port": 0, "guest_port": 40001}
        error = {"brief": "Ports are not available: …", "details": "", "resolution": ""}
        host.send(type="answer", id=two["id"], error=error)
        host.send(type="answer", id=one["id"], result={"host_ip": "127.0.0.1", "host_port": 32768})
        assert await first == ("127.0.0.1", 32768)
        with pytest.raises(SystemFailure, match="Ports are not available"):
            await second
        gone = asyncio.create_task(client.release("tcp", "127.0.0.1", 32768))
        host.send(type="answer", id=(await host.next(method="release"))["id"], result={})
        await gone

    converse(test)


def test_a_new_life_of_the_host_ends_what_waits_for_it() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        waiting = asyncio.create_task(client.publish("tcp", "", 0, 1))
        await host.next(method="publish")
        host.send(type="resync", token="restored")
        with pytest.raises(Unavailable):
            await waiting

    converse(test)


def test_ready_is_told_to_every_new_host() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        client.ready()
        await host.next(name="ready")
        host.send(type="resync", token="again")
        await host.next(name="hello")
        await host.next(name="ready")
        client.stopped()
        await client.flush()
        await host.next(name="stopped")

    converse(test)


def test_a_host_that_leaves() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        waiting = asyncio.create_task(client.publish("tcp", "", 0, 1))
        await host.next(method="publish")
        host.writer.close()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await client.publish("tcp", "", 0, 1)
        client.ready()

    converse(test)


def test_a_host_that_reads_slowly() -> None:
    async def test(host: Host, client: ControlClient, engine: Engine) -> None:
        await meet(host)
        publishing = [asyncio.create_task(client.publish("tcp", "x" * 10_000, n, n)) for n in range(300)]
        await asyncio.sleep(0.05)
        for _ in publishing:
            request = await host.next(method="publish")
            host.send(type="answer", id=request["id"], result={"host_port": request["params"]["guest_port"]})
        assert [port for _, port in await asyncio.gather(*publishing)] == list(range(300))

    converse(test)


@pytest.mark.parametrize("value", [True, "1", None])
def test_the_clock_wants_a_number(value: object) -> None:
    with pytest.raises(InvalidArgument):
        control._number({"time": value}, "time")
