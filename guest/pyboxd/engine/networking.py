"""A container's networks: what it asks for, what it has, and the files that tell it about them.

`Networks` (the network room) makes addresses and links; here is only what Docker's container configuration means.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.model import EndpointConfig, NetworkView, PortBinding, Record
from pyboxd.errors import Conflict, InvalidArgument, SystemFailure
from pyboxd.frozen import replace
from pyboxd.model import PortRequest
from pyboxd.network import files
from pyboxd.network.files import Resolver
from pyboxd.network.model import Attachment, Wishes
from pyboxd.network.networks import Networks

_SHARED = "container:"
_REFUSED = "Ports are not available"  # the host's words for a port that it cannot listen on
_PREDEFINED = ("bridge", "host", "none", "default", "")


class Networking:
    """Attaches containers at their start, shows what they have."""

    def __init__(self, networks: Networks, containers: Containers) -> None:
        self.networks = networks
        self._containers = containers

    async def attach(self, record: Record) -> tuple[str, tuple[Attachment, ...]]:
        """All that a container wants: the runtime's `network`, and what it got. On an error it has nothing."""
        mode = record.host.network_mode
        if mode.startswith(_SHARED):
            return self._shared(mode.removeprefix(_SHARED)), ()
        if record.config.network_disabled:
            mode = "none"
        first, *others = _order(record.endpoints, mode)
        wishes = _wishes(record, first, mode)
        with _told_of_ports(record):
            attachment = await self.networks.attach(
                record.id,
                mode,
                () if mode in ("host", "none") else self._port_requests(record),
                replace(wishes, mac=wishes.mac or record.config.mac_address),
                resolvers=record.host.dns,
            )
        attachments = [attachment]
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.networks.detach, record.id)
            for endpoint in others:
                attachments.append(await self._connect(record, endpoint))
            undo.pop_all()
        return attachment.netns_path, tuple(attachments)

    async def _connect(self, record: Record, endpoint: EndpointConfig) -> Attachment:
        wishes = _wishes(record, endpoint, endpoint.network)
        with _told_of_ports(record):
            return await self.networks.connect(record.id, endpoint.network, wishes, ports=self._port_requests(record))

    def owner(self, record: Record) -> Record:
        """The container whose host name and files this one has: itself, or that whose network it shares. NotFound."""
        mode = record.host.network_mode
        return self.owner(self._containers.get(mode.removeprefix(_SHARED)).record) if mode.startswith(_SHARED) else record

    def _shared(self, reference: str) -> str:
        other = self._containers.get(reference)
        if not other.state.running or other.process is None:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return f"/proc/{other.state.pid}/ns/net"

    async def detach(self, record: Record) -> None:
        """Take everything away again; nothing happens when there is nothing."""
        await self.networks.detach(record.id)

    async def connect(self, container: Container, endpoint: EndpointConfig) -> None:
        """`docker network connect`: now if the container runs, and at every start from now on."""
        record = container.record
        mode = record.host.network_mode
        if mode.startswith(_SHARED):
            raise InvalidArgument("container sharing network namespace with another container or host cannot be connected")
        if mode == "host":
            raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
        network = self.networks.get(endpoint.network)
        if any(self._same(known.network, network.id) for known in record.endpoints):
            raise Conflict(f"endpoint with name {record.name} already exists in network {network.name}")
        endpoint = replace(endpoint, network=network.name)
        if container.process is not None:
            await self._connect(record, endpoint)
        self._containers.update(container, endpoints=(*record.endpoints, endpoint))

    async def disconnect(self, container: Container, network: str, force: bool = False) -> None:
        """`docker network disconnect`."""
        record = container.record
        found = self.networks.get(network)
        kept = tuple(known for known in record.endpoints if not self._same(known.network, found.id))
        if len(kept) == len(record.endpoints) and not force:
            raise InvalidArgument(f"container {record.id} is not connected to network {found.name}")
        if container.process is not None:
            await self.networks.disconnect(record.id, found.id)
        self._containers.update(container, endpoints=kept)

    def _same(self, reference: str, network_id: str) -> bool:
        network = next((network for network in self.networks.list() if network.id == network_id), None)
        return network is not None and reference in (network.name, network.id)

    def views(self, record: Record) -> tuple[NetworkView, ...]:
        """Each network of a container as `inspect` shows it; addresses only while it runs."""
        if record.host.network_mode.startswith(_SHARED):
            return ()
        current = {attachment.network_name: attachment for attachment in self.networks.attachments(record.id)}
        known = {network.name: network for network in self.networks.list()}
        by_id = {network.id: network.name for network in known.values()}
        found = []
        for endpoint in record.endpoints:
            name = by_id.get(endpoint.network, endpoint.network)
            network_id = known[name].id if name in known else ""
            view = NetworkView(name, endpoint, network_id, dns_names=dns_names(record, endpoint, name))
            found.append(_with_addresses(view, current.get(name)))
        return tuple(found)

    def _port_requests(self, record: Record) -> tuple[PortRequest, ...]:
        requests: list[PortRequest] = []
        bound: set[str] = set()
        for entry in record.host.port_bindings:
            port, protocol = parse_port(entry.port)
            bound.add(entry.port)
            for binding in entry.bindings:
                requests.append(PortRequest(port, protocol, binding.host_ip, self._host_port(binding, protocol)))
        if record.host.publish_all_ports:
            for text in record.config.exposed_ports:
                for port, protocol in expand_port(text):
                    if f"{port}/{protocol}" not in bound:
                        requests.append(PortRequest(port, protocol))
        return tuple(requests)

    def _host_port(self, binding: PortBinding, protocol: str) -> int:
        """The port asked for; of a range the first that no container has."""
        low, high = parse_range(binding.host_port)
        if low == high:
            return low
        taken = {
            published.host_port
            for container in self._containers
            for attachment in self.networks.attachments(container.id)
            for published in attachment.published
            if published.protocol == protocol
        }
        return next((port for port in range(low, high + 1) if port not in taken), low)


def _order(endpoints: Sequence[EndpointConfig], mode: str) -> list[EndpointConfig]:
    """The network of `NetworkMode` first: it has the published ports."""
    first = [endpoint for endpoint in endpoints if endpoint.network == mode] or [EndpointConfig(mode)]
    return first[:1] + [endpoint for endpoint in endpoints if endpoint.network != mode]


@contextmanager
def _told_of_ports(record: Record) -> Iterator[None]:
    """A refusal of the host's in Docker's words."""
    try:
        yield
    except SystemFailure as error:
        if not str(error).startswith(_REFUSED):
            raise
        raise SystemFailure(
            f"driver failed programming external connectivity on endpoint {record.name} ({record.id}): {error}"
        ) from error


def _with_addresses(view: NetworkView, attachment: Attachment | None) -> NetworkView:
    if attachment is None:
        return view
    return replace(
        view,
        endpoint_id=attachment.endpoint_id,
        address=attachment.address,
        prefix=attachment.prefix,
        gateway=attachment.gateway,
        address6=attachment.address6,
        prefix6=attachment.prefix6,
        gateway6=attachment.gateway6,
        mac=attachment.mac,
        ports=attachment.published,
        namespace=attachment.netns_path,
    )


def _wishes(record: Record, endpoint: EndpointConfig, network: str) -> Wishes:
    """What a container wants of a network; Docker's own networks have neither names nor links."""
    return Wishes(
        mac=endpoint.mac_address,
        address=endpoint.ipv4_address,
        address6=endpoint.ipv6_address,
        link_local=endpoint.link_local,
        names=dns_names(record, endpoint, network),
        links=() if network in _PREDEFINED else endpoint.links,
    )


def dns_names(record: Record, endpoint: EndpointConfig, network: str) -> tuple[str, ...]:
    """What a container is called in one network; Docker's own networks have no names."""
    if network in _PREDEFINED:
        return ()
    own = (record.name, *endpoint.aliases, record.short_id)
    hostname = record.config.hostname
    return tuple(dict.fromkeys((*own, hostname) if hostname else own))


def parse_port(text: str) -> tuple[int, str]:
    """ "80/tcp" -> (80, "tcp"). InvalidArgument."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if not _is_port(number) or not int(number):
        raise InvalidArgument(f"invalid port specification: {text}")
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol}")
    return int(number), protocol


def parse_range(text: str) -> tuple[int, int]:
    """ "8000-8010" -> (8000, 8010), "8000" -> (8000, 8000), "" -> (0, 0). InvalidArgument."""
    low, dash, high = text.partition("-")
    high = high if dash else low
    if not text:
        return 0, 0
    if not _is_port(low) or not _is_port(high) or int(low) > int(high):
        raise InvalidArgument(f"invalid port specification: '{text}'")
    return int(low), int(high)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536


def expand_port(text: str) -> list[tuple[int, str]]:
    """ "7000-7001/udp" -> [(7000, "udp"), (7001, "udp")]. InvalidArgument."""
    numbers, _, protocol = text.partition("/")
    low, high = parse_range(numbers)
    return [parse_port(f"{port}/{protocol or 'tcp'}") for port in range(low, high + 1)]


def write_files(
    record: Record, directory: str, attachments: Sequence[Attachment], links: Sequence[tuple[str, str]] = ()
) -> None:
    """The container's hosts, hostname and resolv.conf into its directory."""
    extra = [files.parse_extra_host(text) for text in record.host.extra_hosts or ()]
    hostname = record.config.hostname
    both = (address for attachment in attachments for address in (attachment.address, attachment.address6))
    addresses = [address for address in both if address]
    asked = Resolver(record.host.dns, record.host.dns_search, record.host.dns_options)
    embedded = any(attachment.embedded_dns for attachment in attachments)
    texts = {
        "hosts": files.hosts(hostname, record.config.domainname, addresses, [*extra, *links]),
        "hostname": files.hostname_file(hostname),
        "resolv.conf": files.resolv_conf(files.guest_resolver(), asked, embedded=embedded),
    }
    for name, text in texts.items():
        descriptor = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
