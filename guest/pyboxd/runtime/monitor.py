"""One process's keeper: parent of a container's first process, or of an exec, for as long as it lives.

It holds the process's stdio, writes the log, serves the engine over a socket in the run directory, and records
the end. It outlives the engine and the spawner. Everything happens in one loop; memory is bounded: whoever
follows the output and does not read makes the process wait, as a full pipe would.

States, in this order: `new` (no spec yet), `creating` (the first process follows its plan), `created`,
`starting`, `running`, `ended` (output may still be on its way), `over`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time

from pyboxd.errors import PyboxdError
from pyboxd.linux import process

from . import birth, cgroup, codec, devices, handshake, record, seccomp_profile, wire
from .eventloop import READ, EventLoop
from .failure import Failure, words
from .logfile import JsonLog
from .peer import Peer
from .plan import make_plan
from .spec import ContainerSpec, ExecSpec, Exit, LogSettings, RootFilesystem
from .stdio import Input, Output
from .wire import Answer, Request, State

_LINGER = 2.0  # seconds that output may still come after the process ended: others may hold its pipes
_BEFORE_START = ("new", "creating", "created")


def run(listener: socket.socket) -> None:
    """Be a monitor for the engine that has connected to `listener`."""
    process.set_name("monitor")
    Monitor(listener).run()


def rehearse() -> None:
    """Go through what every container needs, without any effect: caches are filled, and pages become our own."""
    spec = ContainerSpec("", RootFilesystem(("",), "", ""), ("",), "", hostname="")
    request = codec.loads(Request, codec.dumps(Request("create", container=spec), sparse=True))
    assert request.container
    make_plan(request.container)
    seccomp_profile.program("default", spec.capabilities)
    EventLoop().close()


class Monitor:
    """The state machine."""

    def __init__(self, listener: socket.socket) -> None:
        self._loop = EventLoop()
        self._listener = listener
        self._peers: list[Peer] = []
        self._state = "new"
        self._waiting: Peer | None = None  # who gets the answer to create, exec or start
        self._in_haste = False  # it is to be started as soon as it is made
        self._spec: ContainerSpec | ExecSpec | None = None
        self._child: birth.Child | None = None
        self._executing = False
        self._failure: Failure | None = None
        self._outputs: list[Output] = []
        self._input: Input | None = None
        self._terminal = -1
        self._log = JsonLog(LogSettings(driver="none"))
        self._exit: Exit | None = None

    def run(self) -> None:
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        try:
            self._loop.run()
        except BaseException:
            self._clear()  # a bug here must not leave a container that nobody keeps
            raise

    # ---- connections

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            self._peers.append(Peer(connection, self._loop, self._on_frame, self._on_gone, self._on_room))

    def _on_frame(self, peer: Peer, kind: int, payload: bytes) -> None:
        if kind == wire.REQUEST:
            try:
                request = codec.loads(Request, payload)
            except PyboxdError:  # an engine of another version that asks for what we do not know
                peer.drop()
                return
            self._on_request(peer, request)
        elif kind == wire.STDIN and peer.feeds and self._input:
            if payload:
                self._input.feed(payload, peer)
            else:
                self._input_ended()

    def _on_gone(self, peer: Peer) -> None:
        self._peers.remove(peer)
        if self._state in _BEFORE_START and not peer.attached:
            self._discard()
        elif peer.feeds:
            self._input_ended()
        if peer.attached:
            self._on_room()
        if self._state == "over" and not self._peers:
            self._loop.running = False

    def _input_ended(self) -> None:
        if self._input and self._spec and self._spec.stdin_once and not self._spec.terminal:
            self._input.end()

    def _on_request(self, peer: Peer, request: Request) -> None:
        spec = request.container or request.process
        if request.verb in ("create", "exec") and spec and self._state == "new":
            self._create(peer, spec)
        elif request.verb == "start":
            self._start(peer)
        elif request.verb == "attach":
            self._attach(peer, request)
        elif request.verb == "hello" and self._child:
            started = self._state not in _BEFORE_START
            peer.answer(Answer(pid=self._child.pid, cgroup=self._child.cgroup, started=started))
        else:
            failure = self._command(request)
            peer.answer(Answer(failure=Failure(failure) if failure else None))

    def _command(self, request: Request) -> str:
        """Do a request that needs the process; what is wrong, or ""."""
        if not self._child or self._exit:
            return "the process has ended"
        if request.verb == "signal":
            try:
                signal.pidfd_send_signal(self._child.pidfd, request.signum)
            except (OSError, ValueError) as error:
                return f"signal {request.signum}: {error}"
            return ""
        if request.verb == "resize" and self._terminal >= 0:
            devices.set_size(self._terminal, request.rows, request.columns)
            return ""
        return "the process has no terminal" if request.verb == "resize" else f"cannot {request.verb} now"

    def _attach(self, peer: Peer, request: Request) -> None:
        wanted = {wire.STDOUT: request.stdout, wire.STDERR: request.stderr}
        peer.attached = True
        peer.feeds = request.stdin
        peer.kinds = frozenset(kind for kind, is_wanted in wanted.items() if is_wanted)
        peer.answer(Answer())
        if self._state == "over":
            peer.end()

    # ---- from the spec to the running process

    def _create(self, peer: Peer, spec: ContainerSpec | ExecSpec) -> None:
        self._spec, self._waiting, self._state = spec, peer, "creating"
        try:
            if isinstance(spec, ContainerSpec):
                self._log = JsonLog(spec.log)
                child = birth.start_container(spec)
            else:
                child = birth.start_exec(spec)
        except OSError as error:
            self._refuse(Failure(words(error)))
            return
        except (PyboxdError, ValueError) as error:  # ValueError: a NUL in a path
            self._refuse(Failure(str(error), plain=True))
            return
        self._child = child
        record.write_state(spec.run_dir, State(child.pid, child.cgroup, isinstance(spec, ExecSpec)))
        child.end.setblocking(False)
        self._loop.watch(child.end.fileno(), READ, self._on_handshake)
        self._loop.watch(child.pidfd, READ, self._on_process_end)
        for kind, descriptor in ((wire.STDOUT, child.stdout), (wire.STDERR, child.stderr)):
            if descriptor >= 0:
                self._outputs.append(Output(self._loop, descriptor, kind, self._on_output))
        if child.stdin >= 0:
            self._input = Input(self._loop, child.stdin)

    def _start(self, peer: Peer) -> None:
        if self._state == "creating":
            self._in_haste = True
            return
        if self._state != "created" or not self._child:
            peer.answer(Answer(failure=Failure(f"cannot start a process that is {self._state}")))
            return
        self._waiting, self._state = peer, "starting"
        with contextlib.suppress(BrokenPipeError):  # then the end of the handshake tells
            handshake.send(self._child.end, "start")

    def _on_handshake(self, _events: int) -> None:
        assert self._child
        while True:
            try:
                message = handshake.receive(self._child.end)
            except BlockingIOError:
                return
            if message is None:
                break
            if message.name == "terminal":
                self._open_terminal(message.descriptor)
            elif message.name == "ready":
                self._state = "created"
                self._hold_root()
                peer = self._waiting
                self._reply(Answer(pid=self._child.pid, cgroup=self._child.cgroup))
                if self._in_haste and peer:
                    self._start(peer)
            elif message.name == "executing":
                self._executing = True
            elif message.name == "failed":
                self._failure = message.failure
        self._loop.forget(self._child.end.fileno())
        self._child.end.close()
        if self._executing and not self._failure:
            self._state = "running"
            self._reply(Answer(started=True))
        else:
            self._refuse(self._failure or self._unexplained())

    def _open_terminal(self, descriptor: int) -> None:
        assert self._spec
        self._terminal = descriptor
        self._outputs.append(Output(self._loop, descriptor, wire.STDOUT, self._on_output, terminal=True))
        if self._spec.open_stdin:
            self._input = Input(self._loop, os.dup(descriptor))

    def _hold_root(self) -> None:
        """Keep the container's file system mounted until this monitor is gone.

        Its last user pays for unmounting it, which writes out the whole file system that its changes are on. That
        shall be this process, after it has told everybody how the container ended.
        """
        if self._child and isinstance(self._spec, ContainerSpec):
            with contextlib.suppress(OSError):  # it may have died by now
                os.open(f"/proc/{self._child.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _unexplained(self) -> Failure:
        if self._child and cgroup.oom_kills(self._child.cgroup):
            return Failure("container init was OOM-killed (memory limit too low?)")
        return Failure("the first process died before it could execute the program")

    def _reply(self, answer: Answer) -> None:
        peer, self._waiting = self._waiting, None
        if peer and not peer.gone:
            peer.answer(answer)

    def _refuse(self, failure: Failure) -> None:
        """The process could not be made or started: take all away, then say so and end."""
        self._clear()
        self._state = "over"
        self._reply(Answer(failure=failure))
        self._say_goodbye()

    def _discard(self) -> None:
        """The engine went away, or let go of a process that was never started."""
        self._clear()
        self._loop.running = False

    def _clear(self) -> None:
        if self._child and not self._exit:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
            # What the child said last may have come in the same moment, and is of no interest any more.
            self._loop.forget(self._child.end.fileno())
            self._loop.forget(self._child.pidfd)
            os.waitpid(self._child.pid, 0)
            self._remove_cgroup()
            self._child = None
        for output in self._outputs:
            output.close()
        self._log.close()

    def _remove_cgroup(self) -> None:
        """Kill whatever is left in a container's cgroup, and remove it. An exec leaves it alone."""
        if self._child and isinstance(self._spec, ContainerSpec):
            try:
                cgroup.kill(self._child.cgroup)
                cgroup.remove(self._child.cgroup)
            except (OSError, PyboxdError) as error:
                sys.stderr.write(f"monitor {self._spec.id}: {error}\n")

    # ---- output

    def _on_output(self, output: Output, data: bytes) -> None:
        """Bytes from the process, or b"" when this stream has ended."""
        if data:
            self._log.write(output.kind, data)
            for peer in [peer for peer in self._peers if output.kind in peer.kinds]:
                peer.send(output.kind, data)
            if not self._exit and any(peer.full for peer in self._peers):
                for each in self._outputs:
                    each.pause()
        elif self._exit and all(each.closed for each in self._outputs):
            self._finish()

    def _on_room(self) -> None:
        if not any(peer.full for peer in self._peers):
            for output in self._outputs:
                output.resume()

    # ---- the end

    def _on_process_end(self, _events: int) -> None:
        assert self._child and self._spec
        if self._state in ("creating", "created", "starting"):
            self._on_handshake(0)  # what it said before it died comes first, and decides what this is
            if self._state == "over":
                return
        self._loop.forget(self._child.pidfd)
        _, status = os.waitpid(self._child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        finished_at = time.time()
        killed = False
        if isinstance(self._spec, ContainerSpec):
            killed = cgroup.oom_kills(self._child.cgroup) > 0
        self._exit = Exit(code if code >= 0 else 128 - code, killed, finished_at)
        self._state = "ended"
        self._remove_cgroup()
        if all(output.closed for output in self._outputs):
            self._finish()
            return
        # What is left in the pipes is bounded, so nobody is waited for any more.
        self._loop.at(_LINGER, self._finish)
        for output in self._outputs:
            output.resume()

    def _finish(self) -> None:
        """All output is in: record the end, tell it, and go when everybody has heard it."""
        if self._state == "over":
            return
        assert self._exit and self._spec
        self._state = "over"
        for output in self._outputs:
            output.drain()
        self._log.close()
        if self._input:
            self._input.close()
        record.write_exit(self._spec.run_dir, self._exit)
        told = codec.dumps(self._exit)
        for peer in [peer for peer in self._peers if not peer.attached]:
            peer.send(wire.EXIT, told)
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        for peer in list(self._peers):
            peer.end()
        if not self._peers:
            self._loop.running = False
