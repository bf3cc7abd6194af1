"""What people write after Docker's flags, parsed. Pure; every mistake is a UsageProblem in Docker's words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pybox.errors import UsageProblem

_SIZE = re.compile(r"(?i)^(-?\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


def size(text: str) -> int:
    """ "256m" -> bytes (binary multiples, as Docker's memory flags)."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageProblem(f"invalid size: '{text}'", resolution="Write a number with an optional unit: 256m, 2g.")
    power = "kmgtp".find(match.group(2).lower()) + 1 if match.group(2) else 0
    return int(float(match.group(1)) * 1024**power)


def nano_cpus(text: str) -> int:
    """ "0.5" -> 500000000."""
    try:
        return round(float(text) * 1e9)
    except ValueError:
        raise UsageProblem(f"failed to parse {text} as a rational number", resolution="Write --cpus 0.5") from None


_LIMITS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("memory", "Memory", size),
    ("memory_swap", "MemorySwap", lambda text: -1 if text == "-1" else size(text)),
    ("memory_reservation", "MemoryReservation", size),
    ("cpus", "NanoCpus", nano_cpus),
    ("cpu_shares", "CpuShares", int),
    ("cpu_quota", "CpuQuota", int),
    ("cpu_period", "CpuPeriod", int),
    ("cpu_rt_period", "CpuRealtimePeriod", int),
    ("cpu_rt_runtime", "CpuRealtimeRuntime", int),
    ("cpuset_cpus", "CpusetCpus", str),
    ("cpuset_mems", "CpusetMems", str),
    ("pids_limit", "PidsLimit", int),
    ("blkio_weight", "BlkioWeight", int),
)


def limits(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that were given: flags by name -> the API's Resources."""
    return {key: convert(flags[name]) for name, key, convert in _LIMITS if flags[name] is not None}


def duration(text: str) -> int:
    """ "1m30s" -> nanoseconds."""
    if not text or _DURATION.sub("", text):
        raise UsageProblem(f'time: invalid duration "{text}"', resolution="Write 30s, 1m30s, 500ms.")
    return round(sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION.findall(text)))


def ports(published: Iterable[str], exposed: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`-p` and `--expose` -> (ExposedPorts, PortBindings)."""
    opened: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for text in exposed:
        for port in _range(text.partition("/")[0], text):
            opened[f"{port}/{text.partition('/')[2] or 'tcp'}"] = {}
    for text in published:
        address, protocol, host_ports, container_ports = _publish(text)
        if len(container_ports) != len(host_ports) and len(host_ports) > 1:
            raise _invalid_port(text)
        for index, port in enumerate(container_ports):
            key = f"{port}/{protocol}"
            opened[key] = {}
            host = str(host_ports[index]) if index < len(host_ports) else ""
            bindings.setdefault(key, []).append({"HostIp": address, "HostPort": host})
    return opened, bindings


def _publish(text: str) -> tuple[str, str, list[int], list[int]]:
    body, _, protocol = text.partition("/")
    address = ""
    if body.startswith("["):
        address, _, body = body[1:].partition("]:")
    parts = body.split(":")
    if len(parts) == 3:
        address, *parts = parts
    if len(parts) > 2 or protocol.lower() not in ("", "tcp", "udp"):
        raise _invalid_port(text)
    host = _range(parts[0], text) if len(parts) == 2 and parts[0] else []
    return address, protocol.lower() or "tcp", host, _range(parts[-1], text)


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    try:
        numbers = range(int(first), int(last or first) + 1)
    except ValueError:
        raise _invalid_port(whole) from None
    if not numbers or not 0 < numbers[0] <= numbers[-1] < 65536:
        raise _invalid_port(whole)
    return list(numbers)


def _invalid_port(text: str) -> UsageProblem:
    return UsageProblem(
        f"invalid publish value: {text}",
        resolution="Write -p HOST:CONTAINER, -p ADDRESS:HOST:CONTAINER or -p CONTAINER.",
    )


def volume(text: str) -> str:
    """`-v`: a relative source ("./logs", ".") becomes absolute; names and Windows drives stay."""
    source, separator, rest = _split_volume(text)
    if separator and (source.startswith((".", "~")) or source == ""):
        if not source:
            raise UsageProblem(f"invalid volume specification: '{text}'", resolution="Write -v SOURCE:TARGET[:ro].")
        source = str(Path(source).expanduser().resolve())
    return f"{source}{separator}{rest}"


def _split_volume(text: str) -> tuple[str, str, str]:
    drive = re.match(r"^[A-Za-z]:[\\/]", text)
    start = 2 if drive else 0
    head, separator, rest = text[start:].partition(":")
    return text[:start] + head, separator, rest


def mount(text: str) -> dict[str, Any]:
    """`--mount type=bind,source=…,target=…,readonly` -> an entry of HostConfig.Mounts."""
    result: dict[str, Any] = {"Type": "volume"}
    for field in text.split(","):
        key, separator, value = field.partition("=")
        match key.strip().lower():
            case "type":
                result["Type"] = value
            case "source" | "src":
                result["Source"] = value
            case "target" | "dst" | "destination":
                result["Target"] = value
            case "readonly" | "ro":
                result["ReadOnly"] = not separator or value.lower() in ("true", "1")
            case "bind-propagation":
                result.setdefault("BindOptions", {})["Propagation"] = value
            case "bind-nonrecursive":
                result.setdefault("BindOptions", {})["NonRecursive"] = True
            case "volume-nocopy":
                result.setdefault("VolumeOptions", {})["NoCopy"] = not separator or value.lower() == "true"
            case "volume-subpath":
                result.setdefault("VolumeOptions", {})["Subpath"] = value
            case "tmpfs-size":
                result.setdefault("TmpfsOptions", {})["SizeBytes"] = size(value)
            case "tmpfs-mode":
                result.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
            case "consistency":
                pass  # kept by Docker for old Macs; means nothing here
            case _:
                raise UsageProblem(f"unexpected key '{key}' in '{field}'", resolution="See: pybox run --help")
    if "Target" not in result:
        raise UsageProblem(f'invalid argument "{text}" for "--mount" flag: target is required')
    source = str(result.get("Source", ""))
    if result["Type"] == "bind" and source.startswith((".", "~")):
        result["Source"] = str(Path(source).expanduser().resolve())
    return result


def environment(values: Iterable[str], files: Iterable[str], host: Mapping[str, str] | None = None) -> list[str]:
    """`-e` and `--env-file`: "NAME" alone takes the host's value, and is dropped if the host has none."""
    host = os.environ if host is None else host
    return [*_resolve(lines(files), host), *_resolve(values, host)]


def _resolve(texts: Iterable[str], host: Mapping[str, str]) -> list[str]:
    result = []
    for line in texts:
        if "=" in line:
            result.append(line)
        elif line in host:
            result.append(f"{line}={host[line]}")
    return result


def pairs(values: Iterable[str]) -> dict[str, str]:
    """ "k=v" lines -> dictionary; "k" alone has the empty value."""
    return {key: value for key, _, value in (text.partition("=") for text in values)}


def ulimit(text: str) -> dict[str, Any]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise UsageProblem(f"invalid ulimit argument: {text}", resolution="Write --ulimit nofile=1024:2048") from None


def device(text: str) -> dict[str, str]:
    parts = text.split(":")
    source, target, permissions = parts[0], parts[0], "rwm"
    if len(parts) > 1 and not set(parts[-1]) <= set("rwm"):
        target = parts[1]
    elif len(parts) > 1:
        permissions = parts[-1]
        target = parts[1] if len(parts) == 3 else source
    if len(parts) == 3:
        permissions = parts[2]
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def restart_policy(text: str) -> dict[str, Any]:
    name, _, count = text.partition(":")
    if name not in ("no", "always", "on-failure", "unless-stopped"):
        raise UsageProblem(f"invalid restart policy: unknown policy '{name}'")
    if count and not count.isdigit():
        raise UsageProblem("maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def throttle(text: str) -> dict[str, Any]:
    """`--device-read-bps /dev/vdb:1mb` -> {"Path", "Rate"}."""
    path, separator, rate = text.rpartition(":")
    if not separator:
        raise UsageProblem(f"bad format: {text}", resolution="Write PATH:RATE, for example /dev/vdb:1mb")
    return {"Path": path, "Rate": size(rate)}


def weight(text: str) -> dict[str, Any]:
    """`--blkio-weight-device /dev/vdb:500` -> {"Path", "Weight"}."""
    path, separator, number = text.rpartition(":")
    if not separator or not number.isdigit():
        raise UsageProblem(f"bad format: {text}", resolution="Write PATH:WEIGHT, for example /dev/vdb:500")
    return {"Path": path, "Weight": int(number)}


def gpus(text: str) -> dict[str, Any]:
    """`--gpus all` or `--gpus 2` -> an entry of HostConfig.DeviceRequests."""
    if text != "all" and not text.isdigit():
        raise UsageProblem(f"invalid value for --gpus: {text}", resolution="Write all, or a number.")
    return {"Driver": "", "Count": -1 if text == "all" else int(text), "Capabilities": [["gpu"]]}


def lines(files: Iterable[str]) -> list[str]:
    """The lines of files that are neither empty nor comments. UsageProblem when one cannot be read."""
    found: list[str] = []
    for name in files:
        try:
            text = Path(name).read_text()
        except OSError as error:
            raise UsageProblem(f"open {name}: {(error.strerror or '').lower()}") from error
        found += [line for line in map(str.lstrip, text.splitlines()) if line and not line.startswith("#")]
    return found
