"""Links, addresses and routes over rtnetlink: only what a container engine needs, and nothing cached.

The upper half has no I/O: functions that make a `Request` (one message with the words for its error) and
functions that read answers. The lower half is `RouteSocket`, which sends requests and raises an `OSError` that
names the operation and the object, with the kernel's own explanation where it gives one.

A socket belongs for its whole life to the network namespace in which it was opened: one that was opened in a
container's namespace configures that container from any thread.

Not here: notifications, queueing disciplines. Names and numbers are the kernel's, from
<linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h> and <linux/veth.h>.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

from pyboxd.frozen import frozen

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100  # in an NLMSG_ERROR: the request is not echoed
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

IFF_UP = 0x1
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IF_OPER_UP = 6
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
VETH_INFO_PEER = 1
RTEXT_FILTER_SKIP_STATS = 8

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_TENTATIVE = 0x40

RTA_OIF = 4
RTA_GATEWAY = 5
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RTN_UNICAST = 1

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_RECEIVE = 64 * 1024


@frozen
class Request:
    """One rtnetlink message; `what` finishes the sentence "cannot …" of its error."""

    kind: int
    flags: int
    payload: bytes
    what: str


@frozen
class Message:
    """One message of an answer, without its header."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


@frozen
class Link:
    """A network device. `master` is the index of its bridge, or 0."""

    index: int
    name: str
    kind: str  # "bridge", "veth", …; "" for a physical device
    address: str  # "02:42:ac:11:00:02"
    mtu: int
    up: bool
    master: int
    running: bool = False  # up, and the kernel has noticed that the other end is


@frozen
class InterfaceAddress:
    """An address of a device."""

    index: int
    address: str
    prefix: int
    tentative: bool = False  # of IPv6, and not in use yet


# --- encoding -------------------------------------------------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    """A `struct nlattr` with its payload, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def encode(request: Request, sequence: int) -> bytes:
    """The message as it goes over the socket."""
    length = _HEADER.size + len(request.payload)
    return _HEADER.pack(length, request.kind, NLM_F_REQUEST | request.flags, sequence, 0) + request.payload


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _link_message(*attributes: bytes, index: int = 0, up: bool = False) -> bytes:
    flags = IFF_UP if up else 0
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags) + b"".join(attributes)


def new_bridge(name: str, *, mac: str, mtu: int) -> Request:
    """Create a bridge and set it up. `mac` keeps it from changing with its ports."""
    payload = _link_message(
        text(IFLA_IFNAME, name),
        attribute(IFLA_ADDRESS, _mac(mac)),
        u32(IFLA_MTU, mtu),
        nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge")),
        up=True,
    )
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Request(RTM_NEWLINK, flags, payload, f"create the bridge {name}")


def new_veth(name: str, *, mtu: int, peer: str, peer_namespace: int, master: int = 0) -> Request:
    """Create a pair in one message: `name` here, up, and a port of the bridge with index `master` unless that is 0;
    `peer` in the network namespace that the descriptor `peer_namespace` is open on, where it has to be set up (the
    kernel refuses to do that before the ends know each other)."""
    other = _link_message(text(IFLA_IFNAME, peer), u32(IFLA_MTU, mtu), u32(IFLA_NET_NS_FD, peer_namespace))
    payload = _link_message(
        text(IFLA_IFNAME, name),
        u32(IFLA_MTU, mtu),
        u32(IFLA_MASTER, master),
        nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, other)),
        ),
        up=True,
    )
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Request(RTM_NEWLINK, flags, payload, f"create the link {name} with its peer {peer}")


def delete_link(name: str) -> Request:
    payload = _link_message(text(IFLA_IFNAME, name))
    return Request(RTM_DELLINK, NLM_F_ACK, payload, f"delete the link {name}")


def set_up(name: str, *, mac: str = "") -> Request:
    """Set the link up, with another hardware address if one is given."""
    address = attribute(IFLA_ADDRESS, _mac(mac)) if mac else b""
    payload = _link_message(text(IFLA_IFNAME, name), address, up=True)
    return Request(RTM_NEWLINK, NLM_F_ACK, payload, f"set the link {name} up")


def set_master(name: str, master: int) -> Request:
    """Make `name` a port of the bridge with index `master`; 0 takes it out of its bridge."""
    payload = _link_message(text(IFLA_IFNAME, name), u32(IFLA_MASTER, master))
    return Request(RTM_NEWLINK, NLM_F_ACK, payload, f"put the link {name} into bridge {master}")


def set_mtu(name: str, mtu: int) -> Request:
    payload = _link_message(text(IFLA_IFNAME, name), u32(IFLA_MTU, mtu))
    return Request(RTM_NEWLINK, NLM_F_ACK, payload, f"set the mtu of the link {name} to {mtu}")


def rename(index: int, name: str) -> Request:
    payload = _link_message(text(IFLA_IFNAME, name), index=index)
    return Request(RTM_NEWLINK, NLM_F_ACK, payload, f"rename the link {index} to {name}")


def move(name: str, namespace: int) -> Request:
    """Move a link into the network namespace that the descriptor `namespace` is open on."""
    payload = _link_message(text(IFLA_IFNAME, name), u32(IFLA_NET_NS_FD, namespace))
    return Request(RTM_NEWLINK, NLM_F_ACK, payload, f"move the link {name} to another network namespace")


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def add_address(index: int, address: str, prefix: int) -> Request:
    """Give the link an address, of IPv4 with the broadcast address of its network. One of IPv6 is tentative first."""
    family = _family(address)
    local = socket.inet_pton(family, address)
    payload = _ADDRESS.pack(family, prefix, 0, RT_SCOPE_UNIVERSE, index)
    payload += attribute(IFA_LOCAL, local) + attribute(IFA_ADDRESS, local)
    if family == socket.AF_INET:
        broadcast = struct.unpack("!I", local)[0] | (0xFFFFFFFF >> prefix)
        payload += attribute(IFA_BROADCAST, struct.pack("!I", broadcast))
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Request(RTM_NEWADDR, flags, payload, f"add the address {address}/{prefix} to link {index}")


def default_route(gateway: str, index: int) -> Request:
    """Add, or replace, the default route of the gateway's family over the link."""
    family = _family(gateway)
    payload = _ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0) + b"".join(
        (attribute(RTA_GATEWAY, socket.inet_pton(family, gateway)), u32(RTA_OIF, index))
    )
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    return Request(RTM_NEWROUTE, flags, payload, f"set the default route by {gateway}")


def get_link(name: str) -> Request:
    payload = _link_message(text(IFLA_IFNAME, name), u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS))
    return Request(RTM_GETLINK, NLM_F_ACK, payload, f"find the link {name}")


def list_links() -> Request:
    payload = _link_message(u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS))
    return Request(RTM_GETLINK, NLM_F_DUMP, payload, "list the links")


def list_addresses(family: int) -> Request:
    return Request(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(family, 0, 0, 0, 0), "list the addresses")


# --- decoding -------------------------------------------------------------------------------------------------


def split(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises ValueError when a length makes no sense."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise ValueError("netlink message without a whole header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise ValueError(f"netlink message of {length} bytes where {len(data) - offset} are left")
        yield Message(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += length + (-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type, the last one of a type wins. Raises ValueError when a length makes no sense."""
    found: dict[int, bytes] = {}
    offset = 0
    while len(data) - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            raise ValueError(f"netlink attribute of {length} bytes where {len(data) - offset} are left")
        found[kind & NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + (-length % 4)
    return found


def failure(message: Message) -> tuple[int, str]:
    """Of an NLMSG_ERROR: the errno (0 is an acknowledgement) and the kernel's explanation, often ""."""
    (code,) = struct.unpack_from("=i", message.payload)
    if not message.flags & NLM_F_ACK_TLVS:
        return -code, ""
    (echoed,) = struct.unpack_from("=I", message.payload, 4)
    start = 4 + (_HEADER.size if message.flags & NLM_F_CAPPED else echoed + (-echoed % 4))
    return -code, _string(attributes(message.payload[start:]).get(NLMSGERR_ATTR_MSG, b""))


def decode_link(payload: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    found = attributes(payload[_LINK.size :])
    information = attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_string(found.get(IFLA_IFNAME, b"")),
        kind=_string(information.get(IFLA_INFO_KIND, b"")),
        address=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(IFLA_MTU)),
        up=bool(flags & IFF_UP),
        master=_number(found.get(IFLA_MASTER)),
        running=found.get(IFLA_OPERSTATE) == bytes([IF_OPER_UP]),
    )


def decode_address(payload: bytes) -> InterfaceAddress:
    family, prefix, flags, _, index = _ADDRESS.unpack_from(payload)
    found = attributes(payload[_ADDRESS.size :])
    address = found.get(IFA_LOCAL) or found[IFA_ADDRESS]
    return InterfaceAddress(index, socket.inet_ntop(family, address), prefix, bool(flags & IFA_F_TENTATIVE))


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes | None) -> int:
    value: int = struct.unpack("=I", data)[0] if data else 0
    return value


# --- the socket -----------------------------------------------------------------------------------------------


class RouteSocket:
    """An rtnetlink socket of the network namespace the calling thread is in. Blocking; the kernel answers within
    the system call. A context manager. Every method raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, 0))
            for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def execute(self, *requests: Request) -> None:
        """Carry the requests out in order; stops at the first that fails."""
        for request in requests:
            self._ask(request)

    def link(self, name: str) -> Link:
        """The link of that name; OSError ENODEV when there is none."""
        return decode_link(self._ask(get_link(name))[0].payload)

    def links(self) -> tuple[Link, ...]:
        return tuple(decode_link(message.payload) for message in self._ask(list_links()))

    def addresses(self, family: int = socket.AF_INET) -> tuple[InterfaceAddress, ...]:
        """All addresses of the namespace that are of the family."""
        return tuple(decode_address(message.payload) for message in self._ask(list_addresses(family)))

    def _ask(self, request: Request) -> Sequence[Message]:
        self._sequence += 1
        self._socket.send(encode(request, self._sequence))
        answers: list[Message] = []
        while True:
            for message in split(self._socket.recv(_RECEIVE)):
                if message.sequence != self._sequence:
                    continue  # the rest of an answer that an earlier error cut short
                if message.kind == NLMSG_ERROR:
                    code, explanation = failure(message)
                    if code:
                        raise _error(code, request.what, explanation)
                    return answers
                if message.kind == NLMSG_DONE:
                    return answers
                answers.append(message)


def _error(code: int, what: str, explanation: str) -> OSError:
    reason = f"{os.strerror(code)}: {explanation}" if explanation else os.strerror(code)
    return OSError(code, f"cannot {what}: {reason}")
