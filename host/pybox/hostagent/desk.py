"""Where the hostagent is asked: answers orders on its socket and tells the waiting start how far it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from pybox.errors import MachineError, PyboxError
from pybox.machine.reports import (
    Failed,
    Order,
    Ready,
    Report,
    StatusReport,
    Stopped,
    Suspended,
    decode_order,
    encode_report,
)
from pybox.machine.status import MachineStatus
from pybox.model import MachineState, Phase

log = logging.getLogger(__name__)
_LAST_WORDS = 2.0  # seconds to tell those who wait for the end


class Desk:
    """The machine's state as others may know it.

    `status` gives all that can be said. `stop_order` is done when somebody wants the machine to stop: with the seconds
    that containers get. `suspend_order` is done when somebody wants it to be suspended, until `tried_to_suspend`;
    `wanted` is set when somebody wants it to run.
    """

    def __init__(self, status: Callable[[MachineState], MachineStatus]) -> None:
        self._status = status
        self._state = MachineState.STARTING
        self._phases: list[Phase] = []
        self._failure: MachineError | None = None
        self._was_suspended = False
        self._news = asyncio.Condition()
        self._visitors: set[asyncio.Task[None]] = set()
        self.stop_order: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.suspend_order: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wanted = asyncio.Event()
        self._suspension: asyncio.Future[Report] = asyncio.get_running_loop().create_future()

    def phase(self, phase: Phase) -> None:
        """Tell that a phase of the start has ended."""
        self._phases.append(phase)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._visitors.add(task)
        task.add_done_callback(self._visitors.discard)

    async def become(self, state: MachineState) -> None:
        """Tell that the machine is in another state."""
        self._state = state
        if state is MachineState.STARTING:
            self._phases.clear()
        await self._tell()

    async def close(self, failure: MachineError | None) -> None:
        """Tell those who wait that the machine is off, and why, if it failed."""
        self._failure = failure
        self._was_suspended = self._state is MachineState.SUSPENDED
        await self.become(MachineState.STOPPED)
        if not self._suspension.done():
            self._suspension.set_result(self._last_word(MachineState.SUSPENDED))
        if self._visitors:
            await asyncio.wait(self._visitors, timeout=_LAST_WORDS)
        for task in list(self._visitors):
            task.cancel()

    def order_stop(self, timeout: float) -> None:
        """Want the machine to stop; the first order counts."""
        if not self.stop_order.done():
            self.stop_order.set_result(timeout)

    def order_suspend(self) -> None:
        """Want the machine to be suspended."""
        if not self.suspend_order.done():
            self.suspend_order.set_result(None)

    async def tried_to_suspend(self, failure: MachineError | None) -> None:
        """Tell those who wanted it what became of it; after a failure the machine runs on."""
        suspension, self._suspension = self._suspension, asyncio.get_running_loop().create_future()
        self.suspend_order = asyncio.get_running_loop().create_future()
        suspension.set_result(Failed(failure) if failure else Suspended())
        await self.become(MachineState.RUNNING if failure else MachineState.SUSPENDED)

    async def report_start(self, write: Callable[[bytes], None]) -> None:
        """Tell the start that waits for us everything until the machine runs, or does not."""
        async for report in self._reports_until(MachineState.RUNNING):
            write(encode_report(report))

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the hostagent's socket."""
        task = asyncio.current_task()
        assert task is not None
        self._visitors.add(task)
        try:
            order = decode_order(await reader.readline())
            async for report in self._answers(order):
                writer.write(encode_report(report))
                await writer.drain()
        except (PyboxError, OSError, ValueError) as error:
            log.info("an order was not answered: %s", error)
        finally:
            self._visitors.discard(task)
            writer.close()

    async def _answers(self, order: Order) -> AsyncIterator[Report]:
        match order.do:
            case "status":
                yield StatusReport(self._status(self._state))
            case "wait":
                self.wanted.set()
                async for report in self._reports_until(MachineState.RUNNING):
                    yield report
            case "stop":
                self.order_stop(order.timeout)
                async for report in self._reports_until(MachineState.STOPPED):
                    yield report
            case "suspend" if self._state is MachineState.SUSPENDED:
                self.order_stop(0.0)  # it no longer waits for clients
                yield Suspended()
            case "suspend" if self._state is MachineState.ASLEEP:
                yield Failed(MachineError("the machine is off", "It was idle."))
            case "suspend":
                self.order_suspend()
                yield await asyncio.shield(self._suspension)
            case other:
                yield Failed(MachineError(f"the hostagent does not know the order {other!r}"))

    async def _reports_until(self, wanted: MachineState) -> AsyncIterator[Report]:
        """Yield phases, and the end: the wanted state, or the machine's end."""
        told = 0
        while True:
            async with self._news:
                while told >= len(self._phases) and self._state not in (wanted, MachineState.STOPPED):
                    await self._news.wait()
            for phase in self._phases[told:]:
                told += 1
                yield phase
            if self._state is MachineState.STOPPED:
                yield self._last_word(wanted)
                return
            if self._state is wanted:
                yield Ready(self._status(self._state))
                return

    def _last_word(self, wanted: MachineState) -> Report:
        if self._was_suspended:
            return Suspended()
        if wanted is MachineState.STOPPED:
            return Stopped()
        return Failed(self._failure or MachineError("the machine was stopped"))

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
