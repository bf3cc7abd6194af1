"""The hostagent's end of the control channel over a real socket, with a guest made of bytes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pybox.errors import MachineError, PyboxError
from pybox.hostagent.control import Control, Interrupted
from pybox.model import Json


class Peer:
    """The guest's side: lines of JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readline(), 5)

    async def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.line())
        return found

    def write(self, **message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    def resync(self, token: str = "guest") -> None:
        self.write(type="resync", token=token)

    def close(self) -> None:
        self._writer.close()


def talk(
    scenario: Callable[[Control, Peer], Awaitable[None]],
    requests: dict[str, Callable[[Json], Awaitable[Json]]] | None = None,
    events: dict[str, Callable[[Json], None]] | None = None,
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        control = Control(*await asyncio.open_connection(sock=ours), requests or {}, events or {})
        peer = Peer(*await asyncio.open_connection(sock=theirs))
        running = asyncio.create_task(control.run())
        assert await peer.line() == b"\n"  # the end of whatever an earlier host has begun
        first = await peer.read()
        assert first["type"] == "resync" and len(first["token"]) == 32
        await scenario(control, peer)
        peer.close()
        await asyncio.wait_for(running, 5)

    asyncio.run(main())


def test_a_request_and_its_answers_in_any_order() -> None:
    async def scenario(control: Control, peer: Peer) -> None:
        peer.resync()
        await peer.read()
        one, two = (asyncio.create_task(control.request(name, {}, 5)) for name in ("one", "two"))
        first, second = await peer.read(), await peer.read()
        peer.write(type="answer", id=second["id"], result={"method": second["method"]})
        peer.write(type="answer", id=first["id"], result={"method": first["method"]})
        assert await one == {"method": "one"} and await two == {"method": "two"}

    talk(scenario)


def test_every_new_guest_gets_the_resync_again() -> None:
    async def scenario(_control: Control, peer: Peer) -> None:
        tokens = []
        for life in ("first", "second"):
            peer.resync(life)
            tokens.append((await peer.read())["token"])
        assert tokens[0] == tokens[1]

    talk(scenario)


def test_a_refusal_has_its_three_parts() -> None:
    async def scenario(control: Control, peer: Peer) -> None:
        peer.resync()
        await peer.read()
        task = asyncio.create_task(control.request("configure", {}, 5))
        number = (await peer.read())["id"]
        peer.write(type="answer", id=number, error={"brief": "b", "details": "d", "resolution": "r"})
        with pytest.raises(MachineError) as caught:
            await task
        assert (caught.value.brief, caught.value.details, caught.value.resolution) == ("b", "d", "r")

    talk(scenario)


def test_a_guest_that_begins_anew_interrupts_requests() -> None:
    async def scenario(control: Control, peer: Peer) -> None:
        peer.resync("first")
        await peer.read()
        task = asyncio.create_task(control.request("configure", {}, 5))
        number = (await peer.read())["id"]
        peer.resync("second")
        with pytest.raises(Interrupted):
            await task
        peer.write(type="answer", id=number, result={})  # of a life that is over: no harm

    talk(scenario)


def test_the_end_of_the_guest_interrupts_requests() -> None:
    async def scenario(control: Control, peer: Peer) -> None:
        peer.resync()
        await peer.read()
        task = asyncio.create_task(control.request("configure", {}, 5))
        await peer.read()
        peer.close()
        with pytest.raises(Interrupted):
            await task

    talk(scenario)


def test_a_guest_that_does_not_answer() -> None:
    async def scenario(control: Control, peer: Peer) -> None:
        peer.resync()
        await peer.read()
        with pytest.raises(MachineError, match="did not answer `ping`"):
            await control.request("ping", {}, 0.01)

    talk(scenario)


def test_requests_of_the_guest_do_not_wait_for_each_other() -> None:
    release = asyncio.Event()

    async def slow(_params: Json) -> Json:
        await release.wait()
        return {"slow": True}

    async def fast(params: Json) -> Json:
        release.set()
        return params

    async def refuse(_params: Json) -> Json:
        raise PyboxError("no", "because", "ask again")

    async def bug(_params: Json) -> Json:
        raise KeyError("x")

    async def scenario(_control: Control, peer: Peer) -> None:
        peer.resync()
        await peer.read()
        for number, method in enumerate(("slow", "fast", "refuse", "bug", "unknown")):
            peer.write(type="request", id=number, method=method, params={"n": number})
        answers = {}
        for _ in range(5):
            answer = await peer.read()
            answers[answer["id"]] = answer
        assert answers[0]["result"] == {"slow": True} and answers[1]["result"] == {"n": 1}
        assert answers[2]["error"] == {"brief": "no", "details": "because", "resolution": "ask again"}
        assert "internal error" in answers[3]["error"]["brief"] and "unknown" in answers[4]["error"]["brief"]

    talk(scenario, {"slow": slow, "fast": fast, "refuse": refuse, "bug": bug})


def test_an_answer_for_a_life_that_is_over_is_not_sent() -> None:
    release = asyncio.Event()

    async def slow(_params: Json) -> Json:
        await release.wait()
        return {}

    async def scenario(_control: Control, peer: Peer) -> None:
        peer.resync("first")
        await peer.read()
        peer.write(type="request", id=1, method="slow")
        peer.resync("second")
        assert (await peer.read())["type"] == "resync"
        release.set()
        peer.write(type="request", id=2, method="unknown")
        assert (await peer.read())["id"] == 2

    talk(scenario, {"slow": slow})


def test_events() -> None:
    heard: list[Json] = []

    async def scenario(_control: Control, peer: Peer) -> None:
        peer.resync()
        peer.write(type="event", name="surprise", params={})
        peer.write(type="event", name="hello", params={"protocol": 1})
        peer.write(type="request", id=1, method="x")
        await peer.read()
        await peer.read()
        assert heard == [{"protocol": 1}]

    talk(scenario, events={"hello": heard.append})
