"""Docker's JSON of `Config`, `HostConfig` and `NetworkingConfig` <-> `engine.model`."""

from __future__ import annotations

from typing import Any

from pyboxd.api.fields import (
    COMMAND,
    FLAG,
    INTEGER,
    KEYS,
    KEYS_OR_NULL,
    PAIRS,
    TEXT,
    TEXTS,
    TEXTS_OR_NULL,
    Field,
    JsonObject,
    Kind,
    Table,
    given,
    list_of,
    optional,
    read_list,
    read_object,
    wrong_type,
)
from pyboxd.engine.model import (
    ContainerConfig,
    CreateRequest,
    DeviceMapping,
    DeviceRequest,
    EndpointConfig,
    HostConfig,
    Limits,
    LogConfig,
    MountRequest,
    PortBinding,
    PortBindings,
    RestartPolicy,
    ThrottleDevice,
    Ulimit,
    WeightDevice,
)
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import replace
from pyboxd.model import Healthcheck

HEALTHCHECK = Table(
    Healthcheck,
    "HealthcheckConfig",
    Field("Test", "test", TEXTS, omit_empty=True),
    Field("Interval", "interval", INTEGER, omit_empty=True),
    Field("Timeout", "timeout", INTEGER, omit_empty=True),
    Field("StartPeriod", "start_period", INTEGER, omit_empty=True),
    Field("StartInterval", "start_interval", INTEGER, omit_empty=True),
    Field("Retries", "retries", INTEGER, omit_empty=True),
)

CONFIG = Table(
    ContainerConfig,
    "Config",
    Field("Hostname", "hostname", TEXT),
    Field("Domainname", "domainname", TEXT),
    Field("User", "user", TEXT),
    Field("AttachStdin", "attach_stdin", FLAG),
    Field("AttachStdout", "attach_stdout", FLAG),
    Field("AttachStderr", "attach_stderr", FLAG),
    Field("ExposedPorts", "exposed_ports", KEYS, omit_empty=True),
    Field("Tty", "tty", FLAG),
    Field("OpenStdin", "open_stdin", FLAG),
    Field("StdinOnce", "stdin_once", FLAG),
    Field("Env", "env", TEXTS),
    Field("Cmd", "cmd", COMMAND),
    Field("Healthcheck", "healthcheck", HEALTHCHECK.kind(), omit_empty=True),
    Field("Image", "image", TEXT),
    Field("Volumes", "volumes", KEYS_OR_NULL),
    Field("WorkingDir", "working_dir", TEXT),
    Field("Entrypoint", "entrypoint", COMMAND),
    Field("NetworkDisabled", "network_disabled", FLAG, omit_empty=True),
    Field("MacAddress", "mac_address", TEXT, omit_empty=True),
    Field("OnBuild", "on_build", Kind(TEXTS.decode, lambda value: list(value) or None)),
    Field("Labels", "labels", PAIRS),
    Field("StopSignal", "stop_signal", TEXT, omit_empty=True),
    Field("StopTimeout", "stop_timeout", INTEGER, omit_none=True),
    Field("Shell", "shell", COMMAND, omit_empty=True),
)

RESTART_POLICY = Table(
    RestartPolicy,
    "RestartPolicy",
    Field("Name", "name", TEXT),
    Field("MaximumRetryCount", "maximum_retry_count", INTEGER),
)
_LOG_CONFIG = Table(LogConfig, "LogConfig", Field("Type", "type", TEXT), Field("Config", "config", PAIRS))
_ULIMIT = Table(
    lambda name="", soft=0, hard=0: Ulimit(name, soft, hard),
    "Ulimit",
    Field("Name", "name", TEXT),
    Field("Hard", "hard", INTEGER),
    Field("Soft", "soft", INTEGER),
)
_DEVICE = Table(
    lambda path_on_host="", path_in_container="", permissions="rwm": DeviceMapping(
        path_on_host, path_in_container or path_on_host, permissions or "rwm"
    ),
    "DeviceMapping",
    Field("PathOnHost", "path_on_host", TEXT),
    Field("PathInContainer", "path_in_container", TEXT),
    Field("CgroupPermissions", "permissions", TEXT),
)
_DEVICE_REQUEST = Table(
    DeviceRequest,
    "DeviceRequest",
    Field("Driver", "driver", TEXT),
    Field("Capabilities", "capabilities", list_of(TEXTS, "[]string")),
)
_WEIGHT = Table(
    lambda path="", weight=0: WeightDevice(path, weight),
    "WeightDevice",
    Field("Path", "path", TEXT),
    Field("Weight", "weight", INTEGER),
)
_THROTTLE = Table(
    lambda path="", rate=0: ThrottleDevice(path, rate),
    "ThrottleDevice",
    Field("Path", "path", TEXT),
    Field("Rate", "rate", INTEGER),
)
_THROTTLES = list_of(_THROTTLE.kind())

LIMITS = Table(
    Limits,
    "Resources",
    Field("CpuShares", "cpu_shares", INTEGER),
    Field("Memory", "memory", INTEGER),
    Field("NanoCpus", "nano_cpus", INTEGER),
    Field("BlkioWeight", "blkio_weight", INTEGER),
    Field("BlkioWeightDevice", "blkio_weight_device", list_of(_WEIGHT.kind())),
    Field("BlkioDeviceReadBps", "blkio_device_read_bps", _THROTTLES),
    Field("BlkioDeviceWriteBps", "blkio_device_write_bps", _THROTTLES),
    Field("BlkioDeviceReadIOps", "blkio_device_read_iops", _THROTTLES),
    Field("BlkioDeviceWriteIOps", "blkio_device_write_iops", _THROTTLES),
    Field("CpuPeriod", "cpu_period", INTEGER),
    Field("CpuQuota", "cpu_quota", INTEGER),
    Field("CpuRealtimePeriod", "cpu_realtime_period", INTEGER),
    Field("CpuRealtimeRuntime", "cpu_realtime_runtime", INTEGER),
    Field("CpusetCpus", "cpuset_cpus", TEXT),
    Field("CpusetMems", "cpuset_mems", TEXT),
    Field("KernelMemory", "kernel_memory", INTEGER, omit_empty=True),
    Field("MemoryReservation", "memory_reservation", INTEGER),
    Field("MemorySwap", "memory_swap", INTEGER),
    Field("MemorySwappiness", "memory_swappiness", optional(INTEGER)),
    Field("OomKillDisable", "oom_kill_disable", optional(FLAG)),
    Field("PidsLimit", "pids_limit", optional(INTEGER)),
)

_BIND_OPTIONS = ("Propagation", "NonRecursive", "CreateMountpoint")


def _decode_mount(value: object, place: str) -> MountRequest:
    """One entry of `Mounts`, whose options are in an object per type."""
    data = {key.lower(): content for key, content in read_object(value, place).items() if content is not None}

    def part(name: str) -> JsonObject:
        return read_object(data.get(name.lower(), {}), f"Mount.{name}")

    def read(source: JsonObject, key: str, kind: Kind, default: Any) -> Any:
        content = source.get(key)
        return default if content is None else kind.decode(content, f"Mount.{key}")

    bind, volume, tmpfs = part("BindOptions"), part("VolumeOptions"), part("TmpfsOptions")
    driver = read_object(given(volume, "DriverConfig", {}), "VolumeOptions.DriverConfig")
    return MountRequest(
        type=read(data, "type", TEXT, ""),
        source=read(data, "source", TEXT, ""),
        target=read(data, "target", TEXT, ""),
        read_only=read(data, "readonly", FLAG, False),
        consistency=read(data, "consistency", TEXT, ""),
        propagation=read(bind, "Propagation", TEXT, ""),
        non_recursive=read(bind, "NonRecursive", FLAG, False),
        create_mountpoint=read(bind, "CreateMountpoint", FLAG, False),
        no_copy=read(volume, "NoCopy", FLAG, False),
        labels=read(volume, "Labels", PAIRS, ()),
        subpath=read(volume, "Subpath", TEXT, ""),
        driver=read(driver, "Name", TEXT, ""),
        driver_options=read(driver, "Options", PAIRS, ()),
        tmpfs_size=read(tmpfs, "SizeBytes", INTEGER, 0),
        tmpfs_mode=read(tmpfs, "Mode", INTEGER, 0),
        tmpfs_options=read(tmpfs, "Options", list_of(TEXTS, "[]string"), ()),
    )


def _encode_mount(mount: MountRequest) -> JsonObject:
    value: JsonObject = {"Type": mount.type}
    for key, content in (("Source", mount.source), ("Target", mount.target), ("ReadOnly", mount.read_only)):
        if content:
            value[key] = content
    bind = {
        key: content
        for key, content in zip(
            _BIND_OPTIONS, (mount.propagation, mount.non_recursive, mount.create_mountpoint), strict=True
        )
        if content
    }
    if bind:
        value["BindOptions"] = bind
    volume: JsonObject = {}
    if mount.no_copy:
        volume["NoCopy"] = True
    if mount.labels:
        volume["Labels"] = dict(mount.labels)
    if mount.subpath:
        volume["Subpath"] = mount.subpath
    if mount.driver or mount.driver_options:
        volume["DriverConfig"] = {"Name": mount.driver, "Options": dict(mount.driver_options)}
    if volume:
        value["VolumeOptions"] = volume
    if mount.tmpfs_size or mount.tmpfs_mode:
        value["TmpfsOptions"] = {"SizeBytes": mount.tmpfs_size, "Mode": mount.tmpfs_mode}
    return value


def _decode_bindings(value: object, place: str) -> tuple[PortBindings, ...]:
    return tuple(
        PortBindings(
            port if "/" in port else f"{port}/tcp",
            tuple(_decode_binding(item, place) for item in read_list(items, place, "[]nat.PortBinding")) if items else (),
        )
        for port, items in read_object(value, place).items()
    )


def _decode_binding(value: object, place: str) -> PortBinding:
    data = read_object(value, place)
    host_port = given(data, "HostPort", "")
    if isinstance(host_port, int) and not isinstance(host_port, bool):  # docker-py of old, and people with curl
        host_port = str(host_port)
    return PortBinding(
        TEXT.decode(given(data, "HostIp", ""), "PortBinding.HostIp"), TEXT.decode(host_port, "PortBinding.HostPort")
    )


def _encode_bindings(value: tuple[PortBindings, ...]) -> JsonObject:
    return {
        entry.port: [{"HostIp": binding.host_ip, "HostPort": binding.host_port} for binding in entry.bindings]
        for entry in value
    }


def _decode_console(value: object, place: str) -> tuple[int, int]:
    numbers = [INTEGER.decode(item, place) for item in read_list(value, place, "[2]uint")]
    rows, columns, *_ = (*numbers, 0, 0)
    return rows, columns


CONSOLE_SIZE = Kind(_decode_console, list)

HOST_CONFIG = Table(
    HostConfig,
    "HostConfig",
    Field("Binds", "binds", TEXTS_OR_NULL),
    Field("LogConfig", "log_config", _LOG_CONFIG.kind()),
    Field("NetworkMode", "network_mode", TEXT),
    Field("PortBindings", "port_bindings", Kind(_decode_bindings, _encode_bindings)),
    Field("RestartPolicy", "restart_policy", RESTART_POLICY.kind()),
    Field("AutoRemove", "auto_remove", FLAG),
    Field("VolumeDriver", "volume_driver", TEXT),
    Field("VolumesFrom", "volumes_from", TEXTS_OR_NULL),
    Field("Mounts", "mounts", list_of(Kind(_decode_mount, _encode_mount)), omit_empty=True),
    Field("ConsoleSize", "console_size", CONSOLE_SIZE),
    Field("Annotations", "annotations", PAIRS, omit_empty=True),
    Field("CapAdd", "cap_add", TEXTS_OR_NULL),
    Field("CapDrop", "cap_drop", TEXTS_OR_NULL),
    Field("CgroupnsMode", "cgroupns_mode", TEXT),
    Field("Dns", "dns", TEXTS),
    Field("DnsOptions", "dns_options", TEXTS),
    Field("DnsSearch", "dns_search", TEXTS),
    Field("ExtraHosts", "extra_hosts", TEXTS_OR_NULL),
    Field("GroupAdd", "group_add", TEXTS_OR_NULL),
    Field("IpcMode", "ipc_mode", TEXT),
    Field("Cgroup", "cgroup", TEXT),
    Field("Links", "links", TEXTS_OR_NULL),
    Field("OomScoreAdj", "oom_score_adj", INTEGER),
    Field("PidMode", "pid_mode", TEXT),
    Field("Privileged", "privileged", FLAG),
    Field("PublishAllPorts", "publish_all_ports", FLAG),
    Field("ReadonlyRootfs", "readonly_rootfs", FLAG),
    Field("SecurityOpt", "security_opt", TEXTS_OR_NULL),
    Field("StorageOpt", "storage_opt", PAIRS, omit_empty=True),
    Field("Tmpfs", "tmpfs", PAIRS, omit_empty=True),
    Field("UTSMode", "uts_mode", TEXT),
    Field("UsernsMode", "userns_mode", TEXT),
    Field("ShmSize", "shm_size", INTEGER),
    Field("Sysctls", "sysctls", PAIRS, omit_empty=True),
    Field("Runtime", "runtime", TEXT),
    Field("Isolation", "isolation", TEXT),
    Field("Init", "init", FLAG, omit_none=True),
    Field("CgroupParent", "cgroup_parent", TEXT),
    Field("Devices", "devices", list_of(_DEVICE.kind())),
    Field("DeviceCgroupRules", "device_cgroup_rules", TEXTS_OR_NULL),
    Field("DeviceRequests", "device_requests", Kind(list_of(_DEVICE_REQUEST.kind()).decode, lambda value: None)),
    Field("Ulimits", "ulimits", list_of(_ULIMIT.kind())),
    Field("MaskedPaths", "masked_paths", TEXTS_OR_NULL),
    Field("ReadonlyPaths", "readonly_paths", TEXTS_OR_NULL),
)
# Windows only; shown with their zero values because clients read them.
_ALWAYS_ZERO = ("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth")


def decode_host_config(value: object) -> HostConfig:
    """`HostConfig`, whose resources are keys among the others. InvalidArgument."""
    return replace(HOST_CONFIG.decode(value), limits=LIMITS.decode(value, "HostConfig"))


def encode_host_config(host: HostConfig) -> JsonObject:
    """As `inspect` shows it."""
    value = HOST_CONFIG.encode(host) | LIMITS.encode(host.limits)
    return value | dict.fromkeys(_ALWAYS_ZERO, 0)


def decode_endpoint(network: str, value: object) -> EndpointConfig:
    """One entry of `EndpointsConfig`, also `EndpointConfig` of a connect."""
    data = read_object({} if value is None else value, "EndpointSettings")
    addressing = read_object(given(data, "IPAMConfig", {}), "EndpointSettings.IPAMConfig")

    def read(source: JsonObject, key: str, kind: Kind, default: Any) -> Any:
        content = source.get(key)
        return default if content is None else kind.decode(content, f"EndpointSettings.{key}")

    return EndpointConfig(
        network=network,
        aliases=read(data, "Aliases", TEXTS, ()),
        links=read(data, "Links", TEXTS, ()),
        ipv4_address=read(addressing, "IPv4Address", TEXT, ""),
        ipv6_address=read(addressing, "IPv6Address", TEXT, ""),
        link_local=read(addressing, "LinkLocalIPs", TEXTS, ()),
        mac_address=read(data, "MacAddress", TEXT, ""),
        driver_options=read(data, "DriverOpts", PAIRS, ()),
    )


def decode_create(value: object, name: str, platform: str) -> CreateRequest:
    """The body of POST /containers/create. InvalidArgument."""
    if value is None:
        raise InvalidArgument("config cannot be empty in order to create a container")
    data = read_object(value, "ContainerCreateConfig")
    keys = {key.lower(): content for key, content in data.items()}
    networking = read_object(given(keys, "networkingconfig", {}), "NetworkingConfig")
    endpoints = read_object(given(networking, "EndpointsConfig", {}), "NetworkingConfig.EndpointsConfig")
    return CreateRequest(
        config=CONFIG.decode(data),
        host=decode_host_config(given(keys, "hostconfig", {})),
        endpoints=tuple(decode_endpoint(network, content) for network, content in endpoints.items()),
        name=name,
        platform=platform,
    )


def decode_limits_update(value: object) -> tuple[dict[str, Any], RestartPolicy | None]:
    """The body of POST …/update: the limits that are to change, and the new policy if there is one."""
    data = read_object(value, "UpdateConfig")
    keys = {key.lower(): content for key, content in data.items()}
    policy = keys.get("restartpolicy")
    if policy is not None and not isinstance(policy, dict):
        raise wrong_type(policy, "UpdateConfig.RestartPolicy", "container.RestartPolicy")
    return LIMITS.given(data), RESTART_POLICY.decode(policy) if policy and policy.get("Name") else None
