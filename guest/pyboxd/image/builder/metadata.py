"""Instructions that change the configuration and no file. Pure.

`apply` gives the new configuration and the words that the history shows for it, which are the classic builder's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen, replace
from pyboxd.image.builder import instructions as i
from pyboxd.image.builder.arguments import with_variable
from pyboxd.image.builder.durations import format_duration
from pyboxd.model import Healthcheck, ImageConfig

DEFAULT_SHELL = ("/bin/sh", "-c")
Expand = Callable[[str], str]
ExpandWords = Callable[[str], list[str]]

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-zA-Z]+))?\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORTS = 65536  # of one EXPOSE with its ranges


@frozen
class Scope:
    """How words are expanded at this point, and whether this stage has had a CMD."""

    expand: Expand
    expand_words: ExpandWords
    cmd_set: bool = False


@frozen
class Change:
    """The configuration behind an instruction."""

    config: ImageConfig
    words: str  # for the history, behind `#(nop) `


def apply(instruction: i.Instruction, config: ImageConfig, scope: Scope) -> Change | None:
    """None for an instruction that is not of this kind. InvalidArgument in Docker's words."""
    function = _APPLY.get(type(instruction))
    return function(instruction, config, scope) if function else None


def join_path(folder: str, path: str) -> str:
    """An absolute clean path: `path` as seen from `folder`."""
    joined = posixpath.normpath(posixpath.join("/", folder, path))
    return "/" + joined.lstrip("/")


def _env(instruction: i.Env, config: ImageConfig, scope: Scope) -> Change:
    env = config.env
    words = "ENV"
    for name, value in _expanded_pairs(instruction.pairs, scope, "ENV"):
        env = with_variable(env, name, value)
        words += f" {name}={value}"
    return Change(replace(config, env=env), words)


def _label(instruction: i.Label, config: ImageConfig, scope: Scope) -> Change:
    pairs = _expanded_pairs(instruction.pairs, scope, "LABEL")
    labels = {**config.labels, **dict(pairs)}
    words = "".join(f" {name}={value}" for name, value in pairs)
    return Change(replace(config, labels=MappingProxyType(labels)), f"LABEL{words}")


def _expanded_pairs(pairs: Sequence[i.Pair], scope: Scope, what: str) -> list[i.Pair]:
    """All values of a line see the environment from before the line."""
    found = [(scope.expand(name), scope.expand(value)) for name, value in pairs]
    if any(not name for name, _ in found):
        raise InvalidArgument(f"{what} names can not be blank")
    return found


def _maintainer(instruction: i.Maintainer, config: ImageConfig, _scope: Scope) -> Change:
    return Change(config, f"MAINTAINER {instruction.name}")


def _cmd(instruction: i.Cmd, config: ImageConfig, _scope: Scope) -> Change:
    words = _command(instruction.command, config)
    return Change(replace(config, cmd=words), f"CMD {_quoted(words)}")


def _entrypoint(instruction: i.Entrypoint, config: ImageConfig, scope: Scope) -> Change:
    words = _command(instruction.command, config)
    cmd = config.cmd if scope.cmd_set else None  # the base image's CMD was meant for another program
    return Change(replace(config, entrypoint=words, cmd=cmd), f"ENTRYPOINT {_quoted(words)}")


def _command(command: i.Command, config: ImageConfig) -> tuple[str, ...]:
    if command.shell and command.words:
        return (*(config.shell or DEFAULT_SHELL), *command.words)
    return command.words


def _user(instruction: i.User, config: ImageConfig, scope: Scope) -> Change:
    user = scope.expand(instruction.user)
    return Change(replace(config, user=user), f"USER {user}")


def _volume(instruction: i.Volume, config: ImageConfig, scope: Scope) -> Change:
    paths = [scope.expand(path) for path in instruction.paths]
    if any(not path for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    volumes = tuple(dict.fromkeys((*config.volumes, *paths)))
    return Change(replace(config, volumes=volumes), f"VOLUME [{' '.join(paths)}]")


def _expose(instruction: i.Expose, config: ImageConfig, scope: Scope) -> Change:
    words = [word for port in instruction.ports for word in scope.expand_words(port)]
    ports = [port for word in words for port in _ports(word)]
    if len(ports) > _MAX_PORTS:
        raise InvalidArgument("EXPOSE names too many ports")
    exposed = tuple(dict.fromkeys((*config.exposed_ports, *ports)))
    return Change(replace(config, exposed_ports=exposed), f"EXPOSE {' '.join(words)}")


def _ports(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8010/tcp`; a host part (`8080:80`) has no meaning here and is dropped."""
    found = _PORT.match(text.rpartition(":")[2])
    if found is None:
        raise InvalidArgument(f"invalid containerPort: {text}")
    first, last = int(found.group(1)), int(found.group(2) or found.group(1))
    protocol = (found.group(3) or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    if not 0 <= first <= last <= 65535:
        raise InvalidArgument(f"invalid range specified for port: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _shell(instruction: i.Shell, config: ImageConfig, _scope: Scope) -> Change:
    return Change(replace(config, shell=instruction.words), f"SHELL [{' '.join(instruction.words)}]")


def _stop_signal(instruction: i.StopSignal, config: ImageConfig, scope: Scope) -> Change:
    import signal  # only this instruction asks

    text = scope.expand(instruction.signal)
    name = text.upper().removeprefix("SIG")
    known = {item.name.removeprefix("SIG") for item in signal.Signals}
    numeric = text.isascii() and text.isdigit() and 0 < int(text[:4]) <= 64
    if not numeric and name not in known and not re.fullmatch(r"RTM(IN(\+\d{1,2})?|AX(-\d{1,2})?)", name):
        raise InvalidArgument(f"invalid signal: {text}")
    return Change(replace(config, stop_signal=text), f"STOPSIGNAL {text}")


def _healthcheck(instruction: i.HealthcheckInstruction, config: ImageConfig, _scope: Scope) -> Change:
    check = instruction.check
    return Change(replace(config, healthcheck=check), f"HEALTHCHECK {_healthcheck_words(check)}")


def _healthcheck_words(check: Healthcheck) -> str:
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    shown = " ".join(f'"{format_duration(time)}"' for time in times)
    return f"{{{_quoted(check.test)} {shown} {check.retries}}}"


def _on_build(instruction: i.OnBuild, config: ImageConfig, _scope: Scope) -> Change:
    return Change(replace(config, on_build=(*config.on_build, instruction.trigger)), f"ONBUILD {instruction.trigger}")


def _quoted(words: Sequence[str]) -> str:
    """As Go's %q prints a slice: `["a" "b"]`."""
    inside = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"' for word in words)
    return f"[{inside}]"


_APPLY: dict[type[i.Instruction], Callable[[Any, ImageConfig, Scope], Change]] = {
    i.Cmd: _cmd,
    i.Entrypoint: _entrypoint,
    i.Env: _env,
    i.Expose: _expose,
    i.HealthcheckInstruction: _healthcheck,
    i.Label: _label,
    i.Maintainer: _maintainer,
    i.OnBuild: _on_build,
    i.Shell: _shell,
    i.StopSignal: _stop_signal,
    i.User: _user,
    i.Volume: _volume,
}
