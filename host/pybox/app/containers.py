"""Use cases of containers: create a container from a request, run it with the terminal attached, follow it.

Returns exit statuses as Docker's CLI does: the container's own, 125 when the engine refused, 126 and 127 when the
command cannot be executed or found.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pybox.app import options
from pybox.app.endpoints import is_user_defined, networks
from pybox.app.streams import Pumps, detach_keys
from pybox.engine.client import EngineClient
from pybox.errors import EngineError
from pybox.frozen import frozen

if TYPE_CHECKING:
    from pybox.hostos.interface import Console

Pull = Callable[[str, bool], None]  # of an image, and whether it was found missing
NOT_FOUND, NOT_EXECUTABLE, REFUSED = 127, 126, 125


@frozen
class RunRequest:
    """One `pybox run` or `pybox create`: Docker's flags, as typed."""

    image: str
    flags: dict[str, Any]
    command: tuple[str, ...] = ()
    detach: bool = False
    interactive: bool = False
    tty: bool = False
    name: str | None = None
    pull: str = "missing"
    platform: str = ""
    sig_proxy: bool = True

    @property
    def streams(self) -> frozenset[str]:
        """Which of stdin, stdout and stderr are attached."""
        if self.detach:
            return frozenset()
        asked = frozenset(self.flags["attach"])
        return asked or frozenset({"stdout", "stderr", *(["stdin"] if self.interactive else [])})


def create_body(request: RunRequest) -> dict[str, Any]:
    """The body of POST /containers/create for `request`."""
    flags = request.flags
    exposed, bindings = options.ports(flags["publish"], flags["expose"])
    volumes = [options.volume(text) for text in flags["volume"]]
    streams = request.streams
    mode, endpoints = networks(flags)
    body: dict[str, Any] = {
        "Image": request.image,
        "Cmd": list(request.command) or None,
        "Env": options.environment(flags["env"], flags["env_file"]),
        "Labels": options.pairs([*options.lines(flags["label_file"]), *flags["label"]]),
        "Tty": request.tty,
        "OpenStdin": request.interactive,
        "StdinOnce": request.interactive and not request.detach,
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "ExposedPorts": exposed,
        "Volumes": {text: {} for text in volumes if ":" not in text},
        "User": flags["user"] or "",
        "WorkingDir": flags["workdir"] or "",
        "Hostname": flags["hostname"] or "",
        "Domainname": flags["domainname"] or "",
        "StopSignal": flags["stop_signal"] or "",
        "StopTimeout": flags["stop_timeout"],
        "HostConfig": _host_config(flags, bindings, [text for text in volumes if ":" in text], mode),
    }
    if flags["entrypoint"] is not None:
        body["Entrypoint"] = [flags["entrypoint"]] if flags["entrypoint"] else [""]
    if flags["no_healthcheck"]:
        body["Healthcheck"] = {"Test": ["NONE"]}
    elif flags["health_cmd"]:
        body["Healthcheck"] = {
            "Test": ["CMD-SHELL", flags["health_cmd"]],
            "Interval": options.duration(flags["health_interval"] or "0s"),
            "Timeout": options.duration(flags["health_timeout"] or "0s"),
            "StartPeriod": options.duration(flags["health_start_period"] or "0s"),
            "StartInterval": options.duration(flags["health_start_interval"] or "0s"),
            "Retries": flags["health_retries"],
        }
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return body


def _host_config(flags: dict[str, Any], bindings: dict[str, Any], binds: list[str], mode: str) -> dict[str, Any]:
    return {
        "Binds": binds,
        "Mounts": [options.mount(text) for text in flags["mount"]],
        "Tmpfs": {path: rest for path, _, rest in (text.partition(":") for text in flags["tmpfs"])},
        "PortBindings": bindings,
        "PublishAllPorts": flags["publish_all"],
        "NetworkMode": mode,
        "Links": [] if is_user_defined(mode) else list(flags["link"]),
        "RestartPolicy": options.restart_policy(flags["restart"]),
        "AutoRemove": flags["rm"],
        **options.limits(flags),
        "BlkioWeightDevice": [options.weight(text) for text in flags["blkio_weight_device"]],
        "MemorySwappiness": flags["memory_swappiness"],
        "OomKillDisable": flags["oom_kill_disable"] or None,
        "BlkioDeviceReadBps": [options.throttle(text) for text in flags["device_read_bps"]],
        "BlkioDeviceWriteBps": [options.throttle(text) for text in flags["device_write_bps"]],
        "BlkioDeviceReadIOps": [options.throttle(text) for text in flags["device_read_iops"]],
        "BlkioDeviceWriteIOps": [options.throttle(text) for text in flags["device_write_iops"]],
        "ShmSize": options.size(flags["shm_size"]) if flags["shm_size"] else 0,
        "Ulimits": [options.ulimit(text) for text in flags["ulimit"]],
        "Sysctls": options.pairs(flags["sysctl"]),
        "CapAdd": list(flags["cap_add"]),
        "CapDrop": list(flags["cap_drop"]),
        "Privileged": flags["privileged"],
        "ReadonlyRootfs": flags["read_only"],
        "SecurityOpt": list(flags["security_opt"]),
        "Devices": [options.device(text) for text in flags["device"]],
        "DeviceCgroupRules": list(flags["device_cgroup_rule"]),
        "DeviceRequests": [options.gpus(flags["gpus"])] if flags["gpus"] else [],
        "GroupAdd": list(flags["group_add"]),
        "ExtraHosts": list(flags["add_host"]),
        "Dns": list(flags["dns"]),
        "DnsOptions": list(flags["dns_option"]),
        "DnsSearch": list(flags["dns_search"]),
        "Init": flags["init"] or None,
        "IpcMode": flags["ipc"] or "",
        "PidMode": flags["pid"] or "",
        "UsernsMode": flags["userns"] or "",
        "UTSMode": flags["uts"] or "",
        "CgroupnsMode": flags["cgroupns"] or "",
        "CgroupParent": flags["cgroup_parent"] or "",
        "Runtime": flags["runtime"] or "",
        "StorageOpt": options.pairs(flags["storage_opt"]) or None,
        "Annotations": options.pairs(flags["annotation"]) or None,
        "VolumesFrom": list(flags["volumes_from"]),
        "VolumeDriver": flags["volume_driver"] or "",
        "OomScoreAdj": flags["oom_score_adj"] or 0,
        "LogConfig": {"Type": flags["log_driver"] or "", "Config": options.pairs(flags["log_opt"])},
    }


def create(client: EngineClient, request: RunRequest, pull: Pull) -> tuple[str, list[str]]:
    """Create the container, pulling a missing image first; its id, and what the engine warns of."""
    query = {"name": request.name or None, "platform": request.platform or None}
    body = create_body(request)
    if request.pull == "always":
        pull(request.image, False)
    try:
        answer = client.post("/containers/create", query, body)
    except EngineError as error:
        if error.status != 404 or request.pull == "never" or "No such image" not in error.brief:
            raise
        pull(request.image, True)
        answer = client.post("/containers/create", query, body)
    return str(answer["Id"]), list(answer.get("Warnings") or [])


def run(client: EngineClient, identity: str, request: RunRequest, console: Console) -> int:
    """`pybox run` in the foreground, of a new container: attach, wait, start, stream; its exit status."""
    auto_remove = bool(request.flags["rm"])
    with ExitStack() as stack:
        stream = client.hijack(
            f"/containers/{identity}/attach",
            {"stream": True, **{name: name in request.streams for name in ("stdin", "stdout", "stderr")}},
        )
        stack.callback(stream.close)
        waiter = _Waiter(client, identity, "removed" if auto_remove else "next-exit")
        try:
            client.post(f"/containers/{identity}/start")
        except EngineError as error:
            if not auto_remove:
                raise _start_failure(error) from error
            _remove_quietly(client, identity)
            raise _start_failure(error) from error
        stdin = "stdin" in request.streams
        pumps = Pumps(stream, console, stdin=stdin, tty=request.tty, keys=detach_keys(request.flags))
        resize = _resizer(client, f"/containers/{identity}/resize") if request.tty else None
        signal = _signaller(client, identity) if request.sig_proxy and not request.tty else None
        with console.session(raw=request.tty and stdin, resize=resize, signal=signal):
            detached = pumps.run()
        return 0 if detached else waiter.result()


def attach(
    client: EngineClient, identity: str, console: Console, *, stdin: bool, keys: str | None, sig_proxy: bool = True
) -> int:
    """`pybox attach`: join the running container's streams; its exit status."""
    with ExitStack() as stack:
        join = _join(client, identity, console, stack, stdin=stdin, keys=keys, condition="not-running", sig_proxy=sig_proxy)
        return join()


def start_attached(client: EngineClient, identity: str, console: Console, *, stdin: bool, keys: str | None) -> int:
    """`pybox start -a`: join the streams of a stopped container, start it; its exit status."""
    with ExitStack() as stack:
        join = _join(client, identity, console, stack, stdin=stdin, keys=keys, condition="next-exit", sig_proxy=True)
        try:
            client.post(f"/containers/{identity}/start")
        except EngineError as error:
            raise _start_failure(error) from error
        return join()


def _join(
    client: EngineClient,
    identity: str,
    console: Console,
    stack: ExitStack,
    *,
    stdin: bool,
    keys: str | None,
    condition: str,
    sig_proxy: bool,
) -> Callable[[], int]:
    """Attach now; the result streams until the end and returns the exit status."""
    found = client.get(f"/containers/{identity}/json")
    tty = bool(found["Config"]["Tty"])
    stdin = stdin and bool(found["Config"]["OpenStdin"])
    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True}
    stream = client.hijack(f"/containers/{identity}/attach", query)
    stack.callback(stream.close)
    waiter = _Waiter(client, identity, condition)
    pumps = Pumps(stream, console, stdin=stdin, tty=tty, keys=detach_keys({"detach_keys": keys}))

    def join() -> int:
        resize = _resizer(client, f"/containers/{identity}/resize") if tty else None
        signal = _signaller(client, identity) if sig_proxy and not tty else None
        with console.session(raw=tty and stdin, resize=resize, signal=signal):
            detached = pumps.run()
        return 0 if detached else waiter.result()

    return join


@frozen
class ExecRequest:
    container: str
    command: tuple[str, ...]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    privileged: bool = False
    keys: str | None = None


def execute(client: EngineClient, request: ExecRequest, console: Console) -> int:
    """`pybox exec`: the command's exit status."""
    body = {
        "Cmd": list(request.command),
        "AttachStdin": request.interactive and not request.detach,
        "AttachStdout": not request.detach,
        "AttachStderr": not request.detach,
        "Tty": request.tty,
        "Env": list(request.env),
        "User": request.user,
        "WorkingDir": request.workdir,
        "Privileged": request.privileged,
    }
    identity = client.post(f"/containers/{request.container}/exec", body=body)["Id"]
    if request.detach:
        client.post(f"/exec/{identity}/start", body={"Detach": True, "Tty": request.tty})
        return 0
    start: dict[str, Any] = {"Detach": False, "Tty": request.tty}
    if request.tty and (size := console.size()):
        start["ConsoleSize"] = list(size)
    try:
        stream = client.hijack(f"/exec/{identity}/start", body=start)
    except EngineError as error:
        raise _start_failure(error) from error
    pumps = Pumps(
        stream,
        console,
        stdin=request.interactive,
        tty=request.tty,
        keys=detach_keys({"detach_keys": request.keys}),
    )
    resize = _resizer(client, f"/exec/{identity}/resize") if request.tty else None
    with console.session(raw=request.tty and request.interactive, resize=resize, signal=None):
        detached = pumps.run()
    stream.close()
    return 0 if detached else int(client.get(f"/exec/{identity}/json")["ExitCode"] or 0)


def logs(client: EngineClient, identity: str, query: dict[str, Any]) -> Iterator[tuple[bool, bytes]]:
    """Pieces of a container's log as (is standard error, bytes)."""
    from pybox.engine.frames import FrameDecoder, Stream

    tty = bool(client.get(f"/containers/{identity}/json")["Config"]["Tty"])
    decoder = FrameDecoder()
    with client.stream("GET", f"/containers/{identity}/logs", {"stdout": True, "stderr": True, **query}) as response:
        while data := response.read1():
            if tty:
                yield False, data
            else:
                yield from ((stream is not Stream.STDOUT, part) for stream, part in decoder.feed(data))


class _Waiter:
    """POST …/wait in a thread of its own, begun before the start so that no exit is missed."""

    def __init__(self, client: EngineClient, identity: str, condition: str) -> None:
        self._outcome: int | Exception = REFUSED
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._wait, args=(client, identity, condition), daemon=True)
        self._thread.start()
        self._listening.wait(10)

    def _wait(self, client: EngineClient, identity: str, condition: str) -> None:
        try:
            for answer in self._answers(client, identity, condition):
                self._outcome = int(answer["StatusCode"])
        except Exception as error:  # noqa: BLE001 - handed to the thread that asks for the result
            self._outcome = error
        finally:
            self._listening.set()

    def _answers(self, client: EngineClient, identity: str, condition: str) -> Iterator[dict[str, Any]]:
        import json

        with client.stream("POST", f"/containers/{identity}/wait", {"condition": condition}) as response:
            self._listening.set()
            yield json.loads(response.read())

    def result(self) -> int:
        self._thread.join()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def _start_failure(error: EngineError) -> EngineError:
    """Docker's CLI reads the exit status out of the words (125, 126, 127)."""
    text = error.brief
    if any(words in text for words in ("executable file not found", "no such file or directory", "system cannot find")):
        status = NOT_FOUND
    elif any(words in text for words in ("permission denied", "is a directory")):
        status = NOT_EXECUTABLE
    else:
        status = REFUSED
    return EngineError(text, error.details, error.resolution, status=error.status, exit_code=status)


def _resizer(client: EngineClient, path: str) -> Callable[[int, int], None]:
    def resize(rows: int, columns: int) -> None:
        try:
            client.post(path, {"h": rows, "w": columns})
        except EngineError:
            return  # the process has just ended: nothing left to resize

    return resize


def _signaller(client: EngineClient, identity: str) -> Callable[[str], None]:
    def send(name: str) -> None:
        try:
            client.post(f"/containers/{identity}/kill", {"signal": name})
        except EngineError:
            return  # it has just ended

    return send


def _remove_quietly(client: EngineClient, identity: str) -> None:
    try:
        client.delete(f"/containers/{identity}", {"force": True, "v": True})
    except EngineError:
        return  # the engine removed it itself
