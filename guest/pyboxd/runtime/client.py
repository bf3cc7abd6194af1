"""The engine's face of the runtime, in asyncio: `Runtime`, `Process`, `Attachment`.

The engine forks nothing. A container is made by handing the spawner a listening socket; the spawner forks a
monitor that answers on it, and from then on the engine talks to that monitor alone (`wire` has the protocol).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pyboxd.errors import Conflict, NotFound, SystemFailure, Unavailable

from . import cgroup, codec, helper, spawner, wire
from .failure import Failure, start_failure
from .record import clear, lost_exit, read_exit, read_state
from .spec import ContainerSpec, ExecSpec, Exit, HelperResult
from .wire import Answer, Request

_CHUNK = 65536


class Runtime:
    """Makes processes through the spawner."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    @classmethod
    def fork(cls) -> Runtime:
        """Fork the spawner. To be called before any thread or event loop exists."""
        return cls(spawner.fork())

    async def create(self, spec: ContainerSpec) -> Process:
        """Make a container up to the point where its program would be executed. StartFailure.

        Closing the process before `start`, or the end of the engine, takes the container away again.
        """
        process = await self._launch(spec.run_dir, Request("create", container=spec), is_exec=False)
        try:
            await process.made()
        except BaseException:  # a cancelled call, too: the end of the connection makes the monitor give up
            await process.close()
            raise
        return process

    async def exec(self, spec: ExecSpec) -> Process:
        """Begin to make another process in a running container.

        While that goes on it can be attached to and started; `start` says when it could not be made.
        """
        return await self._launch(spec.run_dir, Request("exec", process=spec), is_exec=True)

    async def _launch(self, run_dir: str, request: Request, is_exec: bool) -> Process:
        clear(run_dir)
        listener = spawner.listen(run_dir)
        try:
            control = await _Control.open(run_dir)
            self._hand_over(spawner.MONITOR, listener)
        finally:
            listener.close()
        return Process(run_dir, control, await control.send(request), is_exec)

    async def recover(self, run_dir: str) -> Process | Exit:
        """Find the process that an earlier engine started: alive, or how it ended. NotFound.

        A process whose monitor died without a record is killed and counted as killed.
        """
        try:
            control = await _Control.open(run_dir)
            process = Process(run_dir, control, await control.send(Request("hello")), read_state(run_dir).is_exec)
            await process.made()
        except (OSError, SystemFailure):
            return await _recorded(run_dir)
        return process

    async def run_helper(self, args: Sequence[str], stdin: bytes | None = None, timeout: float = 600.0) -> HelperResult:
        """Run a program of the guest and wait for it; the spawner is its parent. Times are seconds.

        The program and its children are killed when the time is over (SystemFailure) or the call is cancelled.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._hand_over(spawner.HELPER, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            writer.write(helper.pack_job(helper.Job(tuple(args), timeout, stdin is not None), stdin or b""))
            await writer.drain()
            return helper.unpack_result(await reader.read(), args)
        except ConnectionError as error:
            raise SystemFailure(f"{args[0]}: the helper process died") from error
        finally:
            writer.close()

    def _hand_over(self, kind: bytes, descriptor: socket.socket) -> None:
        try:
            socket.send_fds(self._channel, [kind], [descriptor.fileno()])
        except OSError as error:
            raise Unavailable("the spawner is gone; the engine must be restarted") from error

    async def wait_broken(self) -> None:
        """Return when the spawner has died: this engine can start nothing any more and should be restarted."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._channel, gone.set_result, None)  # it never sends: readable is the end of it
        try:
            await gone
        finally:
            loop.remove_reader(self._channel)

    async def close(self) -> None:
        """End the spawner. Containers and their monitors go on."""
        self._channel.close()


class Process:
    """The first process of a container, or an exec. All methods may be called at any time and several at once.

    `pid` and `cgroup` are known when it is made.
    """

    def __init__(self, run_dir: str, control: _Control, answer: asyncio.Future[Answer], is_exec: bool) -> None:
        self.pid = 0
        self.cgroup = ""
        self.started = False
        self._run_dir = run_dir
        self._control = control
        self._answer = answer
        self._is_exec = is_exec

    async def made(self) -> None:
        """Return when it is made, and could be executed. StartFailure, SystemFailure."""
        answer = await self._answer
        if answer.failure is not None:
            self._control.close()
            raise start_failure(answer.failure, self._is_exec)
        self.pid, self.cgroup, self.started = answer.pid, answer.cgroup, answer.started

    async def start(self) -> None:
        """Execute the program. StartFailure with the exit status that the failure counts as."""
        starting = asyncio.ensure_future(self._control.ask(Request("start")))
        starting.add_done_callback(_seen)
        await self.made()
        try:
            answer = await starting
        except SystemFailure as error:
            raise start_failure(Failure("the process died before it was started"), self._is_exec) from error
        if answer.failure is not None:
            raise start_failure(answer.failure, self._is_exec)
        self.started = True

    async def signal(self, signum: int) -> None:
        """Send a signal to this process alone. NotFound when it has ended."""
        await self._command(Request("signal", signum=signum))

    async def kill_all(self) -> None:
        """Kill every process of the container's cgroup (of an exec: this process), whatever it is doing."""
        if self._is_exec:
            await self._command(Request("signal", signum=9))
        else:
            cgroup.kill(self.cgroup)

    async def pause(self) -> None:
        """Freeze the container; returns when all its processes have stopped."""
        await asyncio.to_thread(cgroup.freeze, self.cgroup, True)

    async def unpause(self) -> None:
        """Let a frozen container go on."""
        await asyncio.to_thread(cgroup.freeze, self.cgroup, False)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal. Conflict when there is none."""
        await self._command(Request("resize", rows=rows, columns=columns))

    async def wait(self) -> Exit:
        """How the process ended, when it has: its output is complete and in the log by then."""
        try:
            return await asyncio.shield(self._control.exit)
        except SystemFailure:
            return await _recorded(self._run_dir)

    async def attach(self, stdin: bool, stdout: bool, stderr: bool) -> Attachment:
        """Follow the output from now on, feed the input. Several at once are fine. NotFound after the end.

        A reader that does not read slows the process down, as a full pipe would.
        """
        try:
            connection = await _Connection.open(self._run_dir)
            answer = await connection.ask(Request("attach", stdin=stdin, stdout=stdout, stderr=stderr))
        except (OSError, SystemFailure) as error:
            raise NotFound("the process has ended") from error
        if answer.failure is not None:
            connection.close()
            raise Conflict(answer.failure.detail)
        return Attachment(connection)

    async def close(self) -> None:
        """Let go of the process without touching it; a container that was not started goes away."""
        self._control.close()

    async def _command(self, request: Request) -> None:
        try:
            answer = await self._control.ask(request)
        except SystemFailure as error:
            raise NotFound("the process has ended") from error
        if answer.failure is not None:
            raise (Conflict if request.verb == "resize" else NotFound)(answer.failure.detail)


class Attachment:
    """One follower of a process's output, and feeder of its input."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, bytes) for stdout or the terminal, (2, bytes) for stderr, until the output ends."""
        while frame := await self._connection.receive():
            if frame[0] in (wire.STDOUT, wire.STDERR):
                yield frame

    async def write(self, data: bytes) -> None:
        """Feed the input; waits while the process does not read. BrokenPipeError when it has ended."""
        for position in range(0, len(data), _CHUNK):
            await self._connection.send(wire.pack(wire.STDIN, data[position : position + _CHUNK]))

    async def close_stdin(self) -> None:
        """Say that no more input comes; what that means is the container's `stdin_once`."""
        await self._connection.send(wire.pack(wire.STDIN, b""))

    async def close(self) -> None:
        """Detach. The process goes on."""
        self._connection.close()


async def _recorded(run_dir: str) -> Exit:
    """How a process ended whose monitor is gone. NotFound."""
    recorded = read_exit(run_dir)
    if recorded is None:
        recorded = await asyncio.to_thread(lost_exit, run_dir)
    return recorded


def _seen(future: asyncio.Future[Any]) -> None:
    """A failure that nobody waits for is none to complain of."""
    if not future.cancelled():
        future.exception()


class _Connection:
    """A stream of frames to a monitor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unpacker = wire.Unpacker()
        self._pending: deque[tuple[int, bytes]] = deque()

    @classmethod
    async def open(cls, run_dir: str) -> _Connection:
        reader, writer = await asyncio.open_connection(sock=spawner.connect(run_dir))
        return cls(reader, writer)

    async def send(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None at EOF, and when the connection breaks."""
        while not self._pending:
            try:
                data = await self._reader.read(_CHUNK)
            except ConnectionError:
                return None
            if not data:
                return None
            self._pending.extend(self._unpacker.feed(data))
        return self._pending.popleft()

    async def ask(self, request: Request) -> Answer:
        """Send a request on a connection that nobody else reads. SystemFailure when no answer comes."""
        try:
            await self.send(wire.pack(wire.REQUEST, codec.dumps(request, sparse=True)))
        except ConnectionError as error:
            raise SystemFailure("the monitor is gone") from error
        while frame := await self.receive():
            if frame[0] == wire.ANSWER:
                return codec.loads(Answer, frame[1])
        raise SystemFailure("the monitor is gone")

    def close(self) -> None:
        self._writer.close()


class _Control:
    """The control connection: answers come in the order of requests, the exit comes by itself."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._closed = False
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.exit.add_done_callback(_seen)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, run_dir: str) -> _Control:
        return cls(await _Connection.open(run_dir))

    async def send(self, request: Request) -> asyncio.Future[Answer]:
        """Send a request; its answer will come, or SystemFailure. SystemFailure when the monitor has ended."""
        if self._closed:
            raise SystemFailure("the monitor is gone")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_seen)
        self._waiting.append(answer)
        try:
            await self._connection.send(wire.pack(wire.REQUEST, codec.dumps(request, sparse=True)))
        except ConnectionError as error:
            raise SystemFailure("the monitor is gone") from error
        return answer

    async def ask(self, request: Request) -> Answer:
        """Send a request and wait for its answer. SystemFailure when the monitor dies or has ended."""
        return await (await self.send(request))

    async def _read(self) -> None:
        try:
            while frame := await self._connection.receive():
                kind, payload = frame
                if kind == wire.ANSWER:
                    waiting = self._waiting.popleft()
                    if not waiting.done():
                        waiting.set_result(codec.loads(Answer, payload))
                elif kind == wire.EXIT and not self.exit.done():
                    self.exit.set_result(codec.loads(Exit, payload))
        finally:
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._connection.close()
        gone = SystemFailure("the monitor is gone")
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(gone)
        self._waiting.clear()
        if not self.exit.done():
            self.exit.set_exception(gone)

    def close(self) -> None:
        self._connection.close()
        self._reading.cancel()
