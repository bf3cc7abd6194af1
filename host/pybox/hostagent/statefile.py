"""A machine's state on its way between QEMU and a file.

The bytes go over a unix socket in the machine's private folder: QEMU needs no shell and no descriptor for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

from pybox import hostos
from pybox.errors import MachineError
from pybox.qemu.monitor import Monitor

SOCKET = "state.sock"
_CHUNK = 1024 * 1024  # bytes
_PATIENCE = 120.0  # seconds


async def save(monitor: Monitor, sockets: Path, target: Path, *, memory: bool, patience: float = _PATIENCE) -> None:
    """Stop the guest and put its state into `target`, synced. Raises MachineError, OSError; the guest stands still then.

    `patience` is how many seconds it may take.
    """
    address = sockets / SOCKET
    with hostos.current().listen(address) as listener, target.open("wb") as file:
        listener.setblocking(False)
        taking = asyncio.ensure_future(_take(listener, file.fileno()))
        try:
            sending = monitor.save(f"unix:{address}", memory=memory, patience=patience)
            await _both(taking, asyncio.ensure_future(sending))
        finally:
            address.unlink(missing_ok=True)
        await asyncio.to_thread(os.fsync, file.fileno())


async def load(monitor: Monitor, sockets: Path, source: Path, *, memory: bool, patience: float = _PATIENCE) -> None:
    """Load the state in `source` into a QEMU that was started for it; the guest stands still. Raises MachineError."""
    address = sockets / SOCKET
    try:
        async with monitor.loading(f"unix:{address}", memory=memory, patience=patience):
            with hostos.current().dial(address) as connection, source.open("rb") as file:
                connection.setblocking(False)
                with suppress(ConnectionError):  # QEMU has ended: that is told by its end
                    await asyncio.get_running_loop().sock_sendfile(connection, file)
    except OSError as error:
        raise MachineError("the machine's state cannot be read", f"{source}: {error.strerror}") from None
    finally:
        address.unlink(missing_ok=True)


async def _both(taking: asyncio.Future[None], sending: asyncio.Future[None]) -> None:
    """Wait for the two ends of a save. A full disk is the taker's error; QEMU only sees that nobody takes any more."""
    try:
        await asyncio.wait((taking, sending), return_when=asyncio.FIRST_EXCEPTION)
        if taking.done():
            with suppress(MachineError):
                await sending
            taking.result()
        await sending
        await taking
    finally:
        for task in (taking, sending):
            task.cancel()
        await asyncio.gather(taking, sending, return_exceptions=True)


async def _take(listener: socket.socket, target: int) -> None:
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    buffer = memoryview(bytearray(_CHUNK))
    with connection:
        connection.setblocking(False)
        while size := await loop.sock_recv_into(connection, buffer):
            rest = buffer[:size]
            while rest:
                rest = rest[os.write(target, rest) :]
