"""DNS messages (RFC 1035), as much as the embedded server needs: read one question, write short answers.

Pure: bytes in, bytes out. Questions that the server does not answer itself are passed on as they came, so nothing
here knows more record types than A, AAAA and PTR.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from pyboxd.frozen import frozen
from pyboxd.network.model import Address

A = 1
PTR = 12
AAAA = 28
IN = 1
NOERROR = 0
SERVFAIL = 2
NXDOMAIN = 3

_HEADER = struct.Struct("!HHHHHH")  # id, flags, counts of questions, answers, authorities, additionals
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHHIH")  # pointer to the name, type, class, lifetime, length of the data
_RESPONSE = 0x8000
_TRUNCATED = 0x0200
_RECURSION_DESIRED = 0x0100
_RECURSION_AVAILABLE = 0x0080
_OPCODE = 0x7800
_POINTER_TO_QUESTION = 0xC000 | _HEADER.size
_REVERSE = ".in-addr.arpa"
_REVERSE6 = ".ip6.arpa"
UDP_LIMIT = 512
# Seconds a client may keep an answer. Short, because a container that restarts may get another address.
LIFETIME = 10


@frozen
class Query:
    """A question: the message's head and its only question. `name` is lower case, without the last dot."""

    id: int
    flags: int
    name: str
    type: int
    question: bytes  # as it came

    @property
    def reverse_address(self) -> Address | None:
        """The address a PTR question asks for; None when it is no reverse name."""
        if self.type != PTR:
            return None
        try:
            if self.name.endswith(_REVERSE):
                return IPv4Address(".".join(reversed(self.name.removesuffix(_REVERSE).split("."))))
            if self.name.endswith(_REVERSE6):  # a label for each digit, the last one first
                return IPv6Address(bytes.fromhex(self.name.removesuffix(_REVERSE6)[::-1].replace(".", "")))
        except ValueError:
            pass
        return None


def parse(data: bytes) -> Query:
    """Read a query. Raises ValueError for everything that is not a plain question of class IN."""
    if len(data) < _HEADER.size:
        raise ValueError("DNS message without a whole header")
    identity, flags, questions, *_ = _HEADER.unpack_from(data)
    if flags & (_RESPONSE | _OPCODE) or questions != 1:
        raise ValueError("DNS message that is not a single question")
    labels, end = _labels(data, _HEADER.size)
    if len(data) < end + _QUESTION.size:
        raise ValueError("DNS question is cut short")
    kind, klass = _QUESTION.unpack_from(data, end)
    if klass != IN:
        raise ValueError(f"DNS class {klass} is not known")
    question = data[_HEADER.size : end + _QUESTION.size]
    return Query(identity, flags, ".".join(labels).lower(), kind, question)


def addresses(query: Query, found: Sequence[Address], *, limit: int = 65535) -> bytes:
    """The answer with those of the addresses that are of the family asked for. Where there are none, and to questions
    that ask for no address, it is empty: the name is there."""
    size = {A: 4, AAAA: 16}.get(query.type, 0)
    data = [address.packed for address in found if len(address.packed) == size]
    fitting = (limit - _HEADER.size - len(query.question)) // (_RECORD.size + size)
    return _response(query, NOERROR, data[:fitting], truncated=len(data) > fitting)


def name(query: Query, found: str) -> bytes:
    """The answer to a PTR question."""
    return _response(query, NOERROR, [_encode_name(found)])


def failure(query: Query, code: int) -> bytes:
    return _response(query, code, [])


def _response(query: Query, code: int, records: Sequence[bytes], *, truncated: bool = False) -> bytes:
    flags = _RESPONSE | _RECURSION_AVAILABLE | (query.flags & _RECURSION_DESIRED) | code
    if truncated:
        flags |= _TRUNCATED
    answers = b"".join(_RECORD.pack(_POINTER_TO_QUESTION, query.type, IN, LIFETIME, len(data)) + data for data in records)
    return _HEADER.pack(query.id, flags, 1, len(records), 0, 0) + query.question + answers


def _labels(data: bytes, offset: int) -> tuple[list[str], int]:
    """The labels of the name at `offset` and the offset behind it. A question's name holds no pointers."""
    labels: list[str] = []
    while True:
        if offset >= len(data):
            raise ValueError("DNS name is cut short")
        length = data[offset]
        if length == 0:
            return labels, offset + 1
        if length > 63 or offset + 1 + length >= len(data):
            raise ValueError("DNS label is too long")
        labels.append(data[offset + 1 : offset + 1 + length].decode("latin-1"))
        offset += 1 + length


def _encode_name(text: str) -> bytes:
    labels = [label.encode("latin-1", "replace")[:63] for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
