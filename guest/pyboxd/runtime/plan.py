"""From a spec to the ordered list of what the container's first process does. Pure: it looks at nothing.

The order of a container's plan: out of reach, into the namespaces, sources taken along, root mounted and
entered, the kernel's file systems, the user's mounts, parameters, terminal, masks, and last the process itself.
"""

from __future__ import annotations

import functools
import re

from pyboxd import locations
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.linux import caps
from pyboxd.linux import constants as k
from pyboxd.linux.mount import Option

from . import cgroup, devices, filesystem, setup
from .operation import Operation
from .spec import ContainerSpec, ExecSpec, Mount, Rlimit

_NOSUID_NOEXEC_NODEV = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC | k.MOUNT_ATTR_NODEV
# moby, daemon/pkg/oci: what every container with a network of its own gets
_NETWORK_SYSCTLS = (("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0"))
_DEFAULT_NOFILE = Rlimit("nofile", 1024, 524288)  # as systemd starts services, and so stock engines
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"]
)
_SET = {
    "ro": k.MOUNT_ATTR_RDONLY,
    "nosuid": k.MOUNT_ATTR_NOSUID,
    "nodev": k.MOUNT_ATTR_NODEV,
    "noexec": k.MOUNT_ATTR_NOEXEC,
    "noatime": k.MOUNT_ATTR_NOATIME,
    "nodiratime": k.MOUNT_ATTR_NODIRATIME,
    "strictatime": k.MOUNT_ATTR_STRICTATIME,
}
_CLEARED = {
    "rw": k.MOUNT_ATTR_RDONLY,
    "suid": k.MOUNT_ATTR_NOSUID,
    "dev": k.MOUNT_ATTR_NODEV,
    "exec": k.MOUNT_ATTR_NOEXEC,
    "relatime": k.MOUNT_ATTR__ATIME,
    "atime": k.MOUNT_ATTR_NOATIME,
    "diratime": k.MOUNT_ATTR_NODIRATIME,
}
_WITHOUT_EFFECT = frozenset({"bind", "rbind", "defaults", "async", *filesystem.PROPAGATIONS})
_TMPFS_OPTIONS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"})
_SHARED_IPC = re.compile(r"/proc/(\d+)/ns/ipc\Z")
ProcessSpec = ContainerSpec | ExecSpec


@frozen
class Plan:
    """Namespaces that the first process is born into, and what it does then."""

    new_namespaces: int  # CLONE_NEW…
    pid_namespace: str  # path of one to be born into, "" for none
    operations: tuple[Operation, ...]


def make_plan(spec: ContainerSpec) -> Plan:
    """The plan of a container. InvalidArgument for what cannot be."""
    check_sysctls(spec)
    operations = [
        *_enter_namespaces(spec),
        *_take_along(spec),
        *_enter_root(spec),
        *_kernel_mounts(spec),
        *_user_mounts(spec),
        *_devices(spec),
        *[setup.SetSysctl(name, value) for name, value in _sysctls(spec)],
        *_terminal(spec),
        filesystem.MakeDirectory(spec.cwd or "/"),
        *_restrict_paths(spec),
        *_process(spec),
    ]
    return Plan(_new_namespaces(spec), _path(spec.pid_mode), tuple(operations))


def make_exec_plan(spec: ExecSpec) -> Plan:
    """The plan of another process in a container."""
    operations = [
        setup.SetOomScore(spec.oom_score_adj),
        setup.Harden(),
        setup.JoinContainer(spec.container_pid),
        *_terminal(spec),
        *_process(spec),
    ]
    return Plan(0, "", tuple(operations))


def describe_plan(spec: ContainerSpec) -> list[str]:
    """All that will be done for a container, one line each."""
    plan = make_plan(spec)
    born = [name for name, flag in setup.NAMESPACES.items() if plan.new_namespaces & flag]
    lines = [f"cgroup {cgroup.path_of(spec.cgroup_parent, spec.id)}"]
    lines += [f"  {name} {value}" for name, value in cgroup.files(spec.resources, lambda path: (0, 0))]
    lines.append(f"clone into the cgroup, with new namespaces: mount {' '.join(born)}")
    lines += [f"  {operation.describe()}" for operation in plan.operations]
    if filtered(spec):
        kind = spec.seccomp if spec.seccomp == "default" else "given"
        lines.append(f"filter system calls by the {kind} profile")
    lines.append(f"execute {' '.join(spec.args)}")
    return lines


def filtered(spec: ProcessSpec) -> bool:
    """Whether a system call filter is to be loaded."""
    return not spec.privileged and spec.seccomp not in ("", "unconfined")


def bounding_mask(spec: ProcessSpec) -> int:
    """Capabilities that any program in it can ever have. InvalidArgument for a name the kernel does not know."""
    try:
        return caps.mask_of(caps.ALL if spec.privileged else spec.capabilities)
    except KeyError as error:
        raise InvalidArgument(f"unknown capability: {error}") from error


def check_sysctls(spec: ContainerSpec) -> None:
    """Only parameters of a namespace that the container has for itself may be set. InvalidArgument."""
    for name, _ in spec.sysctls:
        normal = name.replace("/", ".")
        if normal in _IPC_SYSCTLS or normal.startswith("fs.mqueue."):
            if spec.ipc_mode == "host":
                raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        elif normal.startswith("net."):
            if spec.network == "host":
                raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace')
        elif normal != "kernel.domainname" or spec.uts_mode == "host":
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')


def _new_namespaces(spec: ContainerSpec) -> int:
    flags = k.CLONE_NEWNS
    flags |= k.CLONE_NEWPID if spec.pid_mode == "private" else 0
    flags |= k.CLONE_NEWIPC if spec.ipc_mode == "private" else 0
    flags |= k.CLONE_NEWUTS if spec.uts_mode == "private" else 0
    return flags | (k.CLONE_NEWNET if spec.network == "none" else 0)


def _path(mode: str) -> str:
    return mode if mode.startswith("/") else ""


def _enter_namespaces(spec: ContainerSpec) -> list[Operation]:
    shared = (("network", spec.network), ("ipc", spec.ipc_mode), ("uts", spec.uts_mode), ("cgroup", spec.cgroup_mode))
    operations: list[Operation] = [setup.Harden(), setup.SetOomScore(spec.oom_score_adj)]
    operations += [setup.EnterNamespace(kind, mode) for kind, mode in shared if _path(mode)]
    if spec.cgroup_mode == "private":
        operations.append(setup.NewCgroupNamespace())
    if spec.network == "none":
        operations.append(setup.LoopbackUp())
    if spec.uts_mode == "private" and (spec.hostname or spec.domainname):
        operations.append(setup.SetNames(spec.hostname, spec.domainname))
    receives = any(m.propagation.lstrip("r") in ("slave", "shared") for m in spec.mounts)
    return [*operations, filesystem.DetachFromHost("slave" if receives else "private")]


def _take_along(spec: ContainerSpec) -> list[Operation]:
    operations: list[Operation] = [filesystem.TakeNull()]
    for number, mount in enumerate(_ordered(spec.mounts)):
        if mount.kind == "bind":
            attributes, _ = _attributes(mount, 0)
            source, target = mount.source, mount.target
            operations.append(filesystem.TakeBind(number, source, target, mount.recursive, attributes, mount.propagation))
    if not _user_mounted(spec, "/dev/shm"):
        shared = _SHARED_IPC.match(spec.ipc_mode)
        if shared:
            operations.append(filesystem.TakeSharedMemory(_SHM_BIND, int(shared.group(1))))
        elif spec.ipc_mode == "host":
            operations.append(filesystem.TakeBind(_SHM_BIND, "/dev/shm", "/dev/shm", False, 0, "rprivate"))
    if spec.cgroup_mode == "host":
        operations.append(_take_host_cgroup(spec))
    operations += [devices.FindDevice(device.path_in_guest, device.path) for device in spec.devices]
    return [*operations, devices.FindAllDevices()] if spec.privileged else operations


_SHM_BIND, _CGROUP_BIND = -1, -2  # numbers of the runtime's own binds


def _take_host_cgroup(spec: ContainerSpec) -> Operation:
    # A mount of cgroup2 made outside of a cgroup namespace would set the options of the guest's own.
    attributes = _NOSUID_NOEXEC_NODEV | (0 if spec.privileged else k.MOUNT_ATTR_RDONLY)
    return filesystem.TakeBind(_CGROUP_BIND, locations.CGROUP, "/sys/fs/cgroup", False, attributes, "rprivate")


def _enter_root(spec: ContainerSpec) -> list[Operation]:
    root = spec.root
    lower = root.lower or (f"{spec.run_dir}/empty",)
    return [filesystem.MountRoot(lower, root.upper, root.work, spec.run_dir, root.volatile), filesystem.EnterRoot()]


def _kernel_mounts(spec: ContainerSpec) -> list[Operation]:
    readonly = 0 if spec.privileged else k.MOUNT_ATTR_RDONLY
    operations: list[Operation] = [_PROC]
    if not _user_mounted(spec, "/dev"):
        operations += _DEV
        if not _user_mounted(spec, "/dev/shm"):
            if spec.ipc_mode == "private":
                operations.append(_shared_memory(spec.shm_size))
            else:
                operations.append(filesystem.PlaceBind(_SHM_BIND, "/dev/shm", "/dev/shm"))
    operations.append(_special("sysfs", "/sys", _NOSUID_NOEXEC_NODEV | readonly))
    if spec.cgroup_mode == "host":
        operations.append(filesystem.PlaceBind(_CGROUP_BIND, locations.CGROUP, "/sys/fs/cgroup"))
    else:
        operations.append(_special("cgroup2", "/sys/fs/cgroup", _NOSUID_NOEXEC_NODEV | readonly))
    return operations


# Operations are values, so those that all containers share are made once, before the first fork.
_special = functools.cache(filesystem.MountSpecial)
_mask = functools.cache(filesystem.MaskPath)
_readonly = functools.cache(filesystem.MakeReadonly)
_PROC = _special("proc", "/proc", _NOSUID_NOEXEC_NODEV, keep="proc_fd")
_DEV = (
    _special(
        "tmpfs",
        "/dev",
        k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_STRICTATIME,
        (("mode", "755"), ("size", "65536k")),
        keep="dev_fd",
    ),
    devices.MakeNodes(),
    _special(
        "devpts",
        "/dev/pts",
        k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC,
        (("mode", "620"), ("ptmxmode", "666"), ("gid", "5")),
        keep="pts_fd",
    ),
    _special("mqueue", "/dev/mqueue", _NOSUID_NOEXEC_NODEV),
)


def _shared_memory(size: int) -> Operation:
    options = (("source", "shm"), ("mode", "1777"), ("size", str(size)))
    return _special("tmpfs", "/dev/shm", _NOSUID_NOEXEC_NODEV, options)


def _user_mounts(spec: ContainerSpec) -> list[Operation]:
    operations: list[Operation] = []
    for number, mount in enumerate(_ordered(spec.mounts)):
        if mount.kind == "bind":
            operations.append(filesystem.PlaceBind(number, mount.source, mount.target))
        elif mount.kind == "tmpfs":
            operations.append(filesystem.MountTemporary(mount.target, *_attributes(mount, _NOSUID_NOEXEC_NODEV)))
        else:
            raise InvalidArgument(f"invalid mount type {mount.kind!r} for {mount.target}")
    return operations


def _devices(spec: ContainerSpec) -> list[Operation]:
    return [devices.CopyNodes()] if spec.devices or spec.privileged else []


def _sysctls(spec: ContainerSpec) -> list[tuple[str, str]]:
    own_network = spec.network != "host" and not spec.network.startswith("/proc/")
    return list({**dict(_NETWORK_SYSCTLS if own_network else ()), **dict(spec.sysctls)}.items())


def _terminal(spec: ProcessSpec) -> list[Operation]:
    if not spec.terminal:
        return []
    rows, columns = spec.console_size or (0, 0)
    console = isinstance(spec, ContainerSpec) and not _user_mounted(spec, "/dev")
    return [devices.OpenTerminal(rows, columns, console)]


def _restrict_paths(spec: ContainerSpec) -> list[Operation]:
    operations: list[Operation] = []
    if not spec.privileged:
        operations += [_mask(path) for path in spec.masked_paths]
        operations += [_readonly(path) for path in spec.readonly_paths]
    return [*operations, filesystem.MakeRootReadonly()] if spec.root.readonly else operations


def _process(spec: ProcessSpec) -> list[Operation]:
    limits = spec.rlimits if any(limit.name == "nofile" for limit in spec.rlimits) else (*spec.rlimits, _DEFAULT_NOFILE)
    return [
        setup.FindUser(spec.user, spec.groups_add),
        *[setup.SetRlimit(f"RLIMIT_{limit.name.upper()}", limit.soft, limit.hard) for limit in limits],
        setup.TakeTerminal() if spec.terminal else setup.NewSession(),
        setup.CloseDescriptors(),
        setup.EnterDirectory(spec.cwd or "/"),
        setup.BecomeUser(bounding_mask(spec), filtered(spec), spec.no_new_privileges),
    ]


def _ordered(mounts: tuple[Mount, ...]) -> list[Mount]:
    """Mounts in the order in which they lie in each other."""
    return sorted(mounts, key=lambda mount: len([part for part in mount.target.split("/") if part]))


def _user_mounted(spec: ContainerSpec, target: str) -> bool:
    return any(mount.target.rstrip("/") == target for mount in spec.mounts)


def _attributes(mount: Mount, base: int) -> tuple[int, tuple[Option, ...]]:
    """Flags and options of a mount from the words of mount(8). InvalidArgument."""
    flags = base | (k.MOUNT_ATTR_RDONLY if mount.readonly else 0)
    options: list[Option] = []
    for word in mount.options:
        name, equals, value = word.partition("=")
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEARED:
            flags &= ~_CLEARED[word]
        elif equals and mount.kind == "tmpfs" and name in _TMPFS_OPTIONS:
            options.append((name, value))
        elif word.removeprefix("r") not in _WITHOUT_EFFECT and word not in _WITHOUT_EFFECT:
            raise InvalidArgument(f"invalid mount option {word!r} for {mount.target}")
    return flags, tuple(options)
