"""The hostagent's end of the control channel: requests both ways, events, and a guest that may begin anew."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping

from pybox.errors import MachineError, PyboxError
from pybox.hostagent.channel import Answer, Event, Message, Receiver, Refusal, Request, Resync, encode
from pybox.model import Json

log = logging.getLogger(__name__)
_CHUNK = 64 * 1024

RequestHandler = Callable[[Json], Awaitable[Json]]
EventHandler = Callable[[Json], None]


class Interrupted(MachineError):
    """The guest began anew, or ended, before it answered."""


class Control:
    """One guest's control channel.

    `requests` and `events` are what the guest may ask and tell; a handler of a request raises PyboxError to refuse.
    Requests are answered side by side: one that waits does not hold up another.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        requests: Mapping[str, RequestHandler],
        events: Mapping[str, EventHandler],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = requests
        self._events = events
        self._receiver = Receiver()
        self._token = os.urandom(16).hex()
        self._life = 0  # counts the guest's new beginnings
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Introduce this side, then serve until the channel ends (QEMU is gone)."""
        self._writer.write(b"\n")  # a restored guest may hold half a line of an earlier host
        self._send(Resync(self._token))
        try:
            while data := await self._reader.read(_CHUNK):
                for message in self._receiver.feed(data):
                    self._take(message)
        except ConnectionError:
            log.info("the control channel was cut")
        finally:
            self._forget("the machine has ended")
            for task in list(self._tasks):
                task.cancel()
            self._writer.close()

    async def request(self, method: str, params: Json, timeout: float) -> Json:
        """Ask the guest and return its answer.

        `timeout` is in seconds. Raises MachineError when it refuses or takes too long, Interrupted when it begins anew
        or ends.
        """
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send(Request(number, method, params))
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise MachineError(f"the engine did not answer `{method}` within {timeout:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def tell(self, name: str, params: Json) -> None:
        """Send an event, which nobody answers."""
        self._send(Event(name, params))

    def _send(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    def _take(self, message: Message) -> None:
        match message:
            case Resync():
                self._life += 1
                self._forget("the engine began anew")
                # The guest that reads this may be another than the one that read the first; a repeated token is
                # nothing new to one that has it.
                self._send(Resync(self._token))
            case Request():
                task = asyncio.get_running_loop().create_task(self._serve(message, self._life))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Answer(number, result):
                if (future := self._waiting.pop(number, None)) and not future.done():
                    future.set_result(result)
            case Refusal(number, brief, details, resolution):
                if (future := self._waiting.pop(number, None)) and not future.done():
                    future.set_exception(MachineError(brief, details, resolution))
            case Event(name, params):
                handler = self._events.get(name)
                if handler is None:
                    log.info("unknown event %s", name)
                else:
                    handler(params)

    async def _serve(self, request: Request, life: int) -> None:
        answer = await self._answer(request)
        if life == self._life:  # otherwise nobody remembers the question
            self._send(answer)

    async def _answer(self, request: Request) -> Message:
        handler = self._requests.get(request.method)
        if handler is None:
            return Refusal(request.id, f"this hostagent does not know the request {request.method}")
        try:
            return Answer(request.id, await handler(request.params))
        except PyboxError as error:
            return Refusal(request.id, error.brief, error.details, error.resolution)
        except Exception:  # a bug in one request must not end the machine
            bug = os.urandom(4).hex()
            log.exception("bug %s in the request %s", bug, request.method)
            return Refusal(request.id, f"internal error {bug} of the hostagent", "", "See hostagent.log.")

    def _forget(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Interrupted(f"no answer: {reason}"))
