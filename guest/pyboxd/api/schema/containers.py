"""Docker's JSON of containers: `GET /containers/json` and `GET /containers/{id}/json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyboxd.api.fields import JsonObject
from pyboxd.api.schema.config import CONFIG, encode_host_config
from pyboxd.engine.model import Health, MountPoint, NetworkView, Record, State, Status
from pyboxd.engine.timestamps import rfc3339
from pyboxd.frozen import frozen
from pyboxd.model import PublishedPort

_NANO = 10**9
DRIVER = "overlay2"  # the name under which clients know overlayfs


@frozen
class Sizes:
    """Bytes: of the writable layer, and of all a container sees."""

    writable: int
    whole: int


@frozen
class Paths:
    """Places of a container's files in the guest."""

    directory: str
    log: str
    upper: str
    work: str


def summary(record: Record, image_name: str, views: Sequence[NetworkView], now: int, sizes: Sizes | None) -> JsonObject:
    """One entry of the list; `now` is nanoseconds since the epoch."""
    value: JsonObject = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": image_name,
        "ImageID": record.image_id,
        "Command": _command_line(record.command),
        "Created": record.created // _NANO,
        "Ports": _ports(record, views),
        "Labels": dict(record.config.labels),
        "State": record.state.status,
        "Status": status_text(record.state, now),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {"Networks": {view.network: network_settings(view) for view in views}},
        "Mounts": [mount(point) for point in record.mounts if point.shown],
    }
    if record.host.annotations:
        value["HostConfig"]["Annotations"] = dict(record.host.annotations)
    if sizes is not None:
        value |= {"SizeRw": sizes.writable, "SizeRootFs": sizes.whole}
    return value


def _command_line(command: Sequence[str]) -> str:
    path, *arguments = command
    return " ".join([path, *(f"'{text}'" if " " in text else text for text in arguments)])


def _ports(record: Record, views: Sequence[NetworkView]) -> list[JsonObject]:
    """Published ports of a running container, and exposed ones without a publication."""
    if not record.state.running:
        return []
    found = []
    published = [port for view in views for port in view.ports]
    for port in published:
        found.append(
            {
                "IP": port.host_ip,
                "PrivatePort": port.container_port,
                "PublicPort": port.host_port,
                "Type": port.protocol,
            }
        )
    bound = {f"{port.container_port}/{port.protocol}" for port in published}
    for text in record.config.exposed_ports:
        number, _, protocol = text.partition("/")
        if text not in bound and number.isdigit():
            found.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return found


def status_text(state: State, now: int) -> str:
    """The text of the column STATUS (moby, container/state.go: String)."""
    up = human_duration(now - state.started_at)
    if state.status == Status.PAUSED:
        return f"Up {up} (Paused)"
    if state.status == Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
    if state.status == Status.RUNNING:
        if state.health is None:
            return f"Up {up}"
        starting = state.health.status == "starting"
        return f"Up {up} ({'health: starting' if starting else state.health.status})"
    if state.status == Status.REMOVING:
        return "Removal In Progress"
    if state.status == Status.DEAD:
        return "Dead"
    if not state.started_at:
        return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


def human_duration(nanoseconds: int) -> str:
    """docker/go-units: HumanDuration."""
    seconds = max(nanoseconds, 0) // _NANO
    minutes, hours = seconds // 60, int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, size in ((24 * 14, "days", 24), (24 * 60, "weeks", 24 * 7), (24 * 730, "months", 24 * 30)):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{hours // 24 // 365} years"


def mount(point: MountPoint) -> JsonObject:
    """One entry of `Mounts`."""
    value: JsonObject = {"Type": point.type}
    if point.name:
        value["Name"] = point.name
    value |= {"Source": point.source, "Destination": point.destination}
    if point.driver:
        value["Driver"] = point.driver
    return value | {"Mode": point.mode, "RW": point.writable, "Propagation": point.propagation}


def network_settings(view: NetworkView) -> JsonObject:
    """One entry of `Networks`."""
    config = view.config
    addressing: JsonObject = {"IPv4Address": config.ipv4_address} if config.ipv4_address else {}
    if config.ipv6_address:
        addressing["IPv6Address"] = config.ipv6_address
    if config.link_local:
        addressing["LinkLocalIPs"] = list(config.link_local)
    return {
        "IPAMConfig": addressing or None,
        "Links": list(config.links) or None,
        "Aliases": list(config.aliases) or None,
        "MacAddress": view.mac or config.mac_address,
        "DriverOpts": dict(config.driver_options) or None,
        "GwPriority": 0,
        "NetworkID": view.network_id,
        "EndpointID": view.endpoint_id,
        "Gateway": view.gateway,
        "IPAddress": view.address,
        "IPPrefixLen": view.prefix,
        "IPv6Gateway": view.gateway6,
        "GlobalIPv6Address": view.address6,
        "GlobalIPv6PrefixLen": view.prefix6,
        "DNSNames": list(view.dns_names) or None,
    }


def inspect(
    record: Record, paths: Paths, views: Sequence[NetworkView], exec_ids: Sequence[str], sizes: Sizes | None
) -> JsonObject:
    """All there is to say about a container."""
    path, *arguments = record.command
    value: JsonObject = {
        "Id": record.id,
        "Created": rfc3339(record.created),
        "Path": path,
        "Args": arguments,
        "State": _state(record.state),
        "Image": record.image_id,
        "ResolvConfPath": f"{paths.directory}/resolv.conf",
        "HostnamePath": f"{paths.directory}/hostname",
        "HostsPath": f"{paths.directory}/hosts",
        "LogPath": paths.log if record.host.log_config.type != "none" else "",
        "Name": f"/{record.name}",
        "RestartCount": record.state.restart_count,
        "Driver": DRIVER,
        "Platform": record.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": encode_host_config(record.host),
        "GraphDriver": {"Name": DRIVER, "Data": {"UpperDir": paths.upper, "WorkDir": paths.work}},
        "Mounts": [mount(point) for point in record.mounts if point.shown],
        "Config": CONFIG.encode(record.config),
        "NetworkSettings": _all_network_settings(record, views),
    }
    if sizes is not None:
        value |= {"SizeRw": sizes.writable, "SizeRootFs": sizes.whole}
    return value


def _state(state: State) -> JsonObject:
    value: JsonObject = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.status == Status.PAUSED,
        "Restarting": state.status == Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.health is not None:
        value["Health"] = health(state.health)
    return value


def health(state: Health) -> JsonObject:
    """`State.Health`."""
    return {
        "Status": state.status,
        "FailingStreak": state.failing_streak,
        "Log": [
            {
                "Start": rfc3339(result.start),
                "End": rfc3339(result.end),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in state.log
        ],
    }


def _all_network_settings(record: Record, views: Sequence[NetworkView]) -> JsonObject:
    """`NetworkSettings`: the networks, and the default bridge's addresses once more at the top for old clients."""
    first = next((view for view in views if view.network == "bridge"), None)
    namespace = next((view.namespace for view in views if view.namespace), "")
    return {
        "Bridge": "",
        "SandboxID": namespace.rpartition("/")[2],
        "SandboxKey": namespace,
        "Ports": port_map(record, [port for view in views for port in view.ports]),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.endpoint_id if first else "",
        "Gateway": first.gateway if first else "",
        "GlobalIPv6Address": first.address6 if first else "",
        "GlobalIPv6PrefixLen": first.prefix6 if first else 0,
        "IPAddress": first.address if first else "",
        "IPPrefixLen": first.prefix if first else 0,
        "IPv6Gateway": first.gateway6 if first else "",
        "MacAddress": first.mac if first else "",
        "Networks": {view.network: network_settings(view) for view in views},
    }


def port_map(record: Record, published: Iterable[PublishedPort]) -> JsonObject:
    """`Ports`: published ones with their places on the host, exposed ones with null; empty when it does not run."""
    if not record.state.running:
        return {}
    found: JsonObject = {text if "/" in text else f"{text}/tcp": None for text in record.config.exposed_ports}
    for port in published:
        key = f"{port.container_port}/{port.protocol}"
        places = found.get(key) or []
        found[key] = [*places, {"HostIp": port.host_ip, "HostPort": str(port.host_port)}]
    return found
