"""Docker's JSON about the engine itself: version, info, disk usage."""

from __future__ import annotations

from collections.abc import Sequence

from pyboxd.api.fields import JsonObject
from pyboxd.engine.timestamps import rfc3339
from pyboxd.frozen import frozen


@frozen
class Release:
    """What this engine is."""

    version: str
    api_version: str
    min_api_version: str
    kernel: str
    architecture: str  # as Go says: amd64, arm64
    started_at: int  # nanoseconds since the epoch
    image: str  # id of the guest image


def version(release: Release) -> JsonObject:
    """GET /version."""
    details = {
        "ApiVersion": release.api_version,
        "Arch": release.architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": release.kernel,
        "MinAPIVersion": release.min_api_version,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "pybox"},
        "Components": [{"Name": "Engine", "Version": release.version, "Details": details}],
        "Version": release.version,
        "ApiVersion": release.api_version,
        "MinAPIVersion": release.min_api_version,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": release.architecture,
        "KernelVersion": release.kernel,
        "BuildTime": "",
    }


@frozen
class Facts:
    """What GET /info is made of beside the release."""

    id: str
    hostname: str
    machine: str  # as uname says: x86_64, aarch64
    cpus: int
    memory: int
    running: int
    paused: int
    stopped: int
    images: int
    warnings: Sequence[str]
    http_proxy: str
    https_proxy: str
    no_proxy: str
    insecure_registries: Sequence[str]
    registry_mirror: str
    now: int
    listeners: int


def info(release: Release, facts: Facts) -> JsonObject:
    """GET /info."""
    return {
        "ID": facts.id,
        "Containers": facts.running + facts.paused + facts.stopped,
        "ContainersRunning": facts.running,
        "ContainersPaused": facts.paused,
        "ContainersStopped": facts.stopped,
        "Images": facts.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "extfs"], ["Lower Filesystem", "erofs"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "local"],
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "Debug": False,
        "NFd": 0,
        "OomKillDisable": False,
        "NGoroutines": 0,
        "SystemTime": rfc3339(facts.now),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "NEventsListener": facts.listeners,
        "KernelVersion": release.kernel,
        "OperatingSystem": f"pybox ({release.image})" if release.image else "pybox",
        "OSVersion": release.version,
        "OSType": "linux",
        "Architecture": facts.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(facts.insecure_registries, facts.registry_mirror),
        "NCPU": facts.cpus,
        "MemTotal": facts.memory,
        "GenericResources": None,
        "DockerRootDir": "/var/lib/pyboxd",
        "HttpProxy": facts.http_proxy,
        "HttpsProxy": facts.https_proxy,
        "NoProxy": facts.no_proxy,
        "Name": facts.hostname,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": release.version,
        "Runtimes": {"runc": {"path": "pyboxd"}},
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "pyboxd",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "DefaultAddressPools": None,
        "CDISpecDirs": [],
        "Warnings": list(facts.warnings) or None,
    }


def _registries(insecure: Sequence[str], mirror: str) -> JsonObject:
    mirrors = [f"https://{mirror}/"] if mirror else []
    configs: JsonObject = {name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure}
    configs["docker.io"] = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
    return {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": configs, "Mirrors": mirrors}


def disk_usage(
    layers: int | None,
    images: Sequence[JsonObject] | None,
    containers: Sequence[JsonObject] | None,
    volumes: Sequence[JsonObject] | None,
    cache: bool,
) -> JsonObject:
    """GET /system/df; None is what was not asked for."""
    value: JsonObject = {}
    if images is not None:
        value |= {"LayersSize": layers, "Images": images}
    if containers is not None:
        value["Containers"] = containers
    if volumes is not None:
        value["Volumes"] = volumes
    if cache:
        value["BuildCache"] = []
    return value
