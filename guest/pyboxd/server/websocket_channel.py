"""A WebSocket in the place of a bare connection: the channel that a handler sees, over the one that was taken over.

Imported only when a client asks for a WebSocket.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pyboxd.server.message import Channel, ClientGone
from pyboxd.server.websocket import NORMAL, PROTOCOL_ERROR, Decoder, Opcode, ProtocolError, encode, encode_close


class WebSocketChannel:
    """See `message.Channel` for the meaning of its methods. `binary` says what kind of frames go out.

    `read` answers pings and closes: somebody must be reading at all times.
    """

    def __init__(self, channel: Channel, binary: bool) -> None:
        self._channel = channel
        self._binary = binary
        # Text frames must be text, also where a character's bytes come in two pieces.
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._decoder = Decoder()
        self._input = bytearray()
        self._over = False  # no more input comes, and nothing may be sent
        self.closed = asyncio.Event()  # the same, and all input was read

    async def read(self) -> bytes:
        """Bytes of text and binary messages alike; b"" after the close."""
        while not self._input:
            if self._over:
                self.closed.set()
                return b""
            await self._receive()
        data = bytes(self._input)
        self._input.clear()
        return data

    async def _receive(self) -> None:
        data = await self._channel.read()
        if not data:
            self._over = True
            return
        try:
            for event in self._decoder.feed(data):
                if event.opcode is Opcode.PING:
                    await self._channel.write(encode(Opcode.PONG, event.data))
                elif event.opcode is Opcode.CLOSE:
                    await self._close(event.code)
                elif event.opcode is not Opcode.PONG:
                    self._input += event.data
        except ProtocolError as error:
            await self._close(PROTOCOL_ERROR, str(error))
        except ClientGone:
            self._over = True

    async def write(self, data: bytes) -> None:
        if self._over:
            raise ClientGone("the client closed the WebSocket")
        if self._binary:
            await self._channel.write(encode(Opcode.BINARY, data))
        elif text := self._decode(data):
            await self._channel.write(encode(Opcode.TEXT, text.encode()))

    async def write_eof(self) -> None:
        """Say that nothing more comes. A WebSocket has no half that could stay open."""
        if not self._over:
            await self._close(NORMAL)

    async def _close(self, code: int, reason: str = "") -> None:
        self._over = True
        with suppress(ClientGone):
            await self._channel.write(encode_close(code, reason))


def over_websocket(
    run: Callable[[Channel], Awaitable[None]], *, binary: bool, takes_input: bool
) -> Callable[[Channel], Awaitable[None]]:
    """`run` over a WebSocket; `takes_input` says whether it reads by itself. Ends when either side does."""

    async def running(channel: Channel) -> None:
        client = WebSocketChannel(channel, binary)
        tasks = [asyncio.ensure_future(run(client)), asyncio.ensure_future(client.closed.wait())]
        reading = None if takes_input else asyncio.ensure_future(_discard(client))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            tasks += [reading] if reading is not None else []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.write_eof()

    return running


async def _discard(client: WebSocketChannel) -> None:
    while await client.read():
        pass
