"""Connections taken over from HTTP: what `attach` and `exec` speak through.

The client's bytes come from up to three places, in order: what arrived in the same packet as the request, the
chunks of the request's body (clients that cannot upgrade send stdin that way), then the bare connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from pyboxd.server.message import Channel, ClientGone

READ_SIZE = 64 * 1024
HOLD = 0.015
"""Seconds between the header and the first output: docker-py loses what it reads together with the header."""
LINGER = 2.0

log = logging.getLogger(__name__)


def end_sending(writer: asyncio.StreamWriter) -> None:
    """End our side of a connection, if it can and if there still is one."""
    if writer.can_write_eof():
        with suppress(OSError):  # the client is gone, which is not known here yet
            writer.write_eof()


class HijackedChannel:
    """The `Channel` of one connection; see `message.Channel` for the meaning of its methods."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        body: AsyncIterator[bytes] | None,
        leftover: bytes,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._body = body
        self._leftover = leftover
        self._open_at = asyncio.get_running_loop().time() + HOLD

    async def read(self) -> bytes:
        if self._leftover:
            data, self._leftover = self._leftover, b""
            return data
        try:
            if self._body is not None:
                # The chunked body is all of stdin: its last chunk is the end, whatever the connection does.
                return await anext(self._body, b"")
            return await self._reader.read(READ_SIZE)
        except (ConnectionError, ClientGone):
            return b""

    async def write(self, data: bytes) -> None:
        if self._open_at:
            await asyncio.sleep(self._open_at - asyncio.get_running_loop().time())
            self._open_at = 0.0
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise ClientGone("the client closed the connection") from error

    async def write_eof(self) -> None:
        if not self._writer.is_closing():
            end_sending(self._writer)

    async def finish(self) -> None:
        """End our side, then let the client finish its own for a while (see `Connection._linger`)."""
        await self.write_eof()
        try:
            async with asyncio.timeout(LINGER):
                while not self._writer.is_closing() and await self._reader.read(READ_SIZE):
                    pass
        except (TimeoutError, ConnectionError):
            pass


async def run_hijack(run: Callable[[Channel], Awaitable[None]], channel: HijackedChannel, lost: asyncio.Event) -> None:
    """Let `run` speak over the connection, whose header has been sent; then end it. Its errors are logged."""
    running = asyncio.create_task(_guard(run, channel))
    losing = asyncio.create_task(lost.wait())
    try:
        await asyncio.wait((running, losing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (running, losing):
            task.cancel()
        await asyncio.gather(running, losing, return_exceptions=True)
    await channel.finish()


async def _guard(run: Callable[[Channel], Awaitable[None]], channel: HijackedChannel) -> None:
    try:
        await run(channel)
    except ClientGone:
        pass
    except Exception:
        log.exception("a hijacked connection broke off")
