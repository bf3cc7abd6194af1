"""Published ports: what this host listens on for containers. The forwarding itself is QEMU's.

QEMU does not say why it cannot listen, so the address is tried first with a socket of our own: the system's reason
goes to the user in Docker's words.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from pybox import hostos
from pybox.errors import PyboxError
from pybox.model import ForwardedPort

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


class Ports:
    """The published ports of one machine. They live as long as its QEMU; a guest that boots anew has none."""

    def __init__(self, forwarder: Forwarder, default_ip: str = "127.0.0.1") -> None:
        self._forwarder = forwarder
        self._default_ip = default_ip
        self._live: dict[tuple[str, str, int], ForwardedPort] = {}
        # One change at a time: two that want the same port must not both find it free.
        self._lock = asyncio.Lock()

    def live(self) -> tuple[ForwardedPort, ...]:
        """Return the ports that the host listens on, sorted."""
        return tuple(self._live[key] for key in sorted(self._live))

    async def publish(self, protocol: str, host_ip: str, host_port: int, guest_port: int) -> ForwardedPort:
        """Listen for a container: `host_ip` "" is the default, `host_port` 0 any free one.

        Asking again for what is there already changes nothing. Raises PortRefused.
        """
        wanted = ForwardedPort(protocol, host_ip or self._default_ip, host_port, guest_port)
        _check(wanted)
        async with self._lock:
            if self._live.get(_key(wanted)) == wanted:
                return wanted
            port = await (self._add(wanted) if host_port else self._add_any(wanted))
            self._live[_key(port)] = port
            return port

    async def release(self, protocol: str, host_ip: str, host_port: int) -> None:
        """Stop listening; nothing happens for a port that is not published."""
        async with self._lock:
            port = self._live.pop((protocol, host_ip or self._default_ip, host_port), None)
            if port is not None:
                await self._forwarder.remove_forward(port)

    async def release_all(self) -> None:
        """Stop listening on all ports: the guest that asked for them is gone."""
        async with self._lock:
            while self._live:
                _, port = self._live.popitem()
                await self._forwarder.remove_forward(port)

    async def _add(self, port: ForwardedPort) -> ForwardedPort:
        try_to_listen(port)
        try:
            await self._forwarder.add_forward(port)
        except PyboxError as error:
            raise PortRefused(_brief(port, "address already in use"), error.details or error.brief) from None
        return port

    async def _add_any(self, wanted: ForwardedPort) -> ForwardedPort:
        for left in reversed(range(_PICKS)):
            try:
                return await self._add(replace(wanted, host_port=try_to_listen(wanted)))
            except PortRefused:
                if not left:
                    raise
        raise AssertionError("unreachable")


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
    where = f"{port.host_ip}:{port.host_port}"
    protocol = port.protocol
    return (
        f"Ports are not available: exposing port {protocol.upper()} {where} -> 127.0.0.1:0: "
        f"listen {protocol} {where}: {reason}"
    )


def _check(port: ForwardedPort) -> None:
    if port.protocol not in _KINDS:
        raise PortRefused(f"Ports are not available: protocol {port.protocol!r} cannot be published")
    try:
        ipaddress.IPv4Address(port.host_ip)
    except ValueError:
        raise PortRefused(
            f"Ports are not available: {port.host_ip!r} is no IPv4 address of this host", "", "Use 127.0.0.1 or 0.0.0.0."
        ) from None
    for number, least in ((port.host_port, 0), (port.guest_port, 1)):
        if not least <= number <= 65535:
            raise PortRefused(f"Ports are not available: {number} is no port")


def _key(port: ForwardedPort) -> tuple[str, str, int]:
    return (port.protocol, port.host_ip, port.host_port)
