"""The networks and what containers get from them: `Networks` is the room's face to the engine.

A container that is attached has a network namespace (`Sandbox`), in it one interface per network (`Endpoint`), and
published ports. Each step of an attachment undoes itself when a later one fails.

Kernel work (netlink, nftables) is a few milliseconds and is done on the event loop's thread, so it needs no lock;
only the host and the making of namespaces are waited for, and per container one call goes on at a time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from functools import partial
from weakref import WeakValueDictionary

from pyboxd import locations
from pyboxd.database import Database
from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, SystemFailure
from pyboxd.linux import netlink
from pyboxd.model import PortRequest
from pyboxd.network import bridge, definitions
from pyboxd.network.bridge import Fabric
from pyboxd.network.discovery import Discovery
from pyboxd.network.endpoints import Endpoints
from pyboxd.network.model import (
    NO_WISHES,
    Address,
    Attachment,
    Endpoint,
    Network,
    NetworkRequest,
    PortPublisher,
    Sandbox,
    Wishes,
)
from pyboxd.network.namespaces import Namespaces, enable_ipv6
from pyboxd.network.ports import Ports, port_rules
from pyboxd.network.store import NetworkStore, StateStore

log = logging.getLogger(__name__)
STATE_DATABASE = locations.RUN + "/network.db"
GUEST_NAMESPACE = "host"  # Attachment.netns_path of a container in the guest's own namespace


class Networks:
    """All networks and attachments. `database` is the engine's; what ends with the machine is kept in `state`.

    `state`, `fabric` and `namespaces` may be given when they were prepared before the database was there.
    """

    def __init__(
        self,
        database: Database,
        publisher: PortPublisher,
        *,
        state: Database | None = None,
        fabric: Fabric | None = None,
        namespaces: Namespaces | None = None,
    ) -> None:
        self._networks = NetworkStore(database)
        self._state = StateStore(state or Database(STATE_DATABASE))
        self._fabric = fabric or Fabric()
        self._namespaces = namespaces or Namespaces()
        self._ports = Ports(self._state, self._fabric, publisher)
        self._endpoints = Endpoints(self._networks, self._state)
        self._discovery = Discovery(self._state, self._networks, self._namespaces)
        self._leaving: dict[str, Endpoint] = {}  # by id: no container has them, but the kernel still does
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def setup(self) -> None:
        """Make or take over everything: for a machine that has just started and for an engine that comes back.
        May be called again. Raises OSError."""
        if not self._networks.all():
            self._networks.add_all(definitions.predefined())
        sandboxes = self._state.sandboxes()
        self._namespaces.remove_others({sandbox.namespace for sandbox in sandboxes})
        endpoints = self._state.endpoints()
        used = {endpoint.network_id for endpoint in endpoints}
        ports = []
        for sandbox in sandboxes:
            if (gate := self._endpoints.gate(sandbox.container_id)) is not None:
                ports += port_rules(self._state.ports(sandbox.container_id), gate.address)
        self._fabric.restore(
            [network for network in self._networks.all() if network.id in used],
            [endpoint.link for endpoint in endpoints],
            ports,
        )
        for sandbox in sandboxes:
            try:
                await self._discovery.start(sandbox.container_id)
            except OSError as error:  # one container's trouble does not keep the engine from starting
                log.error("no names for container %s: %s", sandbox.container_id[:12], error)
        self._namespaces.fill_soon()

    async def republish(self) -> None:
        """Ask the host again for the published ports of all attachments, when it may have forgotten them."""
        await self._ports.republish()

    async def close(self) -> None:
        """Stop serving names and let go of the spare namespaces; containers keep their networks."""
        for sandbox in self._state.sandboxes():
            self._discovery.stop(sandbox.container_id)
        await asyncio.gather(*self._tasks)
        await self._namespaces.close()
        self._fabric.close()

    # networks

    def list(self) -> tuple[Network, ...]:
        """All networks, the oldest first."""
        return self._networks.all()

    def get(self, name_or_id: str) -> Network:
        """By id, name or the beginning of an id, in this order; NotFound or InvalidArgument (ambiguous)."""
        name = "bridge" if name_or_id in ("", "default") else name_or_id
        if (network := self._networks.by_id(name) or self._networks.by_name(name)) is not None:
            return network
        found = self._networks.by_id_prefix(name)
        if len(found) > 1:
            raise InvalidArgument(f"network {name} is ambiguous ({len(found)} matches found on ID prefix)")
        if not found:
            raise NotFound(f"network {name} not found")
        return found[0]

    def endpoints(self, network_id: str) -> tuple[Endpoint, ...]:
        """The places in a network that containers hold."""
        return self._state.endpoints(network_id=network_id)

    def create(self, request: NetworkRequest) -> Network:
        """A new bridge network; its bridge is made when the first container comes."""
        network = definitions.define(request, self._networks.all())
        self._networks.add_all([network])
        return network

    async def remove(self, name_or_id: str) -> Network:
        """Remove a network that no container is attached to; the network that was removed."""
        network = self.get(name_or_id)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if found := self.endpoints(network.id):
            holders = ", ".join(f'name:"{endpoint.owner}" id:"{endpoint.id[:12]}"' for endpoint in found)
            raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({holders})")
        self._networks.remove(network.id)
        with _kernel_errors():
            await self._fabric.remove_bridge(network)
        return network

    # attachments

    async def attach(
        self,
        container_id: str,
        network: str,
        ports: Sequence[PortRequest] = (),
        wishes: Wishes = NO_WISHES,
        *,
        resolvers: Sequence[str] = (),
    ) -> Attachment:
        """Give a container its namespace, its first network and its published ports, or nothing of it.

        `resolvers` are asked for the names that the networks' own DNS does not know.
        """
        found = self.get(network)
        if found.driver == "host":
            return _bare_attachment(container_id, GUEST_NAMESPACE, found)
        async with self._lock(container_id):
            if self._state.sandbox(container_id) is not None:
                raise Conflict(f"container {container_id[:12]} is attached to a network already")
            with _kernel_errors():
                if found.driver == "null":
                    return await self._attach_nothing(container_id, found)
                return await self._attach(container_id, found, ports, wishes, tuple(resolvers))

    async def connect(
        self, container_id: str, network: str, wishes: Wishes = NO_WISHES, *, ports: Sequence[PortRequest] = ()
    ) -> Attachment:
        """Put an attached container into one more network. Its ports are published now if no network before this one
        had a way in for them."""
        found = self.get(network)
        if found.driver != "bridge":
            raise Forbidden(f"container cannot be connected to or disconnected from the {found.name} network")
        async with self._lock(container_id):
            sandbox = self._sandbox(container_id)
            if any(found.id == endpoint.network_id for endpoint in self._endpoints.of(container_id)):
                owner = next(iter(wishes.names), container_id[:12])
                raise Forbidden(f"endpoint with name {owner} already exists in network {found.name}")
            with _kernel_errors():
                endpoint = await self._connect(sandbox, found, wishes, ports)
            return self._endpoints.attachment(endpoint, self._namespaces.path(sandbox.namespace))

    async def disconnect(self, container_id: str, network: str) -> None:
        """Take an attached container out of one network; its ports and default route go to another it is in."""
        found = self.get(network)
        async with self._lock(container_id):
            sandbox = self._sandbox(container_id)
            mine = [endpoint for endpoint in self._endpoints.of(container_id) if endpoint.network_id == found.id]
            if not mine:
                raise Forbidden(f"container {container_id} is not connected to network {found.name}")
            with _kernel_errors():
                await self._leave(sandbox, mine[0])

    async def detach(self, container_id: str) -> None:
        """Take away all a container got; no error if it has nothing. The kernel needs tens of milliseconds to let
        go of a link, and nobody waits for that: only the addresses stay taken until it is done."""
        async with self._lock(container_id):
            sandbox = self._state.sandbox(container_id)
            if sandbox is None:
                return
            with _kernel_errors():
                self._discovery.stop(container_id)
                if (gate := self._endpoints.gate(container_id)) is not None:
                    await self._ports.withdraw(container_id, gate.address)
                endpoints = self._endpoints.of(container_id)
                self._state.remove_sandbox(container_id)
                self._retire(sandbox, endpoints)

    async def detach_others(self, known: Collection[str]) -> None:
        """Take everything from containers that are not known: an engine died after their attach and before all else."""
        for sandbox in self._state.sandboxes():
            if sandbox.container_id not in known:
                await self.detach(sandbox.container_id)

    def attachments(self, container_id: str) -> tuple[Attachment, ...]:
        """What a container has now, in the order in which it got it."""
        found = self._endpoints.of(container_id)
        return tuple(self._endpoints.attachment(endpoint, self.netns_path(container_id)) for endpoint in found)

    def netns_path(self, container_id: str) -> str:
        """The namespace of an attached container, for one that shares it; NotFound."""
        return self._namespaces.path(self._sandbox(container_id).namespace)

    # steps

    async def _attach_nothing(self, container_id: str, network: Network) -> Attachment:
        namespace = await self._namespaces.take_bare()
        namespace.route.close()
        self._state.add_sandbox(Sandbox(container_id, namespace.name))
        return _bare_attachment(container_id, namespace.path, network)

    async def _attach(
        self,
        container_id: str,
        network: Network,
        ports: Sequence[PortRequest],
        wishes: Wishes,
        resolvers: tuple[str, ...],
    ) -> Attachment:
        namespace = await self._namespaces.take()
        with closing(namespace.route):
            async with AsyncExitStack() as undo:
                undo.callback(self._namespaces.remove, namespace.name)
                self._state.add_sandbox(Sandbox(container_id, namespace.name, resolvers))
                undo.callback(self._state.remove_sandbox, container_id)
                endpoint = await self._place(undo, network, container_id, wishes, namespace.link)
                self._fabric.plug_spare(network, namespace)
                await self._configure(namespace.name, namespace.route, endpoint, wishes)
                undo.callback(self._discovery.stop, container_id)
                await self._discovery.start(container_id)
                await self._publish(endpoint, network, ports)
                undo.pop_all()
        return self._endpoints.attachment(endpoint, namespace.path)

    async def _publish(self, endpoint: Endpoint, network: Network, ports: Sequence[PortRequest]) -> bool:
        """Publish a container's ports at its first endpoint that can be reached from outside; whether this was it."""
        if not ports or network.internal or self._state.ports(endpoint.container_id):
            return False
        await self._ports.publish(endpoint.container_id, endpoint.address, ports, f"{endpoint.owner} ({endpoint.id})")
        return True

    async def _connect(self, sandbox: Sandbox, network: Network, wishes: Wishes, ports: Sequence[PortRequest]) -> Endpoint:
        path = self._namespaces.path(sandbox.namespace)
        with closing(await self._namespaces.run_in(sandbox.namespace, netlink.RouteSocket)) as route:
            async with AsyncExitStack() as undo:
                endpoint = await self._place(undo, network, sandbox.container_id, wishes)
                self._fabric.plug(network, endpoint, path)
                await self._configure(sandbox.namespace, route, endpoint, wishes)
                await self._fabric.wait_for_way(network, endpoint)  # its processes are running, and may send at once
                if await self._publish(endpoint, network, ports):
                    undo.push_async_callback(self._ports.withdraw, sandbox.container_id, endpoint.address)
                await self._discovery.start(sandbox.container_id)
                undo.pop_all()
        return endpoint

    async def _configure(self, namespace: str, route: netlink.RouteSocket, endpoint: Endpoint, wishes: Wishes) -> None:
        """Set the interface up that was plugged in, with all its addresses, and with the routes if it is the gate."""
        network = self._endpoints.network(endpoint)
        if network.ipv6 is not None:
            await self._namespaces.run_in(namespace, partial(enable_ipv6, endpoint.interface))
        bridge.configure(route, network, endpoint)
        if network.ipv6 is not None:
            await self._fabric.wait_for_way(network, endpoint)
            await bridge.configure_ipv6(route, network.ipv6, endpoint)
        bridge.add_link_local(route, endpoint, wishes.link_local)
        for gate, pool in self._endpoints.routes(endpoint.container_id):
            if gate == endpoint:
                bridge.set_default_route(route, pool, endpoint)

    async def _place(
        self, undo: AsyncExitStack, network: Network, container_id: str, wishes: Wishes, link: str = ""
    ) -> Endpoint:
        """Write a new endpoint down, before the kernel has anything of it. An address that was asked for may be that of
        one who is leaving: a container that starts again asks for its own."""
        leaving = self._leaving_addresses(network)
        while leaving and (wishes.address or wishes.address6):
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            leaving = self._leaving_addresses(network)
        endpoint = self._endpoints.new(network, container_id, wishes, link=link, leaving=leaving)
        self._state.add_endpoint(endpoint)
        undo.callback(self._state.remove_endpoint, endpoint.id)
        undo.push_async_callback(self._fabric.unplug, endpoint.link)
        return endpoint

    def _leaving_addresses(self, network: Network) -> set[Address]:
        gone = (endpoint for endpoint in self._leaving.values() if endpoint.network_id == network.id)
        return {address for endpoint in gone for address in endpoint.addresses}

    async def _leave(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        container_id = sandbox.container_id
        old, routes = self._endpoints.gate(container_id), self._endpoints.routes(container_id)
        await self._fabric.unplug(endpoint.link)
        self._state.remove_endpoint(endpoint.id)
        if not self._discovery.wants(container_id):
            self._discovery.stop(container_id)
        if old == endpoint:
            await self._move_ports(container_id, old)
        changed = [found for found in self._endpoints.routes(container_id) if found not in routes]
        if changed:
            with await self._namespaces.run_in(sandbox.namespace, netlink.RouteSocket) as route:
                for gate, pool in changed:
                    bridge.set_default_route(route, pool, gate)

    async def _move_ports(self, container_id: str, old: Endpoint) -> None:
        """Send the container's ports to its new gate, or take them away if there is none."""
        new = self._endpoints.gate(container_id)
        if new is None:
            await self._ports.withdraw(container_id, old.address)
        else:
            self._ports.move(container_id, old.address, new.address)

    def _retire(self, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> None:
        """Have the kernel's objects taken away in the background; should the engine end first, `setup` does it."""
        self._leaving.update((endpoint.id, endpoint) for endpoint in endpoints)
        task = asyncio.ensure_future(self._take_away(sandbox, endpoints))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_away(self, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> None:
        try:
            for endpoint in endpoints:
                await self._fabric.unplug(endpoint.link)
            await asyncio.to_thread(self._namespaces.remove, sandbox.namespace)
        except OSError as error:
            log.error("left over from container %s: %s", sandbox.container_id[:12], error)
        finally:
            for endpoint in endpoints:
                del self._leaving[endpoint.id]

    # looking up

    def _lock(self, container_id: str) -> asyncio.Lock:
        lock = self._locks.get(container_id)
        if lock is None:
            lock = self._locks[container_id] = asyncio.Lock()
        return lock

    def _sandbox(self, container_id: str) -> Sandbox:
        sandbox = self._state.sandbox(container_id)
        if sandbox is None:
            raise NotFound(f"container {container_id[:12]} is not attached to a network")
        return sandbox


def _bare_attachment(container_id: str, netns_path: str, network: Network) -> Attachment:
    """Of a network that gives no addresses."""
    return Attachment(container_id, netns_path, network.id, network.name, secrets.token_hex(32))


@contextmanager
def _kernel_errors() -> Iterator[None]:
    """The kernel's refusals as this engine's errors, in Docker's words."""
    try:
        yield
    except OSError as error:
        raise SystemFailure(f"failed to set up container networking: {error.strerror}") from error
