"""Both ends of the control channel against each other: the hostagent's code and the engine's, over one socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybox.errors import MachineError, PyboxError
from pybox.hostagent import channel as host_channel
from pybox.hostagent.control import Control
from pybox.model import Json
from pyboxd.boot import channel as guest_channel
from pyboxd.boot import control as guest_control
from pyboxd.boot.configuration import ApiWay, Configuration, Moment, Proxies, SshKeys
from pyboxd.boot.control import ControlClient
from pyboxd.errors import SystemFailure, Unavailable
from pyboxd.model import Share

texts = st.text(max_size=20)
params = st.dictionaries(texts, st.one_of(st.none(), st.booleans(), st.integers(), texts), max_size=3)
numbers = st.integers(min_value=0, max_value=2**53)


@given(texts, numbers, params)
def test_the_host_reads_what_the_guest_writes(text: str, number: int, values: Json) -> None:
    guest, host = guest_channel, host_channel
    assert host.decode(guest.encode(guest.Resync(text))) == host.Resync(text)
    assert host.decode(guest.encode(guest.Request(number, text, values))) == host.Request(number, text, values)
    assert host.decode(guest.encode(guest.Answer(number, values))) == host.Answer(number, values)
    assert host.decode(guest.encode(guest.Event(text, values))) == host.Event(text, values)
    failure = guest.Answer(number, failure=guest.Failure("brief", text, text))
    assert host.decode(guest.encode(failure)) == host.Refusal(number, "brief", text, text)


@given(texts, numbers, params)
def test_the_guest_reads_what_the_host_writes(text: str, number: int, values: Json) -> None:
    guest, host = guest_channel, host_channel
    assert guest.decode(host.encode(host.Resync(text))) == guest.Resync(text)
    assert guest.decode(host.encode(host.Request(number, text, values))) == guest.Request(number, text, values)
    assert guest.decode(host.encode(host.Answer(number, values))) == guest.Answer(number, values)
    assert guest.decode(host.encode(host.Event(text, values))) == guest.Event(text, values)
    refusal = host.Refusal(number, "brief", text, text)
    assert guest.decode(host.encode(refusal)) == guest.Answer(number, failure=guest.Failure("brief", text, text))


def test_both_have_the_same_limit() -> None:
    assert host_channel.LINE_LIMIT == guest_channel.LINE_LIMIT


class Pair:
    """An engine and a hostagent that are connected, and what each of them heard."""

    def __init__(self) -> None:
        self.configured: list[tuple[Configuration, Moment]] = []
        self.stops: list[float] = []
        self.events: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        self.published: list[Json] = []
        self.engine = ControlClient(self._configure, self._stop)
        self.host: Control
        self._running: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        """A first host, or after the last one has left another: with a port of its own, as after a restart."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.engine.attach(os.dup(ours.fileno()))
        ours.close()
        await self.host_on(theirs)

    async def host_on(self, theirs: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)
        names = ("hello", "ready", "phase", "stopped")
        events = {name: self._hears(name) for name in names}
        self.host = Control(reader, writer, {"publish": self._publish, "release": self._release}, events)
        self._running.append(asyncio.create_task(self.host.run()))

    async def close(self) -> None:
        self.engine.close()
        await asyncio.gather(*self._running)

    async def event(self, name: str) -> Json:
        while True:
            found, values = await self.events.get()
            if found == name:
                return values

    def _hears(self, name: str) -> Callable[[Json], None]:
        return lambda values: self.events.put_nowait((name, values))

    async def _configure(self, configuration: Configuration, moment: Moment) -> None:
        if configuration.hostname == "refused":
            raise SystemFailure("the data disk cannot be read")
        self.configured.append((configuration, moment))

    async def _stop(self, timeout: float) -> None:
        self.stops.append(timeout)
        self.engine.stopped()

    async def _publish(self, values: Json) -> Json:
        if values["host_port"] == 80:
            raise PyboxError("Ports are not available: exposing port TCP 0.0.0.0:80", "bind", "take another")
        if values["host_port"] == 81:
            await asyncio.Event().wait()
        self.published.append(values)
        return {"host_ip": "127.0.0.1", "host_port": values["host_port"] or 32768}

    async def _release(self, values: Json) -> Json:
        self.published = [found for found in self.published if found["host_port"] != values["host_port"]]
        return {}


def together(test: Callable[[Pair], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_control, "phases", lambda: [("init", 3.5)])

    async def main() -> None:
        pair = Pair()
        await pair.connect()
        async with asyncio.timeout(10):
            await test(pair)
        await pair.close()

    asyncio.run(main())


FULL: Json = {
    "hostname": "box",
    "time": 1700000000.25,
    "entropy": "AAECAw==",
    "api": {"address": "10.0.2.2", "port": 4711, "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},
    "dns": ["10.0.2.3"],
    "proxies": {"http": "http://p:1", "https": "", "no": "localhost"},
    "certificates": "PEM",
    "shares": [{"name": "home", "host_path": "/home/u", "guest_path": "/home/u", "readonly": False}],
    "insecure_registries": ["r.example:5000"],
    "registry_mirror": "mirror.example:5000",
    "data_disk": True,
    "ssh": {"authorized_key": "ssh-ed25519 A", "host_key": "PEM"},
    "default_host_ip": "127.0.0.1",
}


def test_start_configure_and_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pair: Pair) -> None:
        hello = await pair.event("hello")
        assert hello["protocol"] == 2 and hello["state"] == "fresh"
        assert await pair.event("phase") == {"name": "init", "seconds": 3.5}
        assert await pair.host.request("configure", FULL, 5.0) == {}
        assert pair.configured == [
            (
                Configuration(
                    hostname="box",
                    api=ApiWay("10.0.2.2", 4711, bytes(range(32))),
                    dns=("10.0.2.3",),
                    proxies=Proxies("http://p:1", "", "localhost"),
                    certificates="PEM",
                    shares=(Share("home", "/home/u", "/home/u", False),),
                    insecure_registries=("r.example:5000",),
                    registry_mirror="mirror.example:5000",
                    data_disk=True,
                    ssh=SshKeys("ssh-ed25519 A", "PEM"),
                    default_host_ip="127.0.0.1",
                ),
                Moment(1700000000.25, b"\0\1\2\3"),
            )
        ]
        pair.engine.ready()
        await pair.event("ready")
        assert await pair.host.request("ping", {}, 5.0) == {}
        assert await pair.host.request("stop", {"timeout": 2}, 5.0) == {}
        await pair.event("stopped")
        assert pair.stops == [2]

    together(test, monkeypatch)


def test_ports_and_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pair: Pair) -> None:
        await pair.event("hello")
        assert await pair.engine.publish("tcp", "", 0, 40000) == ("127.0.0.1", 32768)
        with pytest.raises(SystemFailure, match="Ports are not available: exposing port TCP"):
            await pair.engine.publish("tcp", "0.0.0.0", 80, 40001)
        await pair.engine.release("tcp", "127.0.0.1", 0)
        assert pair.published == []
        with pytest.raises(MachineError, match="the data disk cannot be read"):
            await pair.host.request("configure", {"hostname": "refused"}, 5.0)
        with pytest.raises(MachineError, match="does not know the request"):
            await pair.host.request("dance", {}, 5.0)

    together(test, monkeypatch)


def test_an_engine_that_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pair: Pair) -> None:
        await pair.event("hello")
        await pair.host.request("configure", {}, 5.0)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pair.engine.close()
        pair.engine = ControlClient(pair._configure, pair._stop)
        pair.engine.attach(os.dup(ours.fileno()))
        ours.close()
        await pair.host_on(theirs)
        assert (await pair.event("hello"))["state"] == "fresh"
        assert await pair.host.request("configure", {}, 5.0) == {}

    together(test, monkeypatch)


def test_a_host_that_begins_anew_on_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restore: the engine's half of the conversation comes from the saved state, the host's is new."""

    async def test(pair: Pair) -> None:
        await pair.event("hello")
        await pair.host.request("configure", {}, 5.0)
        pair.engine.ready()
        await pair.event("ready")
        waiting = asyncio.create_task(pair.engine.publish("tcp", "", 81, 1))
        await asyncio.sleep(0.01)
        pair.host._token = "f" * 32
        pair.host._send(host_channel.Resync(pair.host._token))
        with pytest.raises(Unavailable):
            await waiting
        assert (await pair.event("hello"))["state"] == "configured"
        await pair.event("ready")
        assert await pair.engine.publish("tcp", "", 8080, 1) == ("127.0.0.1", 8080)

    together(test, monkeypatch)
