"""The FUSE protocol's layouts, and messages out of a stream."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybox.share import protocol as p
from pybox.share.protocol import Opcode
from pybox.share.server import Stream

SECRET = b"sixteen  letters"


def request(opcode: int, unique: int, body: bytes = b"", node: int = 1) -> bytes:
    return p.IN_HEADER.pack(p.IN_HEADER.size + len(body), opcode, unique, node, 5, 6, 7, 0, 0) + body


def read(parts: Sequence[bytes]) -> list[bytes]:
    """What a stream that arrives in these parts says."""
    waiting = [part for part in parts if part]

    def receive(buffer: memoryview) -> int:
        if not waiting:
            return 0
        part = waiting.pop(0)
        taken = part[: len(buffer)]
        buffer[: len(taken)] = taken
        if part[len(taken) :]:
            waiting.insert(0, part[len(taken) :])
        return len(taken)

    return [bytes(message) for message in Stream(receive, SECRET).messages()]


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (p.IN_HEADER, 40),
        (p.OUT_HEADER, 16),
        (p.INIT_OUT, 64),
        (p.ATTR, 88),
        (p.ATTR_OUT, 104),
        (p.ENTRY_OUT, 128),
        (p.SETATTR_IN, 88),
        (p.READ_IN, 40),
        (p.WRITE_IN, 40),
        (p.STATFS_OUT, 80),
        (p.DIRENT, 24),
        (p.FALLOCATE_IN, 32),
        (p.LSEEK_IN, 24),
        (p.ACCESS_IN, 8),
        (p.COPY_IN, 56),
        (p.OPEN_OUT, 16),
    ],
)
def test_sizes_are_the_kernels(layout: object, size: int) -> None:
    assert getattr(layout, "size") == size  # noqa: B009


def test_request() -> None:
    parsed = p.parse_request(memoryview(request(Opcode.LOOKUP, 9, b"name\0", node=3)))
    assert (parsed.opcode, parsed.unique, parsed.node, parsed.uid, parsed.gid) == (1, 9, 3, 5, 6)
    assert p.names(parsed.body, 0, 1) == [b"name"]
    assert p.names(memoryview(b"12345678old\0new\0"), 8, 2) == [b"old", b"new"]
    with pytest.raises(p.ProtocolError):
        p.names(parsed.body, 0, 2)


@pytest.mark.parametrize(
    "message", [request(0, 1), request(61, 1), request(Opcode.READ, 1), request(Opcode.LOOKUP, 1) + b"x"]
)
def test_what_is_no_request(message: bytes) -> None:
    with pytest.raises(p.ProtocolError):
        p.parse_request(memoryview(message))


def test_init_takes_only_what_both_want() -> None:
    everything = memoryview(p.INIT_IN.pack(7, 99, 131072, 0xFFFF_FFFF))
    major, minor, readahead, flags, _, _, max_write, granularity, pages, *_ = p.INIT_OUT.unpack(p.init_answer(everything))
    assert (major, minor, readahead, max_write, granularity, pages) == (7, 36, 1 << 20, 1 << 20, 1, 256)
    assert flags == p.WANTED
    assert not flags & (1 << 1 | 1 << 3 | 1 << 10 | 1 << 14 | 1 << 16)  # locks, truncating open, auto, write-back
    with pytest.raises(p.ProtocolError):
        p.init_answer(memoryview(p.INIT_IN.pack(7, 12, 0, 0)))


def test_attributes_of_times_before_1970() -> None:
    times = {"st_atime_ns": 0, "st_mtime_ns": -1_500_000_000, "st_ctime_ns": 0, "st_blocks": 1, "st_blksize": 512}
    status = os.stat_result((stat.S_IFREG, 1, 1, 1, 0, 0, 3, 0, -2, 0), times)
    fields = p.attributes(status, 7, 8, 9)
    assert (fields[4] - (1 << 64), fields[7]) == (-2, 500_000_000)
    assert len(p.ATTR.pack(*fields)) == 88


@given(st.binary(min_size=1, max_size=255))
def test_directory_entries_are_padded(name: bytes) -> None:
    entry = p.directory_entry(5, 6, stat.S_IFLNK, name)
    assert len(entry) % 8 == 0
    assert p.DIRENT.unpack_from(entry) == (5, 6, len(name), 10)
    assert entry[24 : 24 + len(name)] == name


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 5000), max_size=40))
def test_stream_finds_messages_wherever_it_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    messages = [request(Opcode.SYMLINK, number, body) for number, body in enumerate(bodies)]
    data = SECRET + b"".join(messages)
    parts = []
    for cut in cuts:
        parts.append(data[:cut])
        data = data[cut:]
    assert read([*parts, data]) == messages


def test_large_messages_in_a_row() -> None:
    body = p.WRITE_IN.pack(0, 0, p.MAX_WRITE, 0, 0, 0, 0) + os.urandom(p.MAX_WRITE)
    messages = [request(Opcode.WRITE, number, body) for number in range(7)]
    data = SECRET + b"".join(messages)
    assert read([data[start : start + 300_000] for start in range(0, len(data), 300_000)]) == messages


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_what_an_earlier_connection_broke_off_is_skipped(rest: bytes, size: int) -> None:
    message = request(Opcode.GETATTR, 1, bytes(16))
    data = rest + message + SECRET + message
    assert read([data[start : start + size] for start in range(0, len(data), size)]) == [message]


def test_a_relay_that_does_not_know_the_secret_is_refused() -> None:
    message = request(Opcode.WRITE, 1, p.WRITE_IN.pack(0, 0, p.MAX_WRITE, 0, 0, 0, 0) + bytes(p.MAX_WRITE))
    with pytest.raises(p.ProtocolError):
        read([message] * 4)


def test_nonsense_after_a_message_is_an_error() -> None:
    message = request(Opcode.GETATTR, 1, bytes(16))
    with pytest.raises(p.ProtocolError):
        read([SECRET + message + b"nonsense" * 10])


def test_errors_have_linux_numbers() -> None:
    assert p.OUT_HEADER.unpack(p.failure(7, errno.ENOTEMPTY)) == (16, -39, 7)
    assert p.OUT_HEADER.unpack(p.failure(7, errno.ENOSYS)) == (16, -38, 7)
    assert p.OUT_HEADER.unpack(p.failure(7, 99_999)) == (16, -5, 7)
