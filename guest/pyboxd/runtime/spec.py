"""What the runtime is asked for: frozen values, and Docker's defaults for them.

Nothing here touches the system. `plan` turns a `ContainerSpec` into operations; `codec` turns the values into
JSON and back. Sizes are bytes, times are microseconds where the name says `_us`.
"""

from __future__ import annotations

from pyboxd.frozen import frozen

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_SIZE = 64 << 20
DEFAULT_CGROUP_PARENT = "/docker"

# moby, daemon/pkg/oci/caps: what a container may do when nobody says otherwise
DEFAULT_CAPABILITIES = frozenset(
    {
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)

# moby, daemon/pkg/oci/defaults.go
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@frozen
class RootFilesystem:
    """An overlay: read-only directories, top first, below one writable directory.

    `work` is an empty directory on the file system of `upper`. Without `lower` the root starts out empty.
    """

    lower: tuple[str, ...]
    upper: str
    work: str
    readonly: bool = False
    volatile: bool = False  # nothing written becomes durable: for what is thrown away after a crash


@frozen
class Mount:
    """One mount of the user's, or one that the engine adds (`/etc/hosts`).

    `kind` is "bind" or "tmpfs". `source` is a path of the guest and is used for binds only. `options` are those
    of mount(8) that change a flag (`noexec`, `nosuid`, `nodev`, `noatime`, `exec`, …) and, for a tmpfs,
    `size=`, `mode=`, `uid=`, `gid=`, `nr_inodes=`. `recursive` binds take the mounts below the source along,
    and `readonly` then holds for them too.
    """

    kind: str
    source: str
    target: str
    readonly: bool = False
    recursive: bool = True
    propagation: str = "rprivate"
    options: tuple[str, ...] = ()


@frozen
class Device:
    """A device node of the guest that the container gets; `permissions` is a subset of "rwm"."""

    path_in_guest: str
    path: str
    permissions: str = "rwm"


@frozen
class DeviceRule:
    """A rule of `--device-cgroup-rule`: `kind` is "a", "b" or "c"; a number of None means any."""

    kind: str
    major: int | None
    minor: int | None
    permissions: str = "rwm"


@frozen
class Rlimit:
    """A resource limit; `name` as Docker writes it ("nofile"), -1 is no limit."""

    name: str
    soft: int
    hard: int


@frozen
class IoLimit:
    """Limits of one block device, named by a path of the guest; None is no limit. Bytes and requests a second."""

    path: str
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@frozen
class Resources:
    """Limits of a container's cgroup; None, 0 and "" mean: not set. -1 means: no limit.

    `memory_swap` is Docker's number, memory and swap together.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int = 100_000
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    io: tuple[IoLimit, ...] = ()
    blkio_weight: int | None = None


@frozen
class LogSettings:
    """Where output is kept: "json-file" and "local" write Docker's JSON lines, "none" keeps nothing.

    A file that has reached `max_size` bytes (-1: never) is renamed `PATH.1`, older ones move on to `.2` and so
    forth, until there are `max_file` of them in all.
    """

    driver: str = "json-file"
    path: str = ""
    max_size: int = -1
    max_file: int = 1


@frozen
class ContainerSpec:
    """A container's first process and everything around it.

    `network` is "none" (a namespace with a loopback only), "host", or the path of a prepared namespace; the
    other modes are "private", "host", or the path of a namespace (`/proc/PID/ns/ipc`). `user` is what Docker's
    USER says and is looked up inside the container. `seccomp` is "default", "unconfined" or a profile in
    Docker's JSON. `run_dir` belongs to this container alone and ends with the machine.
    """

    id: str
    root: RootFilesystem
    args: tuple[str, ...]
    run_dir: str
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups_add: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # rows, columns
    open_stdin: bool = False
    stdin_once: bool = False
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    network: str = "none"
    pid_mode: str = "private"
    ipc_mode: str = "private"
    uts_mode: str = "private"
    cgroup_mode: str = "private"
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    privileged: bool = False
    seccomp: str = "default"
    no_new_privileges: bool = False
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    resources: Resources = Resources()
    cgroup_parent: str = DEFAULT_CGROUP_PARENT
    oom_score_adj: int = 0
    shm_size: int = DEFAULT_SHM_SIZE
    init: bool = False
    log: LogSettings = LogSettings(driver="none")


@frozen
class ExecSpec:
    """Another process in a running container.

    `container_pid` and `cgroup` are those of the container's `Process`. `capabilities` and `seccomp` should be
    the container's own; `privileged` gives all capabilities and no filter.
    """

    id: str
    container_id: str
    container_pid: int
    cgroup: str
    args: tuple[str, ...]
    run_dir: str
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups_add: tuple[str, ...] = ()
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    open_stdin: bool = False
    stdin_once: bool = True
    privileged: bool = False
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    seccomp: str = "default"
    no_new_privileges: bool = False
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int = 0


@frozen
class Exit:
    """How a process ended: its status, or 128 + the signal that killed it; `finished_at` is Unix time in seconds.

    `oom_killed` says that the kernel killed something in the container's cgroup for want of memory.
    """

    code: int
    oom_killed: bool
    finished_at: float


@frozen
class HelperResult:
    """What a helper program left: its exit status (128 + signal when killed) and its output."""

    status: int
    stdout: bytes
    stderr: bytes
