"""`network create`: subnets, gateways, ranges and kept addresses, sorted by the subnet that each belongs to. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from pybox.errors import UsageProblem

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def pools(
    subnets: Iterable[str], gateways: Iterable[str], ranges: Iterable[str], kept: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The API's IPAM.Config, a pool for each subnet. UsageProblem, in docker's words, for what fits to none."""
    found: dict[_Network, dict[str, Any]] = {}
    for text in subnets:
        subnet = _network(text)
        if any(subnet.version == other.version and subnet.overlaps(other) for other in found):
            raise UsageProblem("multiple overlapping subnet configuration is not supported", f"{text} overlaps another.")
        found[subnet] = {"Subnet": text}
    if not found and (list(gateways) or list(ranges)):
        raise UsageProblem("every ip-range or gateway must have a corresponding subnet", "", "Add --subnet CIDR.")
    for text in ranges:
        _put(_pool(found, _network(text), f"no matching subnet for range {text}"), "IPRange", text)
    for text in gateways:
        _put(_pool(found, _address(text), f"no matching subnet for gateway {text}"), "Gateway", text)
    for name, text in kept.items():
        pool = _pool(found, _address(text), f"no matching subnet for aux-address {text}")
        pool.setdefault("AuxiliaryAddresses", {})[name] = text
    return list(found.values())


def _put(pool: dict[str, Any], key: str, text: str) -> None:
    if key in pool:
        kind = "ranges" if key == "IPRange" else "gateways"
        raise UsageProblem(f"cannot configure multiple {kind} ({text}, {pool[key]}) on the same subnet ({pool['Subnet']})")
    pool[key] = text


def _pool(found: Mapping[_Network, dict[str, Any]], wanted: _Network, problem: str) -> dict[str, Any]:
    for subnet, pool in found.items():
        if subnet.version == wanted.version and wanted.subnet_of(subnet):  # type: ignore[arg-type]
            return pool
    raise UsageProblem(problem)


def _network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageProblem(f"invalid CIDR address: {text}", "", "Write 10.5.0.0/16.") from None


def _address(text: str) -> _Network:
    """An address as the smallest network, which is in a subnet as a range is."""
    try:
        return ipaddress.ip_network(ipaddress.ip_address(text))
    except ValueError:
        raise UsageProblem(f"invalid IP address: {text}") from None
