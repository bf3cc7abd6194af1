from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd.network import dnswire
from pyboxd.network.model import Address

HEAD = "abcd 0100 0001 0000 0000 0000"  # recursion desired, one question
WEB = "03 776562 00"


def message(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts).replace(" ", ""))


def test_a_question_is_read() -> None:
    query = dnswire.parse(message(HEAD, "03 576562 03 6F776E 00", "0001 0001"))
    assert (query.id, query.name, query.type) == (0xABCD, "web.own", dnswire.A)


def test_what_stands_behind_the_question_is_passed_over() -> None:
    edns = "00 0029 1000 00000000 0000"
    assert dnswire.parse(message("abcd 0100 0001 0000 0000 0001", WEB, "001c 0001", edns)).type == 28


def test_addresses_are_answered() -> None:
    query = dnswire.parse(message(HEAD, WEB, "0001 0001"))
    assert dnswire.addresses(query, [IPv4Address("172.18.0.2")]) == message(
        "abcd 8180 0001 0001 0000 0000", WEB, "0001 0001", "c00c 0001 0001 0000000a 0004 ac120002"
    )


def test_addresses_are_answered_by_family() -> None:
    found: list[Address] = [IPv4Address("172.18.0.2"), IPv6Address("fd00:6::2"), IPv6Address("fd00:6::3")]
    query = dnswire.parse(message(HEAD, WEB, "001c 0001"))
    assert dnswire.addresses(query, found) == message(
        "abcd 8180 0001 0002 0000 0000", WEB, "001c 0001",
        "c00c 001c 0001 0000000a 0010 fd000006000000000000000000000002",
        "c00c 001c 0001 0000000a 0010 fd000006000000000000000000000003",
    )  # fmt: skip
    query = dnswire.parse(message(HEAD, WEB, "0001 0001"))
    assert dnswire.addresses(query, found) == dnswire.addresses(query, found[:1])
    assert dnswire.addresses(query, found[1:]) == message("abcd 8180 0001 0000 0000 0000", WEB, "0001 0001")


def test_a_name_without_such_a_record_is_no_failure() -> None:
    query = dnswire.parse(message(HEAD, WEB, "001c 0001"))
    assert dnswire.addresses(query, [IPv4Address("172.18.0.2")]) == message(
        "abcd 8180 0001 0000 0000 0000", WEB, "001c 0001"
    )


def test_an_answer_too_long_for_a_datagram_says_so() -> None:
    query = dnswire.parse(message(HEAD, WEB, "0001 0001"))
    found = [IPv4Address(number) for number in range(100)]
    cut = dnswire.addresses(query, found, limit=dnswire.UDP_LIMIT)
    assert len(cut) <= dnswire.UDP_LIMIT and struct.unpack_from("!H", cut, 2)[0] & 0x0200
    assert struct.unpack_from("!H", cut, 6)[0] == (len(cut) - 21) // 16 == 30
    query6 = dnswire.parse(message(HEAD, WEB, "001c 0001"))
    cut6 = dnswire.addresses(query6, [IPv6Address(number) for number in range(100)], limit=dnswire.UDP_LIMIT)
    assert len(cut6) <= dnswire.UDP_LIMIT and struct.unpack_from("!H", cut6, 6)[0] == (len(cut6) - 21) // 28 == 17
    whole = dnswire.addresses(query, found)
    assert struct.unpack_from("!H", whole, 6)[0] == 100 and not struct.unpack_from("!H", whole, 2)[0] & 0x0200


def test_reverse_names() -> None:
    reverse = "01 32 01 30 02 3138 03 313732 07 696e2d61646472 04 61727061 00"
    query = dnswire.parse(message(HEAD, reverse, "000c 0001"))
    assert query.reverse_address == IPv4Address("172.18.0.2")
    answer = dnswire.name(query, "web.own")
    assert answer.endswith(message("c00c 000c 0001 0000000a 0009", "03 776562 03 6f776e 00"))
    assert dnswire.parse(message(HEAD, reverse, "0001 0001")).reverse_address is None
    short = dnswire.parse(message(HEAD, "01 32 07 696e2d61646472 04 61727061 00", "000c 0001"))
    assert short.reverse_address is None


def test_reverse_names_of_ipv6() -> None:
    arpa = "03 697036 04 61727061 00"
    digits = "".join(f"01 {ord(digit):02x}" for digit in reversed("fd000006" + "0" * 20 + "00aB"))
    query = dnswire.parse(message(HEAD, digits, arpa, "000c 0001"))
    assert query.reverse_address == IPv6Address("fd00:6::ab")
    for wrong in (
        "",
        "01 32",
        digits[:-5],
        digits + "01 30",
        digits.replace("01 30", "01 5f", 1),
        "20" + "31" * 32 + "01 32",
    ):
        assert dnswire.parse(message(HEAD, wrong, arpa, "000c 0001")).reverse_address is None


def test_failures() -> None:
    query = dnswire.parse(message(HEAD, WEB, "0001 0001"))
    assert dnswire.failure(query, dnswire.SERVFAIL) == message("abcd 8182 0001 0000 0000 0000", WEB, "0001 0001")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "abcd 0100 0001",
        "abcd 8180 0001 0000 0000 0000 03776562 00 0001 0001",  # an answer
        "abcd 2800 0001 0000 0000 0000 03776562 00 0001 0001",  # an update
        "abcd 0100 0000 0000 0000 0000",  # no question
        "abcd 0100 0002 0000 0000 0000 03776562 00 0001 0001",  # two
        "abcd 0100 0001 0000 0000 0000 03776562",  # a name without its end
        "abcd 0100 0001 0000 0000 0000 03776562 00 0001",  # no class
        "abcd 0100 0001 0000 0000 0000 03776562 00 0001 0003",  # class CHAOS
        "abcd 0100 0001 0000 0000 0000 c00c 0001 0001",  # a name that points to itself
        "abcd 0100 0001 0000 0000 0000 50776562 00 0001 0001",  # a label longer than the message
    ],
)
def test_everything_else_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="DNS"):
        dnswire.parse(message(wrong))


@given(st.binary(max_size=600))
def test_no_bytes_do_harm(data: bytes) -> None:
    try:
        query = dnswire.parse(data)
    except ValueError:
        return
    assert dnswire.addresses(query, [])[:2] == data[:2]
    assert query.reverse_address is None or query.type == dnswire.PTR
