"""attach, exec and logs: connections that carry a container's input and output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from pyboxd.api.containers import terminal_size
from pyboxd.api.schema import exec as schema
from pyboxd.engine import logconfig, logs, specs, streams
from pyboxd.engine.containers import Container, Containers, PendingAttach
from pyboxd.engine.events import Events
from pyboxd.engine.exec import Exec, Execs
from pyboxd.engine.model import Status
from pyboxd.engine.preparation import directory_of
from pyboxd.engine.timestamps import parse as parse_time
from pyboxd.errors import Conflict, InvalidArgument, PyboxdError
from pyboxd.frozen import frozen
from pyboxd.runtime.client import Attachment
from pyboxd.server.frames import STDOUT, frame
from pyboxd.server.message import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Channel,
    Empty,
    Hijack,
    Json,
    Request,
    Response,
    Stream,
)
from pyboxd.server.routes import Route

_MULTIPLEXED_SINCE = (1, 42)  # the API version that tells streams with frames by their type
_BINARY_SINCE = (1, 28)  # that in which a WebSocket's frames are binary
_CHOICE_SINCE = (1, 42)  # and that in which it has only the streams that are named
_Run: TypeAlias = Callable[[Channel], Awaitable[None]]
_Release: TypeAlias = Callable[[], Awaitable[None]]
Encoder = Callable[[int, bytes], bytes]


def _raw(stream: int, data: bytes) -> bytes:
    return data


def _encoder(tty: bool) -> Encoder:
    return _raw if tty else frame


def _stream_type(request: Request, tty: bool) -> str:
    return MULTIPLEXED_STREAM if not tty and request.version >= _MULTIPLEXED_SINCE else RAW_STREAM


@frozen
class StreamsApi:
    """Handlers around containers and execs."""

    containers: Containers
    execs: Execs
    events: Events

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/containers/{id}/attach", self.attach),
            Route("GET", "/containers/{id}/attach/ws", self.attach_websocket),
            Route("GET", "/containers/{id}/logs", self.logs),
            Route("POST", "/containers/{id}/exec", self.exec_create),
            Route("POST", "/exec/{id}/start", self.exec_start),
            Route("POST", "/exec/{id}/resize", self.exec_resize),
            Route("GET", "/exec/{id}/json", self.exec_inspect),
        ]

    # attach

    async def attach(self, request: Request) -> Response:
        container = self._attachable(request)
        tty = container.record.config.tty
        run, release = await self._attach(container, _wanted(request, container), _encoder(tty))
        return Hijack(run, _stream_type(request, tty), release=release)

    async def attach_websocket(self, request: Request) -> Response:
        """The streams are not told apart: there are no frames of Docker's within those of the WebSocket."""
        from pyboxd.server.websocket import accept  # seldom asked for
        from pyboxd.server.websocket_channel import over_websocket

        container = self._attachable(request)
        headers = accept(request.headers)
        wanted = _wanted(request, container, every=request.version < _CHOICE_SINCE)
        run, release = await self._attach(container, wanted, _raw)
        binary = request.version >= _BINARY_SINCE
        over = over_websocket(run, binary=binary, takes_input=wanted.stdin)
        return Hijack(over, protocol="websocket", headers=headers, release=release)

    def _attachable(self, request: Request) -> Container:
        """The container that the path names. NotFound, Conflict."""
        container = self.containers.get(request.parameters["id"])
        if container.state.status == Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.state.status == Status.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        return container

    async def _attach(self, container: Container, wanted: _Wanted, encode: Encoder) -> tuple[_Run, _Release]:
        """What speaks to the client afterwards, and what lets go of the process when that is over."""
        # Asked for before the header goes out: what the process says from then on is not missed.
        source = await self._attachment(container, wanted) if wanted.live else None
        self.events.container(container.record, "attach")

        async def run(channel: Channel) -> None:
            await self._attached(channel, container, wanted, encode, source)

        async def release() -> None:
            if source is None or source.cancel() or source.cancelled():
                return
            attachment = source.result()
            if attachment is not None:
                await attachment.close()

        return run, release

    async def _attachment(self, container: Container, wanted: _Wanted) -> asyncio.Future[Attachment | None]:
        """The attachment to the process, or to the one that will be started next."""
        future: asyncio.Future[Attachment | None] = asyncio.get_running_loop().create_future()
        if container.process is not None:
            future.set_result(await container.process.attach(wanted.stdin, wanted.stdout, wanted.stderr))
        else:
            container.pending.append(PendingAttach(wanted.stdin, wanted.stdout, wanted.stderr, future))
        return future

    async def _attached(
        self,
        channel: Channel,
        container: Container,
        wanted: _Wanted,
        encode: Encoder,
        source: asyncio.Future[Attachment | None] | None,
    ) -> None:
        if wanted.history:
            query = logs.LogQuery(stdout=wanted.stdout, stderr=wanted.stderr)
            async for entry in logs.read(container, _log_path(container), query):
                await channel.write(encode(entry.stream, entry.text))
        if source is None:
            return
        attachment = await source
        if attachment is None:
            return
        if await streams.join(channel, attachment, encode, wanted.stdin, wanted.keys):
            self.events.container(container.record, "detach")

    # logs

    async def logs(self, request: Request) -> Response:
        container = self.containers.get(request.parameters["id"])
        query = request.query
        if not query.flag("stdout") and not query.flag("stderr"):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        logs.check_readable(container)
        tail = query.text("tail", "all")
        wanted = logs.LogQuery(
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr"),
            since=parse_time(query.text("since")) if query.text("since") not in ("", "0") else 0,
            until=parse_time(query.text("until")) if query.text("until") not in ("", "0") else 0,
            tail=int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 19 else -1,
            follow=query.flag("follow"),
        )
        details = _details(container) if query.flag("details") else ""
        tty = container.record.config.tty
        encode = _encoder(tty)

        async def lines() -> AsyncIterator[bytes]:
            async for entry in logs.read(container, _log_path(container), wanted):
                prefix = f"{entry.padded_time} " if query.flag("timestamps") else ""
                yield encode(entry.stream, (prefix + details).encode() + entry.text)

        return Stream(lines(), _stream_type(request, tty))

    # exec

    async def exec_create(self, request: Request) -> Response:
        config = schema.decode_config(await request.json())
        streams.parse_detach_keys(config.detach_keys)
        made = self.execs.create(self.containers.get(request.parameters["id"]), config)
        return Json({"Id": made.id}, 201)

    async def exec_start(self, request: Request) -> Response:
        made = self.execs.get(request.parameters["id"])
        start = schema.decode_start(await request.json())
        self.execs.check_startable(made)
        if start.console_size != (0, 0):
            made.config = schema.with_size(made.config, start.console_size)
        if start.detach:
            await self.execs.start(made, attached=False)
            return Empty(200)

        async def run(channel: Channel) -> None:
            await self._run_exec(channel, made, _encoder(start.tty))

        # Whether there are frames is what this request says; whether there is a terminal was said at the creation.
        return Hijack(run, _stream_type(request, start.tty))

    async def _run_exec(self, channel: Channel, made: Exec, encode: Encoder) -> None:
        config = made.config
        try:
            attachment = await self.execs.start(made, attached=True)
        except PyboxdError as error:  # too late for a status: Docker tells it in the stream
            await channel.write(encode(STDOUT, f"{error}\r\n".encode()))
            return
        assert attachment is not None
        keys = streams.parse_detach_keys(config.detach_keys) if config.tty else None
        if await streams.join(channel, attachment, encode, config.attach_stdin, keys):
            self.events.container(made.container.record, "exec_detach", execID=made.id)
            return
        await made.ended.wait()  # the client asks for the exit status as soon as the stream ends

    async def exec_resize(self, request: Request) -> Response:
        rows, columns = terminal_size(request)
        await self.execs.resize(self.execs.get(request.parameters["id"]), rows, columns)
        return Empty(200)

    async def exec_inspect(self, request: Request) -> Response:
        return Json(schema.inspect(self.execs.get(request.parameters["id"])))


@frozen
class _Wanted:
    """What an attach asks for."""

    stdin: bool
    stdout: bool
    stderr: bool
    history: bool
    live: bool
    keys: bytes | None


def _wanted(request: Request, container: Container, every: bool = False) -> _Wanted:
    """What the query asks for; `every`: all streams, whether they are named or not. InvalidArgument."""
    query = request.query
    keys = streams.parse_detach_keys(query.text("detachKeys"))
    config = container.record.config
    live = query.flag("stream")
    return _Wanted(
        stdin=(every or query.flag("stdin")) and live and config.open_stdin,
        stdout=every or query.flag("stdout"),
        stderr=every or query.flag("stderr"),
        history=query.flag("logs"),
        live=live,
        keys=keys if config.tty else None,
    )


def _log_path(container: Container) -> str:
    return specs.log_path(directory_of(container.id), container.id)


def _details(container: Container) -> str:
    """The prefix of `--details`: url-escaped `name=value` pairs."""
    from urllib.parse import quote_plus  # slow to import, seldom needed

    found = logconfig.details(container.record)
    return ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in found.items()) + " "
