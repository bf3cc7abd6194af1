"""`--link`: Docker's old way to let one container find another, by lines in its hosts file and by variables."""

from __future__ import annotations

from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.model import Record
from pyboxd.engine.networking import Networking, expand_port
from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.frozen import frozen


@frozen
class Link:
    """A container that another one sees under `alias`, at `address`."""

    alias: str
    target: Record
    address: str


def links_of(record: Record) -> tuple[tuple[str, str], ...]:
    """(container, alias) of the links on the default bridge; on other networks the embedded DNS answers for them."""
    own = record.host.links if record.host.network_mode in ("bridge", "default", "") else ()
    texts = (*(own or ()), *(text for found in record.endpoints if found.network == "bridge" for text in found.links))
    pairs = (text.partition(":") for text in texts)
    return tuple((name.removeprefix("/"), (alias or name).rpartition("/")[2]) for name, _, alias in pairs)


def resolve(record: Record, containers: Containers, networking: Networking) -> list[Link]:
    """The links of a container that is starting. InvalidArgument when one of the others does not run."""
    found = []
    for name, alias in links_of(record):
        other = containers.get(name)
        addresses = {view.network: view.address for view in networking.views(other.record) if view.address}
        common = [addresses[endpoint.network] for endpoint in record.endpoints if endpoint.network in addresses]
        if not common:
            raise InvalidArgument(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")
        found.append(Link(alias, other.record, common[0]))
    return found


def host_lines(links: list[Link]) -> list[tuple[str, str]]:
    """(name, address) for the hosts file."""
    return [
        (name, link.address)
        for link in links
        for name in dict.fromkeys((link.alias, link.target.short_id, link.target.name))
    ]


def variables(record: Record, links: list[Link]) -> tuple[str, ...]:
    """What Docker puts into the environment (moby, daemon/links: EnvVars); only the default bridge has it."""
    if record.host.network_mode != "bridge":
        return ()
    found = []
    for link in links:
        prefix = link.alias.upper().replace("-", "_")
        found.append(f"{prefix}_NAME=/{record.name}/{link.alias}")
        ports = sorted(port for text in link.target.config.exposed_ports for port in expand_port(text))
        for index, (port, protocol) in enumerate(ports):
            url = f"{protocol}://{link.address}:{port}"
            if index == 0:
                found.append(f"{prefix}_PORT={url}")
            key = f"{prefix}_PORT_{port}_{protocol.upper()}"
            found += [f"{key}={url}", f"{key}_ADDR={link.address}", f"{key}_PORT={port}", f"{key}_PROTO={protocol}"]
        found += [f"{prefix}_ENV_{variable}" for variable in link.target.config.env if not variable.startswith("PATH=")]
    return tuple(found)


def without(container: Container, alias: str) -> tuple[str, ...]:
    """The texts of a container's links but for the one called `alias`. NotFound."""
    texts = container.record.host.links or ()
    kept = tuple(text for text in texts if text.partition(":")[2].rpartition("/")[2] != alias)
    if len(kept) == len(texts):
        raise NotFound(f"Could not get parent for /{container.name}/{alias}: no such link")
    return kept
