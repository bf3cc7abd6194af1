"""WebSocket, the server's side: the handshake, frames in any pieces, what breaks the rules, and a real client over it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator, Sequence

import pytest
import websocket as client
from hypothesis import given, settings
from hypothesis import strategies as st

from pyboxd.errors import InvalidArgument
from pyboxd.server.http import Application
from pyboxd.server.message import Channel, ClientGone, Hijack, Request, Response
from pyboxd.server.routes import Route
from pyboxd.server.websocket import Decoder, Event, Opcode, ProtocolError, accept, encode, encode_close, unmask
from pyboxd.server.websocket_channel import over_websocket

GOOD = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "WebSocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
MASK = b"\x01\x80\xff\x7e"


def frame(first: int, data: bytes = b"", *, mask: bytes = MASK, size: int | None = None) -> bytes:
    """A client's frame; `first` is its first byte. `size` replaces the length that the head tells."""
    length = len(data) if size is None else size
    if length < 126:
        head = struct.pack(">BB", first, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack(">BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, length)
    return head + mask + unmask(data, mask)


def decode(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def joined(events: Sequence[Event]) -> list[Event]:
    """The same with neighbouring pieces of messages put together."""
    found: list[Event] = []
    for event in events:
        if found and event.opcode < Opcode.CLOSE and found[-1].opcode is event.opcode:
            event = Event(event.opcode, found.pop().data + event.data)
        found.append(event)
    return found


# -- handshake -------------------------------------------------------------------------------------


def test_the_example_of_the_standard() -> None:
    assert accept(GOOD) == {"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Connection", "close"),
        ("Upgrade", "tcp"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Version", ""),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "short"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==!"),
        ("Sec-WebSocket-Key", "\xff" * 24),
    ],
)
def test_bad_handshakes(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match="bad WebSocket handshake"):
        accept({**GOOD, name: value})


# -- frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_lengths(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert joined(decode(frame(0x82, data))) == ([Event(Opcode.BINARY, data)] if size else [])
    sent = encode(Opcode.BINARY, data)
    assert sent[0] == 0x82 and not sent[1] & 0x80 and sent.endswith(data)
    assert joined(decode(frame(0x82, data))) == joined(decode(sent[:1] + _masked(sent[1:], size)))


def _masked(rest: bytes, size: int) -> bytes:
    """A server's frame as a client would send it, with a mask of zeros."""
    head = len(rest) - size
    return bytes([rest[0] | 0x80]) + rest[1:head] + bytes(4) + rest[head:]


def test_a_message_in_fragments_with_a_ping_between() -> None:
    stream = frame(0x01, b"Hel") + frame(0x89, b"?") + frame(0x00, b"lo") + frame(0x80, b"!") + frame(0x82, b"x")
    assert joined(decode(stream)) == [
        Event(Opcode.TEXT, b"Hel"),
        Event(Opcode.PING, b"?"),
        Event(Opcode.TEXT, b"lo!"),
        Event(Opcode.BINARY, b"x"),
    ]


def test_a_payload_is_passed_on_as_it_comes() -> None:
    head = frame(0x82, size=1 << 62)
    decoder = Decoder()
    assert list(decoder.feed(head)) == []
    for offset in range(0, 64, 3):
        assert list(decoder.feed(unmask(b"abc", MASK, offset))) == [Event(Opcode.BINARY, b"abc")]


CLOSES = [
    (b"", Event(Opcode.CLOSE, b"", 1005)),
    (b"\x03\xe8", Event(Opcode.CLOSE, b"", 1000)),
    (b"\x03\xe9bye", Event(Opcode.CLOSE, b"bye", 1001)),
    (b"\x0f\xa0", Event(Opcode.CLOSE, b"", 4000)),
]


@pytest.mark.parametrize(("data", "event"), CLOSES)
def test_closes_are_the_last_event(data: bytes, event: Event) -> None:
    assert decode(frame(0x88, data) + frame(0x82, b"late")) == [event]


def test_answers_to_a_close() -> None:
    assert encode_close(1005) == b"\x88\x00"
    assert encode_close(1000, "ok") == b"\x88\x04\x03\xe8ok"
    long = encode_close(1002, "é" * 100)
    assert long[1] <= 125 and long[4:].decode() == "é" * 61


@pytest.mark.parametrize(
    "data",
    [
        frame(0xC2, b"x"),  # a reserved bit
        frame(0x83, b"x"),  # an unknown kind
        frame(0x8B),
        b"\x82\x01x",  # no mask
        frame(0x80, b"x"),  # goes on with nothing
        frame(0x01, b"x") + frame(0x81, b"y"),  # a message in a message
        frame(0x09, b"x"),  # a ping in fragments
        frame(0x89, b"x" * 126),
        frame(0x88, b"x"),  # half a code
        frame(0x88, b"\x03\xe7"),
        frame(0x88, b"\x03\xed"),
        frame(0x88, b"\x13\x88"),
        frame(0x88, b"\x03\xe8\xff"),
        b"\x82\xfe\x00\x7d" + MASK,  # longer than it had to be
        b"\x82\xff" + bytes(6) + b"\xff\xff" + MASK,
        b"\x82\xff\x80" + bytes(7) + MASK,  # a negative length
    ],
)
def test_what_breaks_the_rules(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), st.lists(st.binary(max_size=200), min_size=1, max_size=3)),
        st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.lists(st.binary(max_size=125), min_size=1, max_size=1)),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(MESSAGES, st.binary(min_size=4, max_size=4), st.data())
def test_bytes_may_come_in_any_pieces(messages: list[tuple[Opcode, list[bytes]]], mask: bytes, data: st.DataObject) -> None:
    stream, expected = b"", []
    for opcode, parts in messages:
        for index, part in enumerate(parts):
            first = (0x80 if index == len(parts) - 1 else 0) | (opcode if index == 0 else 0)
            stream += frame(first, part, mask=mask)
            if part or opcode >= Opcode.CLOSE:
                expected.append(Event(opcode, part))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert joined(decode(*pieces)) == joined(expected)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8))
def test_no_input_leads_to_another_error(pieces: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for piece in pieces:
            for event in decoder.feed(piece):
                assert len(event.data) <= sum(map(len, pieces))
    except ProtocolError:
        pass


# -- a real client ---------------------------------------------------------------------------------


class Server:
    """An echo that ends when it is told to, behind a WebSocket; on TCP, as the client library wants it."""

    def __init__(self, *, binary: bool = True, takes_input: bool = True) -> None:
        self.binary, self.takes_input = binary, takes_input
        self.heard = b""
        self.outcome = ""
        self.ended = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def connect(self, *headers: str) -> client.WebSocket:
        return client.create_connection(f"ws://127.0.0.1:{self.port}/x", timeout=10, header=list(headers))

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        application = Application([Route("GET", "/x", self._handle)])
        listener = await self._loop.create_server(application.protocol, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        listener.close()
        await application.close()

    async def _handle(self, request: Request) -> Response:
        over = over_websocket(self._echo, binary=self.binary, takes_input=self.takes_input)
        return Hijack(over, protocol="websocket", headers=accept(request.headers))

    async def _echo(self, channel: Channel) -> None:
        try:
            if not self.takes_input:
                await channel.write(b"ready")
                await asyncio.Event().wait()
            while data := await channel.read():
                self.heard += data
                if data == b"bye":
                    self.outcome = "ended"
                    return
                await channel.write(data.upper() if data != b"\xff" else data)
            self.outcome = "end of input"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.outcome += " cancelled"
            raise
        except ClientGone:
            self.outcome += " gone"
        finally:
            self.ended.set()


def bare(connection: client.WebSocket) -> socket.socket:
    assert connection.sock is not None
    return connection.sock


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


def test_text_and_binary_go_in_and_binary_comes_out(server: Server) -> None:
    connection = server.connect()
    assert connection.getstatus() == 101
    connection.send("text")
    assert connection.recv_data() == (client.ABNF.OPCODE_BINARY, b"TEXT")
    connection.send_binary(b"x" * 100_000)
    got = b""
    while len(got) < 100_000:
        got += connection.recv_data()[1]
    assert got == b"X" * 100_000
    connection.close()


def test_old_clients_get_text_that_is_text() -> None:
    with Server(binary=False) as server:
        connection = server.connect()
        for data in (b"\xc3", b"\xa9", b"\xff", b"a"):
            connection.send_binary(data)
        got = ""
        while len(got) < 3:
            opcode, part = connection.recv_data()
            assert opcode == client.ABNF.OPCODE_TEXT
            got += part.decode()
        assert got == "é�A"
        connection.close()


def test_a_ping_is_answered_whether_or_not_anybody_reads() -> None:
    for takes_input in (True, False):
        with Server(takes_input=takes_input) as server:
            connection = server.connect()
            if not takes_input:
                assert connection.recv() == b"ready"
                connection.send("nobody reads this")
            connection.ping("are you there")
            opcode, found = connection.recv_data_frame(control_frame=True)
            assert (opcode, found.data) == (client.ABNF.OPCODE_PONG, b"are you there")
            connection.close()


def test_the_servers_end_is_a_close(server: Server) -> None:
    connection = server.connect()
    connection.send("bye")
    opcode, data = connection.recv_data()
    assert (opcode, data) == (client.ABNF.OPCODE_CLOSE, b"\x03\xe8")
    with pytest.raises(client.WebSocketConnectionClosedException):
        connection.recv()
    assert server.outcome == "ended"


def test_a_clients_close_comes_after_its_input_and_is_answered(server: Server) -> None:
    connection = server.connect()
    bare(connection).sendall(frame(0x81, b"last words") + frame(0x88, b"\x03\xe9"))
    assert connection.recv_data()[1] in (b"LAST WORDS", b"\x03\xe9")
    assert server.ended.wait(10)
    assert server.heard == b"last words" and server.outcome.endswith(("cancelled", "gone"))


@pytest.mark.parametrize("takes_input", [True, False])
def test_a_client_that_vanishes_ends_it(takes_input: bool) -> None:
    with Server(takes_input=takes_input) as server:
        connection = server.connect()
        bare(connection).close()
        assert server.ended.wait(10)


def test_the_rules_are_enforced(server: Server) -> None:
    connection = server.connect()
    bare(connection).sendall(b"\x82\x01x")
    opcode, data = connection.recv_data()
    assert opcode == client.ABNF.OPCODE_CLOSE and data == b"\x03\xeaa frame is not masked"


def test_a_bad_handshake_is_a_refusal(server: Server) -> None:
    with pytest.raises(client.WebSocketBadStatusException) as caught:
        server.connect("Sec-WebSocket-Version: 7")
    assert caught.value.status_code == 400
    assert b"bad WebSocket handshake" in (caught.value.resp_body or b"")
