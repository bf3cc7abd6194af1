"""One client connection: h11 decides what the bytes mean, this file moves them.

Requests are served one after the other, for as long as the client likes (an idle connection is never
closed: clients pool them). One coroutine at a time reads: while a handler takes the request's body it reads
for it; while a Stream response runs after the body's end, a watcher reads to notice that the client has left.

Not here: which handler, which status (`http.py`), the way in (`dial.py`), hijacked connections (`hijack.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, cast

import h11

from pyboxd.server.hijack import HijackedChannel, end_sending, run_hijack
from pyboxd.server.message import (
    JSON,
    Body,
    ClientGone,
    Empty,
    Headers,
    Hijack,
    Json,
    Request,
    Response,
    Stream,
)
from pyboxd.server.status import REASONS

READ_SIZE = 64 * 1024
HEADER_LIMIT = 1024 * 1024  # bytes of one request's head; build queries with many arguments are long
LINGER = 2.0  # seconds to let a client finish what it sends before the connection is closed under it

Responder: TypeAlias = Callable[[h11.Request, AsyncIterator[bytes]], Awaitable[tuple[Request, Response]]]
ErrorRenderer: TypeAlias = Callable[[Exception], Response]
Fields: TypeAlias = list[tuple[str, str]]


class Connection:
    """Serves one client.

    `lost` is set when the connection is gone in both directions. `respond` turns a request's head and body
    into the response (it raises nothing but ClientGone), `render` an exception raised later into one,
    `common` are header fields of every response.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        lost: asyncio.Event,
        respond: Responder,
        render: ErrorRenderer,
        common: Sequence[tuple[str, str]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._lost = lost
        self._respond = respond
        self._render = render
        self._common = common
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_LIMIT)
        self._body_done = asyncio.Event()

    async def serve(self) -> None:
        """Until the client leaves or the protocol ends the connection."""
        try:
            while await self._cycle():
                pass
            await self._linger()
        except h11.RemoteProtocolError as error:
            await self._refuse(error)
        except (ClientGone, ConnectionError, TimeoutError) as gone:
            if isinstance(gone.__cause__, h11.RemoteProtocolError):  # a body that is none
                await self._refuse(gone.__cause__)
        finally:
            self._writer.close()

    async def _cycle(self) -> bool:
        """One request and its response; whether another may follow."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return False
        if _is_ambiguous(event):
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        self._body_done.clear()
        body = self._read_body()
        if _is_small(event) and not self._http.they_are_waiting_for_100_continue:
            # Taken now, so that even under a handler that ignores the body a leaving client is noticed.
            body = _from_memory([part async for part in body])
        request, response = await self._respond(event, body)
        if isinstance(response, Hijack):
            try:
                await self._hijack(request, response)
            finally:
                await response.release()
            return False
        waits_for_100 = self._http.they_are_waiting_for_100_continue
        if isinstance(response, Stream):
            await self._send_stream(request, response)
        else:
            await self._send_whole(request, response)
        if waits_for_100:  # and so has not sent its body: nobody can tell where the next request begins
            return False
        return await self._finish_cycle()

    async def _finish_cycle(self) -> bool:
        """Skip what the handler left of the body, get ready for the next request."""
        if self._http.their_state is h11.SEND_BODY:
            try:
                async with asyncio.timeout(LINGER):
                    async for _ in self._read_body():
                        pass
            except TimeoutError:
                return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    # reading

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return cast("h11.Event | type[h11.PAUSED]", event)
            if self._http.they_are_waiting_for_100_continue:
                await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            self._http.receive_data(await self._reader.read(READ_SIZE))

    async def _read_body(self) -> AsyncIterator[bytes]:
        while self._http.their_state is h11.SEND_BODY:
            try:
                event = await self._next_event()
            except (h11.RemoteProtocolError, ConnectionError) as error:
                raise ClientGone("the connection ended before the request did") from error
            if isinstance(event, h11.Data):
                yield bytes(event.data)
        self._body_done.set()

    async def _client_left(self) -> None:
        """Return when the client has closed its sending side, which without a hijack means that it has left.

        Bytes of a pipelined request are kept for later, but only a buffer's worth.
        """
        await self._body_done.wait()
        kept = 0
        while kept < READ_SIZE:
            try:
                data = await self._reader.read(READ_SIZE)
            except ConnectionError:
                return
            self._http.receive_data(data)
            if not data:
                return
            kept += len(data)
        await self._lost.wait()

    # writing

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise ClientGone("the client closed the connection") from error

    def _head(self, status: int, fields: Fields, headers: Mapping[str, str]) -> bytes:
        every = [*self._common, *fields, *headers.items()]
        head = h11.Response(status_code=status, headers=every, reason=REASONS.get(status, ""))  # clients show the reason
        return self._http.send(head) or b""

    async def _send_whole(self, request: Request, response: Json | Body | Empty) -> None:
        fields: Fields = []
        data = b""
        if isinstance(response, Json):
            data = _encode(response.value) + b"\n"
            fields.append(("Content-Type", JSON))
        elif isinstance(response, Body):
            data = response.data
            fields.append(("Content-Type", response.content_type))
        if response.status not in (204, 304):
            fields.append(("Content-Length", str(len(data))))
        out = [self._head(response.status, fields, response.headers)]
        if request.method != "HEAD" and response.status not in (204, 304):
            out.append(self._http.send(h11.Data(data=data)) or b"")
        out.append(self._http.send(h11.EndOfMessage()) or b"")
        await self._write(b"".join(out))

    async def _send_stream(self, request: Request, response: Stream) -> None:
        """Send until the chunks end or the client leaves; either way the iterator is closed."""
        sending = asyncio.create_task(self._send_chunks(request, response))
        watching = asyncio.create_task(self._client_left())
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientGone("the client left in the middle of a stream")
            sending.result()
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)

    async def _send_chunks(self, request: Request, response: Stream) -> None:
        fields: Fields = [("Content-Type", response.content_type)]
        chunks = response.chunks
        try:
            out = b""
            if not response.eager:
                try:
                    out = await anext(chunks, b"")
                except (ClientGone, asyncio.CancelledError):
                    raise
                except Exception as error:  # noqa: BLE001 - like one of the handler's
                    rendered = self._render(error)
                    assert isinstance(rendered, (Json, Empty))
                    return await self._send_whole(request, rendered)
            await self._write(self._head(response.status, fields, response.headers) + self._chunk(out))
            async for chunk in chunks:
                await self._write(self._chunk(chunk))
            await self._write(self._http.send(h11.EndOfMessage()))
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception as error:
            self._render(error)  # to the log; the header is out, so what the client sees is a cut stream
            raise ClientGone("the stream broke off") from error
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _chunk(self, data: bytes) -> bytes:
        return (self._http.send(h11.Data(data=data)) or b"") if data else b""

    async def _hijack(self, request: Request, response: Hijack) -> None:
        """Leave HTTP. A body of known length belongs to the request; a chunked one is the client's stream."""
        upgrade = request.headers.token("connection", "upgrade") and "upgrade" in request.headers
        chunked = "transfer-encoding" in request.headers
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        if not chunked:
            async for _ in self._read_body():
                pass
        if upgrade:
            lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {response.content_type}"]
            lines += ["Connection: Upgrade", f"Upgrade: {response.protocol}"]
        else:
            lines = ["HTTP/1.1 200 OK", "Content-Type: application/vnd.docker.raw-stream"]
        lines += [f"{name}: {value}" for name, value in (*self._common, *response.headers.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body = self._read_body() if chunked else None
        leftover = b"" if chunked else self._http.trailing_data[0]
        await self._write(head)
        channel = HijackedChannel(self._reader, self._writer, body, leftover)
        await run_hijack(response.run, channel, self._lost)

    # ending

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """What came is no HTTP: say so if a response is still possible."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = json.dumps({"message": f"malformed request: {error}"}).encode() + b"\n"
        fields = [("Content-Type", JSON), ("Content-Length", str(len(body))), ("Connection", "close")]
        try:
            out = self._head(error.error_status_hint, fields, {})
            out += self._http.send(h11.Data(data=body)) or b""
            await self._write(out)
            await self._linger()
        except (ClientGone, ConnectionError, h11.LocalProtocolError):
            pass

    async def _linger(self) -> None:
        """End our side and let the client finish its own: closing over unread bytes would reset the
        connection and may take the end of our response with it.
        """
        if self._reader.at_eof() or self._writer.is_closing():
            return
        end_sending(self._writer)
        try:
            async with asyncio.timeout(LINGER):
                while await self._reader.read(READ_SIZE):
                    pass
        except TimeoutError:
            pass


def _encode(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # the name of a file that is no text: escaped, it has a form
        return json.dumps(value, separators=(",", ":")).encode()


def _is_small(event: h11.Request) -> bool:
    fields = dict(event.headers)
    return b"transfer-encoding" not in fields and int(fields.get(b"content-length", b"0")) <= READ_SIZE


def _is_ambiguous(event: h11.Request) -> bool:
    """Whether somebody else could see another end of the body, and another request behind it."""
    return {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}


async def _from_memory(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def request_headers(event: h11.Request) -> Headers:
    """The header fields of an h11 request as text."""
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers])
