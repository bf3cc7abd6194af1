"""The tests' own reader of write logs, against a log in the layout of dm-log-writes and one by QEMU itself."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.disklog import DISCARD, FLUSH, DiskLog, flushes, spread, torn

SECTOR = 512


def write_log(path: Path, requests: Sequence[tuple[int, int, bytes | int]], *, magic: int = 0x6A736677736872) -> DiskLog:
    """Requests are (sector, flags, data), or (sector, DISCARD, number of sectors)."""
    out = struct.pack("<QQQI", magic, 1, len(requests), SECTOR).ljust(SECTOR, b"\0")
    for sector, flags, data in requests:
        sectors = data if isinstance(data, int) else len(data) // SECTOR
        out += struct.pack("<QQQQ", sector, sectors, flags, 0).ljust(SECTOR, b"\0")
        out += b"" if isinstance(data, int) else data
    path.write_bytes(out)
    return DiskLog(path)


def test_replay_to_each_point(tmp_path: Path) -> None:
    a, b = b"a" * SECTOR, b"b" * 2 * SECTOR
    log = write_log(tmp_path / "log", [(0, 0, b), (0, FLUSH, b""), (1, 0, a), (0, DISCARD, 1), (0, FLUSH, b"")])
    entries = log.entries()
    assert log.count() == len(entries) == 5
    assert flushes(entries) == [2, 5]
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(3 * SECTOR))
    log.replay(entries[:2], disk)
    assert disk.read_bytes() == b + bytes(SECTOR)
    log.replay(entries[2:], disk)
    assert disk.read_bytes() == bytes(SECTOR) + a + bytes(SECTOR)


def test_a_torn_state_has_only_requests_before_the_next_flush(tmp_path: Path) -> None:
    data = bytes(SECTOR)
    requests = [(0, FLUSH, b""), *((number, 0, data) for number in range(20)), (0, FLUSH, b""), (99, 0, data)]
    entries = write_log(tmp_path / "log", requests).entries()
    some = torn(entries, 1, random.Random(1))
    assert 0 < len(some) < 20
    assert {entry.offset for entry in some} < {number * SECTOR for number in range(20)}


def test_spread_keeps_both_ends() -> None:
    assert spread([1, 2, 3], 5) == [1, 2, 3]
    assert spread(range(100), 4) == [0, 33, 66, 99]


@pytest.mark.parametrize(("magic", "cut", "words"), [(1, 0, "not a write log"), (0x6A736677736872, SECTOR, "ends at byte")])
def test_what_is_no_log(tmp_path: Path, magic: int, cut: int, words: str) -> None:
    log = write_log(tmp_path / "log", [(0, FLUSH, b"")], magic=magic)
    data = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(data[: len(data) - cut])
    with pytest.raises(ValueError, match=words):
        log.entries()


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="needs qemu-io")
def test_a_log_by_qemu(tmp_path: Path) -> None:
    disk, path = tmp_path / "disk", tmp_path / "log"
    disk.write_bytes(bytes(1 << 20))
    path.touch()
    options = f"driver=blklogwrites,file.driver=file,file.filename={disk},log.driver=file,log.filename={path}"
    commands = ["write -P 7 4k 8k", "flush", "write -z 4k 4k", "discard 64k 64k", "flush"]
    arguments = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "--image-opts", options, *arguments], check=True, capture_output=True)
    log = DiskLog(path)
    copy = tmp_path / "copy"
    copy.write_bytes(bytes(1 << 20))
    first, *_ = flushes(log.entries())
    log.replay(log.entries()[:first], copy)
    assert copy.read_bytes()[4096:12288] == b"\7" * 8192
    log.replay(log.entries()[first:], copy)
    assert copy.read_bytes() == disk.read_bytes()
