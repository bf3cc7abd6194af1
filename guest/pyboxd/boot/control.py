"""The engine's end of the control channel (CONTROL.md): a virtio serial port, served by the event loop.

    control = ControlClient(configure=…, stop=…)
    control.open(devices.port(locations.CONTROL_PORT))
    host_ip, host_port = await control.publish("tcp", "", 8080, 40001)

`configure(configuration, moment)` and `stop(timeout)` are coroutines of the engine, `want(count)` is called when so
many clients of the API wait, `is_busy()` when the host asks whether something goes on; the rest is answered here. A
host that closes the port and opens it again finds a new conversation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
from collections.abc import Awaitable, Callable

from pyboxd.boot import channel, configuration, folders
from pyboxd.boot.channel import Answer, Event, Failure, Message, Params, Peer, Request, Resync
from pyboxd.boot.configuration import Configuration, Moment
from pyboxd.boot.start import mark_phase, phases
from pyboxd.boot.system import generation, set_clock
from pyboxd.errors import InvalidArgument, NotImplementedHere, PyboxdError, SystemFailure, Unavailable

PROTOCOL = 2
MANIFEST = "/usr/lib/pybox/manifest.json"
READ_SIZE = 64 * 1024
log = logging.getLogger(__name__)

ConfigureHandler = Callable[[Configuration, Moment], Awaitable[None]]
StopHandler = Callable[[float], Awaitable[None]]


class ControlClient:
    """One conversation with the host at a time. All methods are for the event loop's thread."""

    def __init__(
        self,
        configure: ConfigureHandler,
        stop: StopHandler,
        want: Callable[[int], None] = lambda _count: None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._configure = configure
        self._stop = stop
        self._want = want
        self._is_busy = is_busy
        self._peer = Peer()
        self._token = os.urandom(16).hex()
        self._descriptor = -1
        self._events: select.epoll | None = None
        self._out = bytearray()
        self._connected = False  # the host has the port open
        self._conversation = 0  # counts resyncs; an answer to a request of an older one is dropped
        self._next_id = 1
        self._waiting: dict[int, asyncio.Future[Params]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._configured = False
        self._ready = False
        self._image = _image_id()

    # the port

    def open(self, path: str) -> None:
        """Open the port and talk from now on. OSError when it is not there."""
        self.attach(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    def attach(self, descriptor: int) -> None:
        """Talk over an open, non-blocking descriptor.

        The kernel reports a port that the host has closed as hung up for as long as it stays closed. Inside an
        edge-triggered epoll of its own it is reported once, and again when the host comes back.
        """
        self._descriptor = descriptor
        self._events = select.epoll()
        self._events.register(descriptor, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        asyncio.get_running_loop().add_reader(self._events.fileno(), self._changed)
        self._changed()

    def close(self) -> None:
        """Give the port back; everything that waits fails."""
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            os.close(self._descriptor)
            self._events = None
            self._descriptor = -1
        self._forget()
        for task in self._tasks:
            task.cancel()

    def _changed(self) -> None:
        """The port became readable, writable, open or closed: do all that is possible now."""
        assert self._events is not None
        self._events.poll(0)
        while True:
            try:
                data = os.read(self._descriptor, READ_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                log.warning("control channel: %s", error)
                data = b""
            if not data:
                self._disconnected()
                return
            self._met()
            for message in self._peer.feed(data):
                self._dispatch(message)
        self._met()
        self._flush()

    def _met(self) -> None:
        if not self._connected:
            self._connected = True
            self._send(Resync(self._token))

    def _disconnected(self) -> None:
        """What was not written is for nobody; who comes next is told everything again."""
        self._connected = False
        self._out.clear()
        self._peer = Peer()
        self._token = os.urandom(16).hex()
        self._forget()

    def _send(self, *messages: Message) -> None:
        if self._connected:
            self._out += b"".join(map(channel.encode, messages))
            self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                written = os.write(self._descriptor, self._out)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("control channel: %s", error)
                return
            del self._out[:written]

    async def flush(self, timeout: float = 2.0) -> None:
        """Wait until everything was handed to the host, or for `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._out and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)

    # the conversation

    def _introduce(self) -> None:
        """Tell a host that has just begun everything. It ignores our token if it has read it before."""
        state = "configured" if self._configured else "fresh"
        hello = {"protocol": PROTOCOL, "image": self._image, "generation": generation(), "state": state}
        told = [Event("phase", {"name": name, "seconds": seconds}) for name, seconds in phases()]
        if self._ready:
            told.append(Event("ready"))
        self._send(Resync(self._token), Event("hello", hello), *told)

    def _forget(self) -> None:
        self._conversation += 1
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the host's side of the machine began anew"))

    def _dispatch(self, message: Message) -> None:
        match message:
            case Resync():
                self._forget()
                self._introduce()
            case Request():
                task = asyncio.get_running_loop().create_task(self._answer(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Answer(number, result, failure):
                future = self._waiting.pop(number, None)
                if future is None or future.done():
                    return
                if failure is None:
                    future.set_result(result)
                else:
                    future.set_exception(SystemFailure(failure.brief))
            case Event("clients", params):
                self._want(int(_number(params, "count", 0)))
            case Event(name):
                log.debug("control channel: event %s of the host", name)

    async def _answer(self, request: Request) -> None:
        conversation = self._conversation
        try:
            answer = Answer(request.id, await self._carry_out(request.method, request.params))
        except PyboxdError as error:
            answer = Answer(request.id, failure=Failure(str(error)))
        except Exception as error:
            bug = os.urandom(4).hex()
            log.exception("bug %s in the control request %s", bug, request.method)
            answer = Answer(request.id, failure=Failure(f"internal error {bug}: {type(error).__name__}"))
        if conversation == self._conversation:
            self._send(answer)

    async def _carry_out(self, method: str, params: Params) -> Params:
        match method:
            case "configure":
                values, moment = configuration.parse(params)
                async with self._one_at_a_time:
                    await self._configure(values, moment)
                self._configured = True
            case "clock":
                set_clock(_number(params, "time"))
            case "stop":
                task = asyncio.get_running_loop().create_task(self._stopping(_number(params, "timeout", 10.0)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "sync":
                await asyncio.to_thread(os.sync)
            case "folders":
                await folders.forget_cut_message()
            case "activity":
                return {"busy": self._is_busy()}
            case "ping":
                pass
            case _:
                raise NotImplementedHere(f"this engine does not know the request {method}")
        return {}

    async def _stopping(self, timeout: float) -> None:
        try:
            await self._stop(timeout)
        except Exception:
            log.exception("the engine could not stop properly")

    async def _request(self, method: str, params: Params) -> Params:
        if not self._connected:
            raise Unavailable("the host's side of the machine is not there")
        number, self._next_id = self._next_id, self._next_id + 1
        future: asyncio.Future[Params] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._send(Request(number, method, params))
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    # what the engine says

    async def publish(self, protocol: str, host_ip: str, host_port: int, guest_port: int) -> tuple[str, int]:
        """Have the host listen for a container: the address and port it really took.

        `host_ip` "" is the configured default, `host_port` 0 any. SystemFailure, in Docker's words, when it cannot
        listen; Unavailable when the host is not there.
        """
        params = {"protocol": protocol, "host_ip": host_ip, "host_port": host_port, "guest_port": guest_port}
        result = await self._request("publish", params)
        return str(result.get("host_ip", host_ip)), int(result.get("host_port", host_port))

    async def release(self, protocol: str, host_ip: str, host_port: int) -> None:
        """Have the host stop listening. Unavailable when the host is not there."""
        await self._request("release", {"protocol": protocol, "host_ip": host_ip, "host_port": host_port})

    def phase(self, name: str) -> None:
        """The start has come to this point; what was marked before the host came is told to it when it comes."""
        self._send(Event("phase", {"name": name, "seconds": mark_phase(name)}))

    def ready(self) -> None:
        """The engine's API answers; told again to every host that comes later."""
        self._ready = True
        self._send(Event("ready"))

    def stopped(self) -> None:
        """The data disk is unmounted, the power goes off next."""
        self._send(Event("stopped"))


def _number(params: Params, name: str, default: float | None = None) -> float:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(f"{name} is no number")
    return float(value)


def _image_id() -> str:
    """Id of the image this guest was booted from; "" when it has no manifest."""
    try:
        with open(MANIFEST) as file:
            return str(json.load(file)["id"])
    except FileNotFoundError:
        return ""
