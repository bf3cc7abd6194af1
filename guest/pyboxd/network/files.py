"""The three files that the engine keeps for a container: /etc/hosts, /etc/resolv.conf and /etc/hostname. Pure text,
except `guest_resolver`, which reads the guest's own resolv.conf."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen

HOST_ADDRESS = "10.0.2.2"  # the user's system, as the guest and all containers see it
DEFAULT_NAMESERVER = "10.0.2.3"
EMBEDDED_NAMESERVER = "127.0.0.11"  # network/dns.py, in containers of user-defined networks
HOST_NAMES = ("host.docker.internal", "gateway.docker.internal")
HOST_GATEWAY = "host-gateway"  # `--add-host name:host-gateway`
RESOLV_CONF = "/etc/resolv.conf"

_FIXED_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@frozen
class Resolver:
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def guest_resolver() -> Resolver:
    """The guest's own resolver; its default when the file cannot be read."""
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            return parse_resolv_conf(file.read())
    except OSError:
        return Resolver((DEFAULT_NAMESERVER,))


def parse_resolv_conf(text: str) -> Resolver:
    """Read a resolv.conf(5); nameservers on the loopback are left out, as no container could reach them."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and not words[1].startswith(("127.", "::1")):
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return Resolver(tuple(nameservers) or (DEFAULT_NAMESERVER,), search, tuple(options))


def resolv_conf(guest: Resolver, asked: Resolver, *, embedded: bool = False) -> str:
    """A container's resolv.conf: what was asked for (`--dns`, `--dns-search`, `--dns-option`) takes the place of
    the guest's. With `embedded` the engine's own server answers and asks the others."""
    nameservers = asked.nameservers or guest.nameservers
    search = asked.search or guest.search
    options = asked.options or guest.options
    if embedded:
        nameservers = (EMBEDDED_NAMESERVER,)
        if not any(option.startswith("ndots:") for option in options):
            options = (*options, "ndots:0")
    lines = [f"nameserver {server}" for server in nameservers]
    if search and search != (".",):  # `--dns-search .` means none
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def parse_extra_host(text: str) -> tuple[str, str]:
    """`--add-host`: "name:address" as (name, address); `host-gateway` becomes the user's system."""
    name, separator, address = text.partition(":")
    if not separator or not name or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address == HOST_GATEWAY:
        return name, HOST_ADDRESS
    bare = address.removeprefix("[").removesuffix("]")
    if not _is_address(bare):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')
    return name, bare


def hosts(hostname: str, domainname: str, addresses: Sequence[str], extra: Iterable[tuple[str, str]] = ()) -> str:
    """A container's /etc/hosts. `addresses` are its own, one per network and family; `extra` is (name, address) in the
    user's order. The names of the user's system are added unless `extra` has them."""
    extra = tuple(extra)
    lines = [f"{address}\t{name}" for name, address in extra]
    given = {name for name, _ in extra}
    missing = [name for name in HOST_NAMES if name not in given]
    if missing:
        lines.append(f"{HOST_ADDRESS}\t{' '.join(missing)}")
    own = _own_names(hostname, domainname)
    lines.extend(f"{address}\t{own}" for address in addresses if own)
    return _FIXED_HOSTS + "\n".join(lines) + "\n"


def hostname_file(hostname: str) -> str:
    return hostname + "\n"


def _own_names(hostname: str, domainname: str) -> str:
    """The full name first, then the short one, as `hostname -f` expects."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    short = full.partition(".")[0]
    return full if short == full else f"{full} {short}"


def _is_address(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except OSError:
            continue
        return True
    return False
