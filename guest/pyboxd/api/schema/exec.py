"""Docker's JSON of execs."""

from __future__ import annotations

from pyboxd.api.fields import COMMAND, FLAG, TEXT, TEXTS, Field, JsonObject, Kind, Table
from pyboxd.api.schema.config import CONSOLE_SIZE
from pyboxd.engine.exec import Exec
from pyboxd.engine.specs import ExecConfig
from pyboxd.frozen import frozen, replace


@frozen
class ExecStart:
    """The body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)


_CONFIG = Table(
    ExecConfig,
    "ExecOptions",
    Field("User", "user", TEXT),
    Field("Privileged", "privileged", FLAG),
    Field("Tty", "tty", FLAG),
    Field("ConsoleSize", "console_size", CONSOLE_SIZE),
    Field("AttachStdin", "attach_stdin", FLAG),
    Field("AttachStderr", "attach_stderr", FLAG),
    Field("AttachStdout", "attach_stdout", FLAG),
    Field("DetachKeys", "detach_keys", TEXT),
    Field("Env", "env", TEXTS),
    Field("WorkingDir", "working_dir", TEXT),
    Field("Cmd", "cmd", Kind(COMMAND.decode)),
)
_START = Table(
    ExecStart,
    "ExecStartOptions",
    Field("Detach", "detach", FLAG),
    Field("Tty", "tty", FLAG),
    Field("ConsoleSize", "console_size", CONSOLE_SIZE),
)


def decode_config(value: object) -> ExecConfig:
    """The body of POST /containers/{id}/exec. InvalidArgument."""
    return _CONFIG.decode(value if value is not None else {})


def decode_start(value: object) -> ExecStart:
    """InvalidArgument."""
    return _START.decode(value if value is not None else {})


def with_size(config: ExecConfig, size: tuple[int, int]) -> ExecConfig:
    """The same exec with a terminal of `size` (rows, columns)."""
    return replace(config, console_size=size)


def inspect(made: Exec) -> JsonObject:
    """GET /exec/{id}/json."""
    config = made.config
    command = config.cmd
    return {
        "ID": made.id,
        "Running": made.running,
        "ExitCode": made.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": command[0],
            "arguments": list(command[1:]),
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": made.ended.is_set(),
        "ContainerID": made.container.id,
        "DetachKeys": config.detach_keys,
        "Pid": made.pid,
    }
