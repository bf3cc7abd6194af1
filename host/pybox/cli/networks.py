"""Commands of networks: argv -> request -> engine. `inspect` and `prune` have modules of their own."""

from __future__ import annotations

from typing import Any

import click

from pybox.cli import output
from pybox.cli.context import Context, pass_context
from pybox.cli.each import each
from pybox.errors import EngineError


@click.command()
@click.option("--driver", "-d", default="bridge", show_default=True, help="Driver of the network.")
@click.option("--subnet", multiple=True, metavar="CIDR", help="Addresses of the network (10.5.0.0/16).")
@click.option("--gateway", multiple=True, metavar="ADDRESS", help="Gateway of a subnet.")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="Part of a subnet that containers get addresses of.")
@click.option("--aux-address", multiple=True, metavar="NAME=ADDRESS", help="Address that no container gets.")
@click.option("--ipam-driver", default="default", show_default=True, help="Driver of the addresses.")
@click.option("--ipam-opt", multiple=True, metavar="KEY=VALUE", help="Option of that driver.")
@click.option("--internal", is_flag=True, help="No way out of the network.")
@click.option("--ipv4/--no-ipv4", default=True, show_default=True, help="Give IPv4 addresses.")
@click.option("--ipv6/--no-ipv6", default=None, help="Give IPv6 addresses.")
@click.option("--attachable", is_flag=True, help="Containers may be attached by hand.")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Set metadata on the network.")
@click.option("--opt", "-o", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.option("--scope", help="Scope of the network (local).")
@click.argument("name", metavar="NETWORK")
@pass_context
def create(context: Context, name: str, **flags: Any) -> None:
    """Create a network; its id is printed."""
    from pybox.app import options
    from pybox.app.pools import pools

    body = {
        "Name": name,
        "Driver": flags["driver"],
        "Options": options.pairs(flags["opt"]),
        "IPAM": {
            "Driver": flags["ipam_driver"],
            "Options": options.pairs(flags["ipam_opt"]),
            "Config": pools(flags["subnet"], flags["gateway"], flags["ip_range"], options.pairs(flags["aux_address"])),
        },
        "Internal": flags["internal"],
        "EnableIPv4": flags["ipv4"],
        "Attachable": flags["attachable"],
        "Labels": options.pairs(flags["label"]),
        **({} if flags["ipv6"] is None else {"EnableIPv6": flags["ipv6"]}),
        **({"Scope": flags["scope"]} if flags["scope"] else {}),
    }
    found = context.client.post("/networks/create", body=body)
    if found.get("Warning"):
        output.note(f"WARNING: {found['Warning']}")
    output.say(found["Id"])


@click.command()
@click.option("--ip", metavar="ADDRESS", help="IPv4 address that the container gets.")
@click.option("--ip6", metavar="ADDRESS", help="IPv6 address that it gets.")
@click.option("--alias", multiple=True, metavar="NAME", help="Name of the container in the network.")
@click.option("--link", multiple=True, metavar="CONTAINER[:ALIAS]", help="Name for another container.")
@click.option("--link-local-ip", multiple=True, metavar="ADDRESS", help="Link-local address.")
@click.option("--driver-opt", multiple=True, metavar="KEY=VALUE", help="Option of the driver.")
@click.option("--gw-priority", type=int, default=0, help="The network with the highest has the default gateway.")
@click.argument("network")
@click.argument("container")
@pass_context
def connect(context: Context, network: str, container: str, **flags: Any) -> None:
    """Connect a container to a network."""
    from pybox.app import options

    addresses = {
        "IPv4Address": flags["ip"] or "",
        "IPv6Address": flags["ip6"] or "",
        "LinkLocalIPs": list(flags["link_local_ip"]),
    }
    endpoint = {
        "IPAMConfig": addresses if any(addresses.values()) else None,
        "Links": list(flags["link"]),
        "Aliases": list(flags["alias"]),
        "DriverOpts": options.pairs(flags["driver_opt"]),
        "GwPriority": flags["gw_priority"],
    }
    context.client.post(f"/networks/{network}/connect", body={"Container": container, "EndpointConfig": endpoint})


@click.command()
@click.option("--force", "-f", is_flag=True, help="Even when the container does not exist any more.")
@click.argument("network")
@click.argument("container")
@pass_context
def disconnect(context: Context, network: str, container: str, force: bool) -> None:
    """Disconnect a container from a network."""
    context.client.post(f"/networks/{network}/disconnect", body={"Container": container, "Force": force})


@click.command()
@click.option("--filter", "-f", "filters", multiple=True, metavar="KEY=VALUE", help="driver=bridge, name=…, label=….")
@click.option("--format", "template", metavar="TEMPLATE", help="json, or a Go template.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@pass_context
def ls(context: Context, quiet: bool, no_trunc: bool, filters: tuple[str, ...], template: str | None) -> None:
    """List networks."""
    from pybox.cli.rows import filter_query, labels, short

    found = context.client.get("/networks", {"filters": filter_query(filters)})
    rows = [
        {
            "ID": item["Id"] if no_trunc else short(item["Id"]),
            "Name": item["Name"],
            "Driver": item["Driver"],
            "Scope": item["Scope"],
            "IPv4": str(item.get("EnableIPv4", True)).lower(),
            "IPv6": str(item["EnableIPv6"]).lower(),
            "Internal": str(item["Internal"]).lower(),
            "Labels": labels(item),
            "CreatedAt": _moment(item["Created"]),
        }
        for item in sorted(found, key=lambda item: str(item["Name"]))
    ]
    columns = {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SCOPE": "Scope"}
    output.listing(columns, rows, template, quiet_key="ID" if quiet else None, headings={"CreatedAt": "CREATED AT"})


def _moment(text: str) -> str:
    """ "2026-11-25T12:33:45.711340032Z" as docker's list has it: "2026-11-25 12:33:45.711340032 +0000 UTC"."""
    return f"{text.removesuffix('Z').replace('T', ' ')} +0000 UTC"


@click.command()
@click.option("--force", "-f", is_flag=True, help="No error when it does not exist.")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@pass_context
def rm(context: Context, names: tuple[str, ...], force: bool) -> int:
    """Remove one or more networks."""

    def remove(name: str) -> str | None:
        try:
            context.client.delete(f"/networks/{name}")
        except EngineError as error:
            if not force or error.status != 404:
                raise
            return None
        return name

    return each(names, remove, show=lambda name: name)


COMMANDS: dict[str, click.Command] = {
    "create": create,
    "connect": connect,
    "disconnect": disconnect,
    "ls": ls,
    "rm": rm,
}
