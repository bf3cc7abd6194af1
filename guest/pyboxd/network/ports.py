"""Published ports: the host listens and forwards to a port of the guest's card, the packet rules send it on.

The host is asked first: its refusal is the caller's error, and nothing is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from ipaddress import IPv4Address

from pyboxd.errors import NotImplementedHere, PyboxdError, SystemFailure
from pyboxd.frozen import replace
from pyboxd.model import PortRequest, PublishedPort
from pyboxd.network import allocation, rules
from pyboxd.network.bridge import Fabric
from pyboxd.network.model import Port, PortPublisher
from pyboxd.network.store import StateStore

WILDCARDS = ("", "0.0.0.0", "::")
log = logging.getLogger(__name__)


class Ports:
    """The published ports of all containers."""

    def __init__(self, state: StateStore, fabric: Fabric, publisher: PortPublisher) -> None:
        self._state = state
        self._fabric = fabric
        self._publisher = publisher
        self._promised: set[tuple[str, int]] = set()  # (protocol, guest port), while the host is being asked
        self._last = {"tcp": 0, "udp": 0}

    async def publish(
        self, container_id: str, address: IPv4Address, requests: Sequence[PortRequest], owner: str
    ) -> tuple[PublishedPort, ...]:
        """Publish all or none; `owner` names the endpoint in an error."""
        ports: list[Port] = []
        with self._guest_ports(requests) as guest_ports:
            async with AsyncExitStack() as undo:
                for request, guest_port in zip(requests, guest_ports, strict=True):
                    port = await self._listen(container_id, request, guest_port, owner)
                    undo.push_async_callback(self._release, port)
                    ports.append(self._with_reach(port, ports))
                self._fabric.add_ports(port_rules(ports, address))
                undo.callback(self._fabric.delete_ports, port_rules(ports, address))
                self._state.add_ports(ports)
                undo.pop_all()
        return tuple(port.published() for port in ports)

    async def withdraw(self, container_id: str, address: IPv4Address) -> None:
        """Undo `publish`, step by step so that a second call goes on where a failed one ended."""
        ports = self._state.ports(container_id)
        self._fabric.delete_ports(port_rules(ports, address))
        self._state.remove_ports(container_id)
        for port in ports:
            await self._release(port)

    def move(self, container_id: str, old: IPv4Address, new: IPv4Address) -> None:
        """Send a container's ports to another of its addresses; the host notices nothing."""
        ports = self._state.ports(container_id)
        self._fabric.delete_ports(port_rules(ports, old))
        self._fabric.add_ports(port_rules(ports, new))

    async def republish(self) -> None:
        """Ask the host again for all ports, when it may have forgotten them. One that it cannot have any more is
        told in the log and asked for again the next time."""
        for port in self._state.ports():
            try:
                bound_ip, _ = await self._publisher.publish(port.protocol, port.asked_ip, port.host_port, port.guest_port)
            except (PyboxdError, OSError) as error:
                log.warning("container %s lost a published port: %s", port.container_id[:12], error)
                continue
            self._state.set_bound_ip(port, bound_ip)

    async def _listen(self, container_id: str, request: PortRequest, guest_port: int, owner: str) -> Port:
        self._check_free(request, owner)
        bound_ip, host_port = await self._publisher.publish(request.protocol, request.host_ip, request.host_port, guest_port)
        return Port(
            container_id=container_id,
            container_port=request.container_port,
            protocol=request.protocol,
            guest_port=guest_port,
            asked_ip=request.host_ip,
            bound_ip=bound_ip,
            host_port=host_port,
            reachable=request.host_ip in WILDCARDS,
        )

    def _check_free(self, request: PortRequest, owner: str) -> None:
        """Refuse a port of another container in Docker's words; the host would refuse it in others."""
        if not request.host_port:
            return
        wanted = (request.protocol, request.host_port)
        for port in self._state.ports():
            same = request.host_ip == port.asked_ip or {request.host_ip, port.asked_ip} & set(WILDCARDS)
            if same and (port.protocol, port.host_port) == wanted:
                shown = f"{request.host_ip or '0.0.0.0'}:{request.host_port}"
                raise SystemFailure(
                    f"driver failed programming external connectivity on endpoint {owner}: "
                    f"Bind for {shown} failed: port is already allocated"
                )

    def _with_reach(self, port: Port, others: Sequence[Port]) -> Port:
        """Two ports of the host can differ in their address only; the guest's addresses then lead to the first."""
        key = (port.protocol, port.host_port)
        taken = any(
            other.reachable and (other.protocol, other.host_port) == key for other in (*others, *self._state.ports())
        )
        return replace(port, reachable=port.reachable and not taken)

    @contextmanager
    def _guest_ports(self, requests: Sequence[PortRequest]) -> Iterator[tuple[int, ...]]:
        """Free ports of the guest's card, one for each request in its order; nobody else gets them inside."""
        promised: list[tuple[str, int]] = []
        try:
            for request in requests:
                if request.protocol not in self._last:
                    raise NotImplementedHere(f"ports of the protocol {request.protocol} cannot be published")
                promised.append((request.protocol, self._next(request.protocol)))
            yield tuple(port for _, port in promised)
        finally:
            self._promised.difference_update(promised)

    def _next(self, protocol: str) -> int:
        taken = {port.guest_port for port in self._state.ports() if port.protocol == protocol}
        taken.update(port for kind, port in self._promised if kind == protocol)
        port = allocation.free_port(taken, self._last[protocol])
        self._last[protocol] = port
        self._promised.add((protocol, port))
        return port

    async def _release(self, port: Port) -> None:
        try:
            await self._publisher.release(port.protocol, port.bound_ip, port.host_port)
        except (PyboxdError, OSError) as error:
            log.warning("the host did not release %s/%d: %s", port.protocol, port.host_port, error)


def port_rules(ports: Sequence[Port], address: IPv4Address) -> list[rules.PortRules]:
    """The ports of a container with that address, for the packet rules."""
    return [
        rules.PortRules(
            protocol=port.protocol,
            guest_port=port.guest_port,
            address=address,
            container_port=port.container_port,
            host_port=port.host_port,
            reachable=port.reachable,
        )
        for port in ports
    ]
