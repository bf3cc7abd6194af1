"""A container's record and what was prepared for its start -> the runtime's `ContainerSpec`. Pure but for devices."""

from __future__ import annotations

import os
import re
import stat

from pyboxd.engine import logconfig, security
from pyboxd.engine.model import DeviceMapping, HostConfig, Record
from pyboxd.engine.resources import resources
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.runtime.spec import (
    DEFAULT_CGROUP_PARENT,
    DEFAULT_PATH,
    ContainerSpec,
    Device,
    DeviceRule,
    ExecSpec,
    Mount,
    Rlimit,
    RootFilesystem,
)

_RULE = re.compile(r"([abc]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})")


@frozen
class Prepared:
    """What a start made ready: all paths are the guest's. Modes are "private", "host" or a namespace's path."""

    lower: tuple[str, ...]
    directory: str  # of the container on the data disk
    run_dir: str
    mounts: tuple[Mount, ...]
    network: str
    pid_mode: str = "private"
    ipc_mode: str = "private"
    uts_mode: str = "private"
    init: bool = False
    variables: tuple[str, ...] = ()  # of the engine, weaker than the container's own


def upper(directory: str) -> str:
    """The writable layer of a container."""
    return f"{directory}/upper"


def work(directory: str) -> str:
    """Overlayfs' own directory beside it."""
    return f"{directory}/work"


def log_path(directory: str, container_id: str) -> str:
    """Docker's name of the log file."""
    return f"{directory}/{container_id}-json.log"


def container_spec(record: Record, prepared: Prepared) -> ContainerSpec:
    """The runtime's order for a start. InvalidArgument."""
    config, host, directory = record.config, record.host, prepared.directory
    rights = security.work_out(host)
    rows, columns = host.console_size
    return ContainerSpec(
        id=record.id,
        root=RootFilesystem(prepared.lower, upper(directory), work(directory), host.readonly_rootfs),
        args=record.command,
        run_dir=prepared.run_dir,
        env=environment(record, prepared.variables),
        cwd=config.working_dir or "/",
        user=config.user,
        groups_add=host.group_add or (),
        hostname=config.hostname,
        domainname=config.domainname,
        terminal=config.tty,
        console_size=(rows, columns) if rows and columns else None,
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        mounts=prepared.mounts,
        devices=devices(host),
        device_rules=tuple(_rule(text) for text in host.device_cgroup_rules or ()),
        network=prepared.network,
        pid_mode=prepared.pid_mode,
        ipc_mode=prepared.ipc_mode,
        uts_mode=prepared.uts_mode,
        cgroup_mode=host.cgroupns_mode,
        capabilities=rights.capabilities,
        privileged=host.privileged,
        seccomp=rights.seccomp,
        no_new_privileges=rights.no_new_privileges,
        masked_paths=rights.masked_paths,
        readonly_paths=rights.readonly_paths,
        rlimits=rlimits(host),
        sysctls=host.sysctls,
        resources=resources(host.limits),
        cgroup_parent=host.cgroup_parent or DEFAULT_CGROUP_PARENT,
        oom_score_adj=host.oom_score_adj,
        shm_size=host.shm_size,
        init=prepared.init,
        log=logconfig.settings(host.log_config, log_path(directory, record.id)),
    )


def environment(record: Record, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Docker's variables and `more` first, so that the container's own win; one without "=" removes it."""
    variables = {"PATH": DEFAULT_PATH.removeprefix("PATH="), "HOSTNAME": record.config.hostname}
    if record.config.tty:
        variables["TERM"] = "xterm"
    return merge_environment(variables, (*more, *record.config.env))


def merge_environment(variables: dict[str, str], more: tuple[str, ...]) -> tuple[str, ...]:
    """Variables with `more` ("NAME=value") put over them."""
    merged = dict(variables)
    for text in more:
        name, separator, value = text.partition("=")
        if separator:
            merged[name] = value
        else:
            merged.pop(name, None)
    return tuple(f"{name}={value}" for name, value in merged.items())


def rlimits(host: HostConfig) -> tuple[Rlimit, ...]:
    return tuple(Rlimit(limit.name, limit.soft, limit.hard) for limit in host.ulimits)


def devices(host: HostConfig) -> tuple[Device, ...]:
    """The device nodes of `--device`; a directory stands for those in it. InvalidArgument."""
    found: list[Device] = []
    for mapping in host.devices:
        if os.path.isdir(mapping.path_on_host):
            found.extend(_devices_below(mapping))
        else:
            found.append(_device(mapping.path_on_host, mapping.path_in_container, mapping.permissions))
    return tuple(found)


def _device(path: str, target: str, permissions: str) -> Device:
    failure = f'error gathering device information while adding custom device "{path}"'
    try:
        mode = os.stat(path).st_mode
    except OSError:
        raise InvalidArgument(f"{failure}: no such file or directory") from None
    if not stat.S_ISBLK(mode) and not stat.S_ISCHR(mode):
        raise InvalidArgument(f"{failure}: not a device node")
    return Device(path, target, permissions)


def _devices_below(mapping: DeviceMapping) -> list[Device]:
    found = []
    for folder, _, names in os.walk(mapping.path_on_host):
        for name in sorted(names):
            path = f"{folder}/{name}"
            mode = os.lstat(path).st_mode
            if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
                target = mapping.path_in_container + path.removeprefix(mapping.path_on_host)
                found.append(Device(path, target, mapping.permissions))
    return found


def _rule(text: str) -> DeviceRule:
    found = _RULE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, permissions = found.groups()
    return DeviceRule(kind, _number(major), _number(minor), permissions)


def _number(text: str) -> int | None:
    return None if text == "*" else int(text)


@frozen
class ExecConfig:
    """POST /containers/{id}/exec."""

    cmd: tuple[str, ...] = ()
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)


def exec_spec(record: Record, config: ExecConfig, exec_id: str, run_dir: str, cgroup: str) -> ExecSpec:
    """The runtime's order for one more process in a running container."""
    rights = security.work_out(record.host)
    rows, columns = config.console_size
    base = dict(variable.split("=", 1) for variable in environment(record))
    if config.tty:
        base.setdefault("TERM", "xterm")
    return ExecSpec(
        id=exec_id,
        container_id=record.id,
        container_pid=record.state.pid,
        cgroup=cgroup,
        args=config.cmd,
        run_dir=run_dir,
        env=merge_environment(base, config.env),
        cwd=config.working_dir or record.config.working_dir or "/",
        user=config.user or record.config.user,
        groups_add=record.host.group_add or (),
        terminal=config.tty,
        console_size=(rows, columns) if rows and columns else None,
        open_stdin=config.attach_stdin,
        privileged=config.privileged,
        capabilities=rights.capabilities,
        seccomp="unconfined" if config.privileged else rights.seccomp,
        no_new_privileges=rights.no_new_privileges,
        rlimits=rlimits(record.host),
        oom_score_adj=record.host.oom_score_adj,
    )
