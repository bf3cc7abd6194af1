"""The conversation with one machine's guest: who it is, what it is told, what it asks for.

The guest's engine may begin anew at any moment (it is restarted when it dies), so nothing here is a sequence: a
`hello` of a fresh engine leads to `configure`, whenever it comes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from pybox.errors import MachineError, PyboxError
from pybox.forward.ports import Ports
from pybox.hostagent.control import Control, Interrupted
from pybox.model import Json

log = logging.getLogger(__name__)
PROTOCOL = 2
_CONFIGURE = 180.0  # seconds; a data disk may have to be checked
_STOP_ANSWER = 10.0  # seconds
_CLOCK_ANSWER = 5.0  # seconds
_SYNC = 120.0  # seconds for what programs wrote to get to the disk
_FOLDERS = 15.0  # seconds
_ACTIVITY = 10.0  # seconds


class Guest:
    """What the hostagent knows of the guest, and how it asks it.

    `make_configuration` gives the params of `configure`, new ones each time; with None the guest is not configured.
    `ports` are the machine's published ports.
    """

    def __init__(self, make_configuration: Callable[[], dict[str, Any]] | None, ports: Ports) -> None:
        self._make_configuration = make_configuration
        self._ports = ports
        self._control: Control | None = None
        self._generation = ""
        self._fresh = asyncio.Event()  # an engine waits for `configure`, or was told by an earlier host only
        self._is_first = True
        self.hello = asyncio.Event()  # the guest has said who it is
        self.configured = asyncio.Event()
        self.ready = asyncio.Event()  # the engine's API answers
        self.stopped = asyncio.Event()  # the data disk is unmounted
        self.refused: asyncio.Future[MachineError] = asyncio.get_running_loop().create_future()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the control channel until it ends."""
        self._control = Control(
            reader,
            writer,
            requests={"publish": self._publish, "release": self._release},
            events={
                "hello": self._on_hello,
                "phase": lambda params: log.info("guest: %s after %s s", params.get("name"), params.get("seconds")),
                "ready": lambda _params: self.ready.set(),
                "stopped": lambda _params: self.stopped.set(),
            },
        )
        if self._make_configuration is None:
            await self._control.run()
            return
        configuring = asyncio.create_task(self._configure_when_asked(self._control, self._make_configuration))
        try:
            await self._control.run()
        finally:
            configuring.cancel()
            await asyncio.gather(configuring, return_exceptions=True)

    async def stop(self, timeout: float) -> None:
        """Ask the guest to end its containers within `timeout` seconds and to power off. Raises MachineError."""
        await self._request("stop", {"timeout": timeout}, _STOP_ANSWER)

    async def set_clock(self, seconds: float) -> None:
        """Set the guest's clock (seconds since the epoch), if it is configured. Raises MachineError."""
        if self.configured.is_set():
            await self._request("clock", {"time": seconds}, _CLOCK_ANSWER)

    async def sync(self) -> None:
        """Have the guest write out all file systems. Raises MachineError."""
        await self._request("sync", {}, _SYNC)

    async def is_busy(self) -> bool:
        """Say whether a container runs or somebody is connected by ssh; a guest that does not answer is busy."""
        try:
            return bool((await self._request("activity", {}, _ACTIVITY)).get("busy", True))
        except MachineError as error:
            log.info("activity: %s", error)
            return True

    async def forget_cut_message(self) -> None:
        """Have the guest forget what a folder server that is gone had half sent. Raises MachineError.

        No folder server may be connected meanwhile.
        """
        await self._request("folders", {}, _FOLDERS)

    def clients_wait(self, count: int) -> None:
        """Tell the guest that so many clients of the API wait for a connection."""
        if self._control is not None:
            self._control.tell("clients", {"count": count})

    async def _request(self, method: str, params: Json, timeout: float) -> Json:
        if self._control is None:
            raise MachineError("the engine cannot be asked: it has not said a word yet")
        return await self._control.request(method, params, timeout)

    # -- what it tells ------------------------------------------------------------------------------

    def _on_hello(self, params: Json) -> None:
        protocol, generation = params.get("protocol"), str(params.get("generation", ""))
        log.info("hello: protocol %s, image %s, %s", protocol, params.get("image"), params.get("state"))
        if protocol != PROTOCOL:
            if not self.refused.done():
                self.refused.set_result(
                    MachineError(
                        "the guest image does not fit this version of pybox",
                        f"It speaks version {protocol} of the control channel; this is version {PROTOCOL}.",
                        "Build it again: pybox machine build-image",
                    )
                )
            return
        if params.get("state") != "configured" or self._is_first:
            self._is_first = False
            self.configured.clear()
            self.ready.clear()
            self._fresh.set()
        if self._generation not in ("", generation):
            log.info("the guest has booted anew")
            asyncio.get_running_loop().create_task(self._ports.release_all())
        self._generation = generation
        self.hello.set()

    async def _configure_when_asked(self, control: Control, make: Callable[[], dict[str, Any]]) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            began = time.monotonic()
            try:
                await control.request("configure", make(), _CONFIGURE)
            except Interrupted as error:
                log.info("configure: %s", error)
            except PyboxError as error:
                log.error("configure: %s: %s", error, error.details)
                if not self.refused.done():
                    self.refused.set_result(MachineError(error.brief, error.details, error.resolution))
            else:
                log.info("configured in %.3f s", time.monotonic() - began)
                self.configured.set()

    # -- what it asks for ---------------------------------------------------------------------------

    async def _publish(self, params: Json) -> Json:
        port = await self._ports.publish(
            str(params.get("protocol", "tcp")),
            str(params.get("host_ip") or ""),
            _number(params, "host_port"),
            _number(params, "guest_port"),
        )
        log.info("published %s %s:%d", port.protocol, port.host_ip, port.host_port)
        return {"host_ip": port.host_ip, "host_port": port.host_port}

    async def _release(self, params: Json) -> Json:
        await self._ports.release(
            str(params.get("protocol", "tcp")), str(params.get("host_ip") or ""), _number(params, "host_port")
        )
        return {}


def _number(params: Json, name: str) -> int:
    value = params.get(name, 0)
    if not isinstance(value, int):
        raise PyboxError(f"{name} is no number")
    return value
