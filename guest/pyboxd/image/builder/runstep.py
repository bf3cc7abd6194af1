"""RUN: which command it means, and the mounts that `--mount` asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.frozen import frozen
from pyboxd.image.builder.arguments import PREDEFINED, environment
from pyboxd.image.builder.cache import key
from pyboxd.image.builder.instructions import Run
from pyboxd.image.builder.metadata import DEFAULT_SHELL, join_path
from pyboxd.image.builder.parser import heredoc_start
from pyboxd.model import ImageConfig

SCRIPTS = "/dev/pipes"  # where a here-document that begins with `#!` is in the container
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_KNOWN = {
    "bind": {"from", "source", "target", "rw", "ro"},
    "cache": {"id", "target", "ro", "rw", "sharing", "from", "source", "mode", "uid", "gid"},
    "tmpfs": {"target", "size"},
}
_ALIASES = {"dst": "target", "destination": "target", "src": "source", "readonly": "ro", "readwrite": "rw"}
_FLAGS = ("ro", "rw")


@frozen
class CommandLine:
    """What a RUN starts; `script` is the content of a file at `SCRIPTS`/`script_name` that it needs."""

    args: tuple[str, ...]
    script: str = ""
    script_name: str = ""


@frozen
class MountOption:
    """A parsed `--mount`."""

    kind: str  # bind | cache | tmpfs
    target: str  # absolute
    source: str = ""
    source_from: str = ""  # stage or image; "" is the context (bind) or nothing (cache)
    readonly: bool = False
    identity: str = ""  # of a cache
    sharing: str = "shared"
    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)
    size: int = 0  # bytes


def command_line(run: Run, config: ImageConfig) -> CommandLine:
    """The program and its arguments."""
    if not run.command.shell:
        return CommandLine(run.command.words)
    shell = config.shell or DEFAULT_SHELL
    line = run.command.words[0]
    if len(run.heredocs) == 1 and len(line.split()) == 1 and heredoc_start(line.strip()):
        heredoc = run.heredocs[0]
        if heredoc.content.startswith("#!"):
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", heredoc.name)
            return CommandLine((*shell, f"{SCRIPTS}/{name}"), heredoc.content, name)
        return CommandLine((*shell, heredoc.content))
    for heredoc in run.heredocs:
        line += f"\n{heredoc.content}{heredoc.name}"
    return CommandLine((*shell, line + "\n" if run.heredocs else line))


def visible_arguments(declared: Mapping[str, str], config: ImageConfig) -> dict[str, str]:
    """The build arguments that a RUN sees; an ENV of the same name hides one."""
    env = environment(config.env)
    return {name: value for name, value in declared.items() if name not in env}


def run_environment(visible: Mapping[str, str], proxies: Mapping[str, str], config: ImageConfig) -> tuple[str, ...]:
    """The environment of the command, `NAME=value`."""
    env = environment(config.env)
    return tuple(f"{name}={value}" for name, value in {**proxies, **visible, **env}.items())


def history_words(line: CommandLine, visible: Mapping[str, str], named: Sequence[str]) -> str:
    """The step as the history shows it: `|1 version=2 /bin/sh -c make`. `named` are those that an ARG declared."""
    shown = sorted(name for name in visible if name in named or name not in PREDEFINED)
    words = " ".join(line.args)
    if line.script:
        words += f"\n{line.script}"
    if not shown:
        return words
    return f"|{len(shown)} {' '.join(f'{name}={visible[name]}' for name in shown)} {words}"


def parse_mount(text: str, config: ImageConfig) -> MountOption:
    """Read `type=cache,target=/x,…`; InvalidArgument, or NotImplementedHere for kinds that need BuildKit."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = name.strip().lower()
        fields[_ALIASES.get(name, name)] = value.strip()
    kind = fields.pop("type", "bind")
    if kind in ("secret", "ssh"):
        raise NotImplementedHere(f"RUN --mount=type={kind} is not supported: it needs a BuildKit session with the client")
    if kind not in _KNOWN:
        raise InvalidArgument(f'unsupported mount type "{kind}"')
    for name in fields:
        if name not in _KNOWN[kind]:
            raise InvalidArgument(f"unexpected key '{name}' for mount type '{kind}'")
    if not fields.get("target"):
        raise InvalidArgument(f"invalid mount: type={kind} needs a target")
    target = join_path(config.working_dir or "/", fields["target"])
    if target == "/":
        raise InvalidArgument("invalid mount target: /")
    return _mount_option(kind, target, fields)


def _mount_option(kind: str, target: str, fields: Mapping[str, str]) -> MountOption:
    sharing = fields.get("sharing", "shared")
    if sharing not in ("shared", "private", "locked"):
        raise InvalidArgument(f"unsupported sharing value {sharing!r}")
    writable = _boolean(fields, "rw") if "rw" in fields else kind != "bind"
    try:
        return MountOption(
            kind,
            target,
            source=fields.get("source", ""),
            source_from=fields.get("from", ""),
            readonly=_boolean(fields, "ro") or not writable,
            identity=fields.get("id", "") or target,
            sharing=sharing,
            mode=int(fields.get("mode", "0755"), 8) & 0o7777,
            owner=(int(fields.get("uid", "0")), int(fields.get("gid", "0"))),
            size=_size(fields.get("size", "0")),
        )
    except ValueError as error:
        raise InvalidArgument(f"invalid mount option: {error}") from error


def _boolean(fields: Mapping[str, str], name: str) -> bool:
    if name not in fields:
        return False
    value = fields[name].lower()
    if value not in ("", "true", "false", "1", "0"):
        raise InvalidArgument(f"invalid value for {name}: {fields[name]}")
    return value not in ("false", "0")


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})\s*([bkmgt]?)(?:i?b)?", text.lower())
    if found is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(found.group(1)) * _UNITS[found.group(2)]


def cache_folder(top: str, option: MountOption) -> str:
    """The directory that keeps a cache between builds, made at its first use."""
    path = f"{top}/{key((option.identity, option.source_from, option.source))[:32]}"
    if not os.path.isdir(path):
        os.makedirs(path, exist_ok=True)
        os.chown(path, *option.owner)
        os.chmod(path, option.mode)
    return path


def remove_stubs(upper: str, lower: Sequence[str], targets: Sequence[str]) -> None:
    """Take empty mount points out of the layer that exist only because something was mounted there."""
    for target in targets:
        path = target
        while path not in ("", "/") and not any(os.path.lexists(layer + path) for layer in lower):
            if not _is_stub(upper, path):
                break
            try:
                _remove_stub(upper, path)
            except OSError:  # not empty: the command put something there
                break
            path = os.path.dirname(path)


def _is_stub(upper: str, path: str) -> bool:
    """An empty file or a directory, reached without a link."""
    here = upper
    for name in path.strip("/").split("/"):
        if os.path.islink(here):
            return False
        here = f"{here}/{name}"
    if os.path.islink(here) or not os.path.lexists(here):
        return False
    return os.path.isdir(here) or (os.path.isfile(here) and os.path.getsize(here) == 0)


def _remove_stub(upper: str, path: str) -> None:
    whole = upper + path
    if os.path.isdir(whole):
        os.rmdir(whole)
    else:
        os.unlink(whole)
