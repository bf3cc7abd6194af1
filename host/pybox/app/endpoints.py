"""`run --network …`: the networks of a new container, and what it is in each of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pybox.app import options
from pybox.errors import UsageProblem

_NO_NETWORK_OF_ITS_OWN = ("default", "bridge", "host", "none")


def networks(flags: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The flags of networks -> (NetworkMode, EndpointsConfig).

    The flags about addresses and names (`--ip`, `--network-alias`, …) are those of the first network. UsageProblem.
    """
    named = [_parse(text) for text in flags["network"]] or [("default", {})]
    first, config = named[0]
    for key, value in _of_flags(flags, user_defined=is_user_defined(first)).items():
        if value and config.get(key):
            raise UsageProblem(f"conflicting options: --network {first} already says its {key}")
        config |= {key: value} if value else {}
    if len(named) == 1 and not config:
        return first, {}
    return first, {name: _endpoint(config) for name, config in named}


def is_user_defined(mode: str) -> bool:
    """Whether a network mode is the name of a network that somebody made."""
    return mode not in _NO_NETWORK_OF_ITS_OWN and not mode.startswith("container:")


def _of_flags(flags: Mapping[str, Any], *, user_defined: bool) -> dict[str, Any]:
    return {
        "Aliases": list(flags["network_alias"]),
        "Links": list(flags["link"]) if user_defined else [],
        "MacAddress": flags["mac_address"],
        "IPv4Address": flags["ip"],
        "IPv6Address": flags["ip6"],
        "LinkLocalIPs": list(flags["link_local_ip"]),
    }


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """ "net" or "name=net,alias=web,ip=10.5.0.2" -> the name, and what is wanted there."""
    if "=" not in text:
        return text, {}
    name, config = "", dict[str, Any]()
    for field in text.split(","):
        key, _, value = field.partition("=")
        match key.strip().lower():
            case "name":
                name = value
            case "alias":
                config.setdefault("Aliases", []).append(value)
            case "ip":
                config["IPv4Address"] = value
            case "ip6":
                config["IPv6Address"] = value
            case "mac-address":
                config["MacAddress"] = value
            case "link-local-ip":
                config.setdefault("LinkLocalIPs", []).append(value)
            case "driver-opt":
                config.setdefault("DriverOpts", {}).update(options.pairs([value]))
            case "gw-priority":
                config["GwPriority"] = _number(value)
            case _:
                raise UsageProblem(f"invalid field key {key}", f"--network {text}", "See: pybox run --help")
    if not name:
        raise UsageProblem("network name/id is not specified", f"--network {text}", "Write name=NETWORK,…")
    return name, config


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageProblem(f"invalid gw-priority: {text}", "", "It is a whole number.") from None


def _endpoint(config: Mapping[str, Any]) -> dict[str, Any]:
    addresses = {key: config[key] for key in ("IPv4Address", "IPv6Address", "LinkLocalIPs") if key in config}
    rest = {key: value for key, value in config.items() if key not in addresses}
    return {**rest, "IPAMConfig": addresses} if addresses else rest
