"""Health checks: the image's or the user's test, run in the container again and again (moby, daemon/health.go)."""

from __future__ import annotations

import asyncio
import logging
import time

from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.exec import Execs
from pyboxd.engine.model import Health, HealthResult, Status
from pyboxd.engine.specs import ExecConfig
from pyboxd.errors import PyboxdError
from pyboxd.frozen import replace
from pyboxd.model import Healthcheck

log = logging.getLogger(__name__)
_SECOND = 10**9
INTERVAL, TIMEOUT, START_INTERVAL, RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3
RESULTS_KEPT = 5
OUTPUT_KEPT = 4096  # bytes of one test's output
_DEFAULT_SHELL = ("/bin/sh", "-c")


class HealthChecks:
    """Runs the checks of all running containers."""

    def __init__(self, containers: Containers, execs: Execs, events: Events) -> None:
        self._containers = containers
        self._execs = execs
        self._events = events
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def started(self, container: Container) -> None:
        """The container has started: begin to test it, if it has a test."""
        check = container.record.config.healthcheck
        command = test_command(check, container.record.config.shell)
        if check is None or command is None:
            return
        self._containers.show_state(container, health=Health())
        task = asyncio.get_running_loop().create_task(self._watch(container, check, command))
        self._tasks[container.id] = task
        task.add_done_callback(_report)

    def ended(self, container: Container) -> None:
        """The container has ended: stop testing."""
        task = self._tasks.pop(container.id, None)
        if task is None:
            return
        task.cancel()
        health = container.state.health
        if health is not None and health.status != "unhealthy":
            self._containers.show_state(container, health=replace(health, status="unhealthy"))

    async def _watch(self, container: Container, check: Healthcheck, command: tuple[str, ...]) -> None:
        started = time.time_ns()
        while container.process is not None:
            await asyncio.sleep(self._pause(container, check, started) / _SECOND)
            if container.state.status != Status.RUNNING:
                continue
            result = await self._probe(container, command, (check.timeout or TIMEOUT) / _SECOND)
            in_start_period = time.time_ns() - started < check.start_period
            self._judge(container, result, check.retries or RETRIES, in_start_period)

    def _pause(self, container: Container, check: Healthcheck, started: int) -> int:
        """Nanoseconds until the next test; shorter while the container is allowed to be still starting."""
        health = container.state.health
        starting = health is not None and health.status == "starting"
        if starting and time.time_ns() - started < check.start_period:
            return check.start_interval or START_INTERVAL
        return check.interval or INTERVAL

    async def _probe(self, container: Container, command: tuple[str, ...], timeout: float) -> HealthResult:
        begun = time.time_ns()
        output = bytearray()
        probe = None
        try:
            async with asyncio.timeout(timeout):
                probe = self._execs.create(container, ExecConfig(command, attach_stdout=True, attach_stderr=True))
                attachment = await self._execs.start(probe, attached=True)
                assert attachment is not None
                async for _, data in attachment.frames():
                    output += data[: OUTPUT_KEPT - len(output)]
                await attachment.close()
                await probe.ended.wait()
                code = probe.exit_code or 0
        except TimeoutError:
            if probe is not None and probe.process is not None:
                await probe.process.kill_all()
            code = -1
            output[:] = f"Health check exceeded timeout ({timeout:g}s)".encode()
        except PyboxdError as error:
            code = -1
            output[:] = str(error).encode()[:OUTPUT_KEPT]
        return HealthResult(begun, time.time_ns(), code, output.decode("utf-8", "replace"))

    def _judge(self, container: Container, result: HealthResult, retries: int, in_start_period: bool) -> None:
        """What the test says about the container; an event when that is news."""
        if container.process is None:
            return
        before = container.state.health or Health()
        streak, status = before.failing_streak, before.status
        if result.exit_code == 0:
            streak, status = 0, "healthy"
        elif not (in_start_period and status == "starting"):
            streak += 1
            if streak >= retries:
                status = "unhealthy"
        results = (*before.log, result)[-RESULTS_KEPT:]
        self._containers.show_state(container, health=Health(status, streak, results))
        if status != before.status:
            self._events.container(container.record, f"health_status: {status}")


def test_command(check: Healthcheck | None, shell: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The command of a test; None when there is none (no check, or the image's was switched off)."""
    if check is None or not check.test:
        return None
    kind, *words = check.test
    if kind == "CMD":
        return tuple(words) or None
    if kind == "CMD-SHELL":
        return (*(shell or _DEFAULT_SHELL), *words)
    if kind != "NONE":
        log.warning("unknown kind of health check: %s", kind)
    return None


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a health check broke off", exc_info=task.exception())
