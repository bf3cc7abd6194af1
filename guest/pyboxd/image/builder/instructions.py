"""Raw instructions as typed ones, and the stages they form. Pure; variables are still as written.

Messages are those of Docker's instruction parser (frontend/dockerfile/instructions/parse.go).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image.builder.durations import parse_duration
from pyboxd.image.builder.parser import Heredoc, RawInstruction, fail, heredoc_start, json_list
from pyboxd.image.builder.words import unquoted_words
from pyboxd.model import Healthcheck

Pair = tuple[str, str]
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_NOT_IN_ONBUILD = {"ONBUILD": "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"}
_NEVER_TRIGGERS = ("FROM", "MAINTAINER")


@frozen
class Instruction:
    """What all instructions have."""

    line: int
    text: str  # the logical line as written


@frozen
class From(Instruction):
    base: str
    stage: str  # lower case, "" if it has no name
    platform: str


@frozen
class Arg(Instruction):
    arguments: tuple[tuple[str, str | None], ...]


@frozen
class Env(Instruction):
    pairs: tuple[Pair, ...]


@frozen
class Label(Instruction):
    pairs: tuple[Pair, ...]


@frozen
class Command:
    """The arguments of RUN, CMD, ENTRYPOINT: words of the JSON form, or a line for the shell."""

    words: tuple[str, ...]
    shell: bool


@frozen
class Run(Instruction):
    command: Command
    mounts: tuple[str, ...]
    network: str
    heredocs: tuple[Heredoc, ...]


@frozen
class Cmd(Instruction):
    command: Command


@frozen
class Entrypoint(Instruction):
    command: Command


@frozen
class Copy(Instruction):
    """COPY, or ADD when `add` is set."""

    add: bool
    sources: tuple[str, ...]
    target: str
    files: tuple[Heredoc, ...]  # here-documents among the sources
    source_from: str
    owner: str
    mode: str
    exclude: tuple[str, ...]
    checksum: str
    unpack: bool | None


@frozen
class Workdir(Instruction):
    path: str


@frozen
class User(Instruction):
    user: str


@frozen
class Volume(Instruction):
    paths: tuple[str, ...]


@frozen
class Expose(Instruction):
    ports: tuple[str, ...]


@frozen
class Shell(Instruction):
    words: tuple[str, ...]


@frozen
class StopSignal(Instruction):
    signal: str


@frozen
class HealthcheckInstruction(Instruction):
    check: Healthcheck


@frozen
class OnBuild(Instruction):
    trigger: str


@frozen
class Maintainer(Instruction):
    name: str


class _Flags:
    """The flags of one instruction; those that nobody asks for are unknown."""

    def __init__(self, raw: RawInstruction) -> None:
        self._raw = raw
        self._values: dict[str, list[str]] = {}
        for flag in raw.flags:
            name, equals, value = flag[2:].partition("=")
            self._values.setdefault(name, []).append(value if equals else "\0")

    def text(self, name: str) -> str:
        values = self.many(name)
        if len(values) > 1:
            raise self._fail(f"duplicate flag specified: {name}")
        return values[0] if values else ""

    def many(self, name: str) -> list[str]:
        values = self._values.pop(name, [])
        if "\0" in values:
            raise self._fail(f"missing a value on flag: {name}")
        return values

    def boolean(self, name: str) -> bool | None:
        values = self._values.pop(name, [])
        if not values:
            return None
        value = values[-1].lower()
        if value not in ("\0", "true", "false"):
            raise self._fail(f"expecting boolean value for flag {name}, not: {values[-1]}")
        return value != "false"

    def done(self) -> None:
        if self._values:
            raise self._fail(f"unknown flag: {next(iter(self._values))}")

    def _fail(self, message: str) -> InvalidArgument:
        return fail(self._raw.line, message)


def interpret(raw: RawInstruction, escape: str = "\\") -> Instruction:
    """The typed form; InvalidArgument names the line."""
    reader = _READERS.get(raw.name)
    if reader is None:
        raise fail(raw.line, f"unknown instruction: {raw.name}")
    if not raw.rest.strip() and raw.name not in ("CMD", "ENTRYPOINT", "FROM", "HEALTHCHECK", "ONBUILD", "ENV", "SHELL"):
        raise fail(raw.line, _arity(raw.name))
    flags = _Flags(raw)
    instruction = reader(raw, flags, escape)
    flags.done()
    return instruction


def _arity(name: str) -> str:
    exactly = ("WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER")
    return f"{name} requires {'exactly' if name in exactly else 'at least'} one argument"


def _from(raw: RawInstruction, flags: _Flags, _escape: str) -> Instruction:
    words = raw.rest.split()
    if len(words) == 3 and words[1].lower() == "as":
        stage = words[2].lower()
        if not _STAGE_NAME.match(stage):
            raise fail(
                raw.line, f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
            )
    elif len(words) == 1:
        stage = ""
    else:
        raise fail(raw.line, "FROM requires either one or three arguments")
    return From(raw.line, raw.original, words[0], stage, flags.text("platform"))


def _arg(raw: RawInstruction, _flags: _Flags, escape: str) -> Instruction:
    arguments: list[tuple[str, str | None]] = []
    for word in unquoted_words(raw.rest, escape):
        name, equals, value = word.partition("=")
        if not name:
            raise fail(raw.line, "ARG names can not be blank")
        arguments.append((name, value if equals else None))
    return Arg(raw.line, raw.original, tuple(arguments))


def _pairs(raw: RawInstruction, escape: str) -> tuple[Pair, ...]:
    words = unquoted_words(raw.rest, escape)
    if not words:
        raise fail(raw.line, f"{raw.name} requires at least one argument")
    if "=" not in words[0]:  # the old form: one name, the rest of the line is its value
        parts = raw.rest.split(None, 1)
        if len(parts) < 2:
            raise fail(raw.line, f"{raw.name} must have two arguments")
        return ((parts[0], parts[1]),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise fail(raw.line, f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise fail(raw.line, f"{raw.name} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def _env(raw: RawInstruction, _flags: _Flags, escape: str) -> Instruction:
    return Env(raw.line, raw.original, _pairs(raw, escape))


def _label(raw: RawInstruction, _flags: _Flags, escape: str) -> Instruction:
    return Label(raw.line, raw.original, _pairs(raw, escape))


def _command(rest: str) -> Command:
    words = json_list(rest)
    if words is not None:
        return Command(tuple(words), shell=False)
    return Command((rest,) if rest else (), shell=True)


def _run(raw: RawInstruction, flags: _Flags, _escape: str) -> Instruction:
    network = flags.text("network")
    if network not in ("", "default", "none", "host"):
        raise fail(raw.line, f'network mode "{network}" is not supported')
    if flags.text("security") not in ("", "sandbox"):
        raise fail(raw.line, "RUN --security=insecure is not allowed")
    mounts = tuple(flags.many("mount"))
    return Run(raw.line, raw.original, _command(raw.rest), mounts, network, raw.heredocs)


def _cmd(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    return Cmd(raw.line, raw.original, _command(raw.rest))


def _entrypoint(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    return Entrypoint(raw.line, raw.original, _command(raw.rest))


def _copy(raw: RawInstruction, flags: _Flags, _escape: str) -> Instruction:
    add = raw.name == "ADD"
    words = json_list(raw.rest)
    if words is None:
        words = raw.rest.split()
    if len(words) < 2:
        raise fail(raw.line, f"{raw.name} requires at least two arguments, but only one was provided. "
                   "Destination could not be determined.")  # fmt: skip
    if heredoc_start(words[-1]):
        raise fail(raw.line, f"{raw.name} cannot accept a heredoc as a destination")
    if flags.boolean("parents"):
        raise fail(raw.line, f"{raw.name} --parents is not supported")
    flags.boolean("link")  # layers are made one way, so that it changes nothing
    files = list(raw.heredocs)
    return Copy(
        raw.line,
        raw.original,
        add=add,
        sources=tuple(word for word in words[:-1] if not (files and heredoc_start(word))),
        target=words[-1],
        files=raw.heredocs,
        source_from="" if add else flags.text("from"),
        owner=flags.text("chown"),
        mode=flags.text("chmod"),
        exclude=tuple(flags.many("exclude")),
        checksum=flags.text("checksum") if add else "",
        unpack=flags.boolean("unpack") if add else False,
    )


def _workdir(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    return Workdir(raw.line, raw.original, raw.rest)


def _user(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    if len(raw.rest.split()) != 1:
        raise fail(raw.line, "USER requires exactly one argument")
    return User(raw.line, raw.original, raw.rest)


def _volume(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    words = json_list(raw.rest)
    paths = tuple(raw.rest.split() if words is None else words)
    if not paths:
        raise fail(raw.line, "VOLUME requires at least one argument")
    if any(not path.strip() for path in paths):
        raise fail(raw.line, "VOLUME specified can not be an empty string")
    return Volume(raw.line, raw.original, paths)


def _expose(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    return Expose(raw.line, raw.original, tuple(raw.rest.split()))


def _shell(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    words = json_list(raw.rest)
    if words is None:
        raise fail(raw.line, "SHELL requires the arguments to be in JSON form")
    if not words:
        raise fail(raw.line, "SHELL requires at least one argument")
    return Shell(raw.line, raw.original, tuple(words))


def _stop_signal(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    if len(raw.rest.split()) != 1:
        raise fail(raw.line, "STOPSIGNAL requires exactly one argument")
    return StopSignal(raw.line, raw.original, raw.rest)


def _healthcheck(raw: RawInstruction, flags: _Flags, _escape: str) -> Instruction:
    kind, _, rest = raw.rest.partition(" ")
    if kind.upper() == "NONE":
        if rest.strip():
            raise fail(raw.line, "HEALTHCHECK NONE takes no arguments")
        return HealthcheckInstruction(raw.line, raw.original, Healthcheck(("NONE",)))
    if not kind:
        raise fail(raw.line, "HEALTHCHECK requires at least one argument")
    if kind.upper() != "CMD":
        raise fail(raw.line, f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    command = _command(rest.strip())
    if not command.words:
        raise fail(raw.line, "Missing command after HEALTHCHECK CMD")
    try:
        times = {name: _duration(name, flags.text(name)) for name in _TIMES}
        retries = _retries(flags.text("retries"))
    except InvalidArgument as error:
        raise fail(raw.line, str(error)) from error
    check = Healthcheck(
        test=("CMD-SHELL" if command.shell else "CMD", *command.words),
        interval=times["interval"],
        timeout=times["timeout"],
        start_period=times["start-period"],
        start_interval=times["start-interval"],
        retries=retries,
    )
    return HealthcheckInstruction(raw.line, raw.original, check)


_TIMES = ("interval", "timeout", "start-period", "start-interval")


def _duration(name: str, text: str) -> int:
    if not text:
        return 0
    value = parse_duration(text)
    if 0 < value < 1_000_000 or value < 0:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return value


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise InvalidArgument(f"--retries: {text!r} is not a number")
    if int(text) < 0:
        raise InvalidArgument(f"--retries cannot be negative ({int(text)})")
    return int(text)


def _onbuild(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    words = raw.rest.split(None, 1)
    if not words:
        raise fail(raw.line, "ONBUILD requires at least one argument")
    name = words[0].upper()
    if name == "ONBUILD":
        raise fail(raw.line, _NOT_IN_ONBUILD[name])
    if name in _NEVER_TRIGGERS:
        raise fail(raw.line, f"{name} isn't allowed as an ONBUILD trigger")
    trigger = raw.original.split(None, 1)[1]
    for heredoc in raw.heredocs:
        trigger += f"\n{heredoc.content}{heredoc.name}"
    return OnBuild(raw.line, raw.original, trigger)


def _maintainer(raw: RawInstruction, _flags: _Flags, _escape: str) -> Instruction:
    return Maintainer(raw.line, raw.original, raw.rest)


_READERS: Mapping[str, Callable[[RawInstruction, _Flags, str], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
