"""Published ports: what this host listens on for containers. The forwarding itself is QEMU's.

QEMU does not say why it cannot listen, so the address is tried first with a socket of our own: the system's reason
goes to the user in Docker's words.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from contextlib import closing
from typing import Protocol

from pybox import hostos
from pybox.errors import PyboxError
from pybox.forward.relay import Relay
from pybox.frozen import frozen, replace
from pybox.model import ForwardedPort

log = logging.getLogger(__name__)
_COUNTERPARTS = {"127.0.0.1": "::1", "0.0.0.0": "::"}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_PICKS = 5  # tries for a free port: between our look and QEMU's, somebody else may take it
# Docker's words are Go's, which are the C library's in lower case on Linux.
_WORDS = {
    errno.EADDRINUSE: "address already in use",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EADDRNOTAVAIL: "cannot assign requested address",
}
_HINTS = {
    errno.EADDRINUSE: "Another program listens there, or another container. Publish another port of the host.",
    errno.EACCES: "Ports below 1024 need a privilege that pybox does not have. Publish a higher one.",
    errno.EADDRNOTAVAIL: "The address is none of this host's. Use 127.0.0.1 or 0.0.0.0.",
}


class PortRefused(PyboxError):
    """The host cannot listen; `brief` is in Docker's words."""


class Forwarder(Protocol):
    """What does the forwarding: QEMU's monitor."""

    async def add_forward(self, port: ForwardedPort) -> None: ...

    async def remove_forward(self, port: ForwardedPort) -> None: ...


@frozen
class _Live:
    """A published port: what the guest asked for, what QEMU forwards, and a way to it from an IPv6 address."""

    port: ForwardedPort
    forward: ForwardedPort
    relay: Relay | None = None


class Ports:
    """The published ports of one machine. They live as long as its QEMU; a guest that boots anew has none.

    A TCP port on the default address is also there on IPv6's counterpart of it, where this host has one: programs take
    `localhost` for either.
    """

    def __init__(self, forwarder: Forwarder, default_ip: str = "127.0.0.1") -> None:
        self._forwarder = forwarder
        self._default_ip = default_ip
        self._live: dict[tuple[str, str, int], _Live] = {}
        # One change at a time: two that want the same port must not both find it free.
        self._lock = asyncio.Lock()

    def live(self) -> tuple[ForwardedPort, ...]:
        """Return the ports that the host listens on, sorted."""
        return tuple(self._live[key].port for key in sorted(self._live))

    async def publish(self, protocol: str, host_ip: str, host_port: int, guest_port: int) -> ForwardedPort:
        """Listen for a container: `host_ip` "" is the default, `host_port` 0 any free one.

        Asking again for what is there already changes nothing. Raises PortRefused.
        """
        wanted = ForwardedPort(protocol, host_ip or self._default_ip, host_port, guest_port)
        _check(wanted)
        async with self._lock:
            known = self._live.get(_key(wanted))
            if known is not None and known.port == wanted:
                return wanted
            made = await self._add_on_ipv6(wanted) if _is_ipv6(wanted.host_ip) else await self._add(wanted)
            if not host_ip and protocol == "tcp":
                made = replace(made, relay=await _counterpart(made.port))
            self._live[_key(made.port)] = made
            return made.port

    async def release(self, protocol: str, host_ip: str, host_port: int) -> None:
        """Stop listening; nothing happens for a port that is not published."""
        async with self._lock:
            found = self._live.pop((protocol, host_ip or self._default_ip, host_port), None)
            if found is not None:
                await self._remove(found)

    async def release_all(self) -> None:
        """Stop listening on all ports: the guest that asked for them is gone."""
        async with self._lock:
            while self._live:
                await self._remove(self._live.popitem()[1])

    def close(self) -> None:
        """Stop what listens here; what QEMU listens on ends with QEMU."""
        for item in self._live.values():
            if item.relay is not None:
                item.relay.close()

    async def _remove(self, item: _Live) -> None:
        if item.relay is not None:
            item.relay.close()
        await self._forwarder.remove_forward(item.forward)

    async def _add(self, wanted: ForwardedPort) -> _Live:
        """Have QEMU listen; a free port is looked for here, because QEMU does not tell which one it took."""
        for left in reversed(range(1 if wanted.host_port else _PICKS)):
            port = replace(wanted, host_port=try_to_listen(wanted))
            try:
                await self._forwarder.add_forward(port)
            except PyboxError as error:
                if not left:
                    raise PortRefused(_brief(port, "address already in use"), error.details or error.brief) from None
            else:
                return _Live(port, port)
        raise AssertionError("unreachable")

    async def _add_on_ipv6(self, wanted: ForwardedPort) -> _Live:
        if wanted.protocol != "tcp":
            raise PortRefused(
                f"Ports are not available: {wanted.protocol} cannot be published on {wanted.host_ip}",
                "On IPv6 addresses there is only tcp.",
                "Publish it on an IPv4 address.",
            )
        inner = (await self._add(replace(wanted, host_ip="127.0.0.1", host_port=0))).forward
        relay = Relay(inner.host_port)
        try:
            number = await relay.open(wanted.host_ip, wanted.host_port)
        except OSError as error:
            await self._forwarder.remove_forward(inner)
            raise _refusal(wanted, error) from None
        return _Live(replace(wanted, host_port=number), inner, relay)


async def _counterpart(port: ForwardedPort) -> Relay | None:
    """Listen on the IPv6 address that means the same as a port's IPv4 address; None where that cannot be."""
    address = _COUNTERPARTS.get(port.host_ip)
    if address is None:
        return None
    relay = Relay(port.host_port)
    try:
        await relay.open(address, port.host_port)
    except OSError as error:
        log.info("no port %d on %s: %s", port.host_port, address, error)
        return None
    return relay


def try_to_listen(port: ForwardedPort) -> int:
    """Listen on a port for a moment, and return its number (a free one for 0). Raises PortRefused."""
    with closing(socket.socket(socket.AF_INET, _KINDS[port.protocol])) as probe:
        if port.protocol == "tcp" and hostos.current().reuses_addresses:
            # As QEMU does: connections that ended a moment ago do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host_ip, port.host_port))
            if port.protocol == "tcp":
                probe.listen(1)
        except OSError as error:
            raise _refusal(port, error) from None
        return int(probe.getsockname()[1])


def _refusal(port: ForwardedPort, error: OSError) -> PortRefused:
    number = error.errno or 0
    words = _WORDS.get(number) or (error.strerror or str(error)).lower()
    return PortRefused(_brief(port, f"bind: {words}"), "", _HINTS.get(number, ""))


def _brief(port: ForwardedPort, reason: str) -> str:
    address = f"[{port.host_ip}]" if _is_ipv6(port.host_ip) else port.host_ip
    where = f"{address}:{port.host_port}"
    protocol = port.protocol
    return (
        f"Ports are not available: exposing port {protocol.upper()} {where} -> 127.0.0.1:0: "
        f"listen {protocol} {where}: {reason}"
    )


def _check(port: ForwardedPort) -> None:
    if port.protocol not in _KINDS:
        raise PortRefused(f"Ports are not available: protocol {port.protocol!r} cannot be published")
    try:
        ipaddress.ip_address(port.host_ip)
    except ValueError:
        raise PortRefused(
            f"Ports are not available: {port.host_ip!r} is no address of this host", "", "Use 127.0.0.1 or 0.0.0.0."
        ) from None
    for number, least in ((port.host_port, 0), (port.guest_port, 1)):
        if not least <= number <= 65535:
            raise PortRefused(f"Ports are not available: {number} is no port")


def _is_ipv6(address: str) -> bool:
    return ":" in address


def _key(port: ForwardedPort) -> tuple[str, str, int]:
    return (port.protocol, port.host_ip, port.host_port)
