"""QEMU's monitor (QMP): what the hostagent asks of a running machine. The protocol is qemu.qmp's.

Forwards have no command of their own in QMP; they go through the human monitor, whose errors are mere text.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from pybox.errors import MachineError
from pybox.model import ForwardedPort
from pybox.qemu.command import GUEST_ADDRESS, NETWORK

log = logging.getLogger(__name__)
_GREETING_TIMEOUT = 20.0  # seconds until QEMU must talk
_ANSWER_TIMEOUT = 20.0  # seconds for a command; they take milliseconds on a QEMU that lives
_STATE_TIMEOUT = 120.0  # seconds between two events while a state is sent or taken
_FAILED = ("failed", "cancelled")
# A guest that stands still has nothing to gain from a small share of the bandwidth, or from another look at its pages.
_UNHURRIED: dict[str, object] = {"max-bandwidth": 1 << 40, "downtime-limit": 2_000_000}


class ForwardRefused(MachineError):
    """QEMU did not take a forward; `details` is its text."""


class Monitor:
    """The connection to one QEMU. Every method raises MachineError when QEMU is gone or does not answer."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, connection: socket.socket, name: str) -> Monitor:
        """Talk to QEMU over a connected socket, which may be connected before QEMU has come that far."""
        client = QMPClient(name)
        try:
            await asyncio.wait_for(client.connect(connection), _GREETING_TIMEOUT)
        except (QMPError, OSError, TimeoutError) as error:
            connection.close()
            raise MachineError("QEMU does not answer", f"QMP: {error or 'no greeting'}") from None
        return cls(client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; QEMU goes on."""
        with suppress(QMPError, OSError, EOFError, asyncio.CancelledError):
            await self._client.disconnect()

    async def pause(self) -> None:
        """Stop the guest's CPUs."""
        await self._execute("stop")

    async def resume(self) -> None:
        """Let the guest's CPUs go on."""
        await self._execute("cont")

    async def power_button(self) -> None:
        """Press the guest's power button."""
        await self._execute("system_powerdown")

    async def quit(self) -> None:
        """End QEMU; what the guest has not written is lost."""
        with suppress(MachineError):  # QEMU may be gone before it has answered
            await self._execute("quit")

    async def disk_reads(self, disk: str) -> int:
        """Return how often the guest has read from a disk; more than 0 means that its kernel runs."""
        found = await self._execute("query-blockstats")
        devices = found if isinstance(found, list) else []
        counts = [item["stats"]["rd_operations"] for item in devices if item.get("device") == disk]
        return int(sum(counts))

    async def save(self, uri: str, *, memory: bool, patience: float = _STATE_TIMEOUT) -> None:
        """Stop the guest and send its state to `uri`, where somebody listens; return when all of it is sent.

        Without `memory` only the devices' state is sent: RAM that is a shared file is kept by its file. `patience` is
        in seconds.
        """
        await self.pause()
        await self._allow(memory)
        await self._execute("migrate-set-parameters", _UNHURRIED)
        with self._client.listener("MIGRATION") as events:
            await self._execute("migrate", {"uri": uri})
            await self._migrated(events, patience)

    @asynccontextmanager
    async def loading(self, uri: str, *, memory: bool, patience: float = _STATE_TIMEOUT) -> AsyncIterator[None]:
        """Have QEMU, which was started for it, listen at `uri`: the state is to be sent there inside the block.

        At the end of the block all is loaded, and the guest stands still. A QEMU that cannot load a state ends.
        """
        await self._allow(memory)
        with self._client.listener("MIGRATION") as events:
            await self._execute("migrate-incoming", {"uri": uri})
            yield
            await self._migrated(events, patience)

    async def _allow(self, memory: bool) -> None:
        wanted = {"events": True, "x-ignore-shared": not memory}
        capabilities = [{"capability": name, "state": state} for name, state in wanted.items()]
        await self._execute("migrate-set-capabilities", {"capabilities": capabilities})

    async def _migrated(self, events: EventListener, patience: float) -> None:
        status = ""
        while status != "completed":
            try:
                event = await asyncio.wait_for(events.get(), patience)
            except TimeoutError:
                raise MachineError("QEMU does not get on with the machine's state", f"it is `{status}`") from None
            data = event["data"]
            status = str(data["status"]) if isinstance(data, dict) else ""
            if status in _FAILED:
                found = await self._execute("query-migrate")
                reason = found.get("error-desc", "") if isinstance(found, dict) else ""
                raise MachineError(f"QEMU could not move the machine's state: {status}", str(reason))

    async def add_forward(self, port: ForwardedPort) -> None:
        """Have QEMU listen on a port of this host. Raises ForwardRefused when it cannot."""
        rule = f"{port.protocol}:{port.host_ip}:{port.host_port}-{GUEST_ADDRESS}:{port.guest_port}"
        said = await self._human(f"hostfwd_add {NETWORK} {rule}")
        if said:
            raise ForwardRefused("QEMU does not forward a port", f"{rule}: {said}")

    async def remove_forward(self, port: ForwardedPort) -> None:
        """Have QEMU stop listening; connections that exist go on. Nothing happens when it does not listen."""
        rule = f"{port.protocol}:{port.host_ip}:{port.host_port}"
        said = await self._human(f"hostfwd_remove {NETWORK} {rule}")
        if "removed" not in said:
            log.warning("forward %s was not removed: %s", rule, said)

    async def _human(self, line: str) -> str:
        return str(await self._execute("human-monitor-command", {"command-line": line})).strip()

    async def _execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), _ANSWER_TIMEOUT)
        except ExecuteError as error:
            raise MachineError(f"QEMU refuses {command}", str(error)) from None
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise MachineError("QEMU does not answer", f"{command}: {error or 'no answer in time'}") from None
