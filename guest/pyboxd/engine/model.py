"""What a container is made of: frozen values, stored as they are and changed only by replacing them.

Maps are tuples of pairs, so that every value is immutable and has one form in the store. Sizes are bytes, times are
nanoseconds since the epoch (0: never), durations are nanoseconds unless the name says otherwise.
"""

from __future__ import annotations

from pyboxd.frozen import frozen
from pyboxd.model import Healthcheck, PublishedPort

Pairs = tuple[tuple[str, str], ...]


class Status:
    """Docker's names of a container's states; `lifecycle.TRANSITIONS` says which follow which."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    ALL = (CREATED, RUNNING, PAUSED, RESTARTING, REMOVING, EXITED, DEAD)


@frozen
class ContainerConfig:
    """Docker's `Config`: what the client asked for, after the image's values were merged in."""

    image: str = ""  # as the client wrote it
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] = ()
    labels: Pairs = ()
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    shell: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None


@frozen
class PortBinding:
    """Where a container's port is to be published; an empty `host_port` means any, "8000-8010" one of these."""

    host_ip: str = ""
    host_port: str = ""


@frozen
class PortBindings:
    """All bindings of one container port ("80/tcp")."""

    port: str
    bindings: tuple[PortBinding, ...] = ()


@frozen
class RestartPolicy:
    """`name` is no, always, unless-stopped or on-failure; the count is for on-failure, 0 is no limit."""

    name: str = ""
    maximum_retry_count: int = 0


@frozen
class LogConfig:
    """`--log-driver` and `--log-opt`."""

    type: str = ""
    config: Pairs = ()


@frozen
class DeviceMapping:
    """`--device`."""

    path_on_host: str
    path_in_container: str = ""
    permissions: str = "rwm"


@frozen
class Ulimit:
    """`--ulimit`; -1 is no limit."""

    name: str
    soft: int
    hard: int


@frozen
class WeightDevice:
    """`--blkio-weight-device`."""

    path: str
    weight: int


@frozen
class ThrottleDevice:
    """`--device-read-bps` and its like: bytes or requests a second."""

    path: str
    rate: int


@frozen
class DeviceRequest:
    """`--gpus`; kept only to refuse it in Docker's words."""

    driver: str = ""
    capabilities: tuple[tuple[str, ...], ...] = ()


@frozen
class MountRequest:
    """One entry of `HostConfig.Mounts` (`--mount`)."""

    type: str
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    no_copy: bool = False
    labels: Pairs = ()
    driver: str = ""
    driver_options: Pairs = ()
    subpath: str = ""
    tmpfs_size: int = 0
    tmpfs_mode: int = 0
    tmpfs_options: tuple[tuple[str, ...], ...] = ()


@frozen
class Limits:
    """The resource part of `HostConfig`: what `docker update` can change. 0, None and "" mean: not set."""

    memory: int = 0
    memory_swap: int = 0  # memory and swap together; -1 is no limit
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    kernel_memory: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0  # microseconds
    cpu_quota: int = 0  # microseconds
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    blkio_device_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_read_iops: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_iops: tuple[ThrottleDevice, ...] = ()


@frozen
class HostConfig:
    """Docker's `HostConfig` without its resources, which are in `limits`."""

    limits: Limits = Limits()
    binds: tuple[str, ...] | None = None
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: tuple[PortBindings, ...] = ()
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] | None = None
    mounts: tuple[MountRequest, ...] = ()
    console_size: tuple[int, int] = (0, 0)  # rows, columns
    annotations: Pairs = ()
    cap_add: tuple[str, ...] | None = None
    cap_drop: tuple[str, ...] | None = None
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    storage_opt: Pairs = ()
    tmpfs: Pairs = ()
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: Pairs = ()
    runtime: str = ""
    isolation: str = ""
    init: bool | None = None
    cgroup_parent: str = ""
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] | None = None
    device_requests: tuple[DeviceRequest, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    masked_paths: tuple[str, ...] | None = None  # None: Docker's
    readonly_paths: tuple[str, ...] | None = None


@frozen
class EndpointConfig:
    """What a container wants of one network; `network` is a name or an id."""

    network: str
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipv4_address: str = ""
    mac_address: str = ""
    driver_options: Pairs = ()
    link_local: tuple[str, ...] = ()  # further addresses, of 169.254.0.0/16
    ipv6_address: str = ""


@frozen
class CreateRequest:
    """POST /containers/create."""

    config: ContainerConfig
    host: HostConfig
    endpoints: tuple[EndpointConfig, ...] = ()
    name: str = ""
    platform: str = ""


@frozen
class MountPoint:
    """One mount of a container, resolved at creation.

    `source` is a host path (bind), a path of the guest (volume) or "" (tmpfs); `inspect` shows it as it is.
    """

    type: str  # bind | volume | tmpfs
    destination: str
    source: str = ""
    name: str = ""  # of the volume
    driver: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    recursive: bool = True
    create_source: bool = False  # a bind of `-v`: a missing source becomes a directory
    subpath: str = ""
    options: tuple[str, ...] = ()  # of a tmpfs
    shown: bool = True  # in the list `Mounts` of inspect; `--tmpfs` is not


@frozen
class HealthResult:
    """One run of a health check."""

    start: int
    end: int
    exit_code: int
    output: str


@frozen
class Health:
    """`status` is starting, healthy or unhealthy."""

    status: str = "starting"
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


@frozen
class State:
    """Where a container is in its life, and how its last run ended."""

    status: str = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    manually_stopped: bool = False
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Docker's `Running`: true also while paused, and between two attempts of a restart policy."""
        return self.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)


@frozen
class Record:
    """All of a container that outlives the engine."""

    id: str
    name: str
    created: int
    image_id: str
    image_name: str  # as listed: the reference, or the id when there was none
    platform: str
    config: ContainerConfig
    host: HostConfig
    endpoints: tuple[EndpointConfig, ...] = ()
    mounts: tuple[MountPoint, ...] = ()
    state: State = State()

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def command(self) -> tuple[str, ...]:
        """The whole command line: entry point, then arguments."""
        return (*(self.config.entrypoint or ()), *(self.config.cmd or ()))


@frozen
class NetworkView:
    """A container's place in one network as `inspect` shows it; addresses are "" while it does not run."""

    network: str  # its name
    config: EndpointConfig
    network_id: str = ""
    endpoint_id: str = ""
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    dns_names: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    namespace: str = ""
    address6: str = ""  # "" also in networks without IPv6
    prefix6: int = 0
    gateway6: str = ""
