"""The json-file log as Docker's readers expect it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pyboxd.runtime.logfile import MAX_ENTRY, JsonLog, timestamp
from pyboxd.runtime.spec import LogSettings
from pyboxd.runtime.wire import STDERR, STDOUT


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> list[str]:
    return [entry["log"] for entry in entries(path)]


def test_lines_of_both_streams(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(LogSettings(path=str(path)))
    log.write(STDOUT, b"one\ntwo\nthr")
    log.write(STDERR, b"err\r\n")
    log.write(STDOUT, b"ee\nend")
    assert [(entry["log"], entry["stream"]) for entry in entries(path)] == [
        ("one\n", "stdout"),
        ("two\n", "stdout"),
        ("err\r\n", "stderr"),
        ("three\n", "stdout"),
    ]
    log.close()
    assert texts(path)[-1] == "end"
    assert all(entry["time"].endswith("Z") for entry in entries(path))


def test_a_long_line_is_several_entries_without_a_newline_but_the_last(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(LogSettings(path=str(path)))
    for chunk in (b"x" * 10_000, b"x" * 30_000, b"\nnext\n"):
        log.write(STDOUT, chunk)
    assert [len(text) for text in texts(path)] == [MAX_ENTRY, MAX_ENTRY, 40_000 - 2 * MAX_ENTRY + 1, 5]
    assert "".join(texts(path)) == "x" * 40_000 + "\nnext\n"
    first, second, third, fourth = [entry["time"] for entry in entries(path)]
    assert first == second == third != fourth


def test_a_long_line_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(LogSettings(path=str(path)))
    log.write(STDOUT, b"y" * MAX_ENTRY + b"\n" + b"z" * (3 * MAX_ENTRY) + b"\n")
    assert "".join(texts(path)) == "y" * MAX_ENTRY + "\n" + "z" * (3 * MAX_ENTRY) + "\n"


def test_bytes_that_are_no_text_and_characters_at_the_border(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(LogSettings(path=str(path)))
    log.write(STDOUT, b'\xff\x00\x1b[1m"quoted"\n')
    text = "é€😀" * 5000
    log.write(STDOUT, text.encode() + b"\n")
    assert texts(path)[0] == '\ufffd\x00\x1b[1m"quoted"\n'
    assert "".join(texts(path)[1:]) == text + "\n"


def test_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(LogSettings(path=str(path), max_size=200, max_file=3))
    for number in range(20):
        log.write(STDOUT, f"line {number}\n".encode())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    kept = texts(tmp_path / "log.2") + texts(tmp_path / "log.1") + texts(path)
    assert kept == [f"line {number}\n" for number in range(20 - len(kept), 20)]
    assert all(file.stat().st_size < 300 for file in tmp_path.iterdir())


def test_rotation_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(LogSettings(path=str(path), max_size=200, max_file=1))
    for number in range(20):
        log.write(STDOUT, f"line {number}\n".encode())
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]
    assert texts(path)[-1] == "line 19\n"


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in (b"first\n", b"second\n"):
        log = JsonLog(LogSettings(path=str(path)))
        log.write(STDOUT, text)
        log.close()
    assert texts(path) == ["first\n", "second\n"]


def test_no_log(tmp_path: Path) -> None:
    log = JsonLog(LogSettings(driver="none", path=str(tmp_path / "log")))
    log.write(STDOUT, b"x\n")
    log.close()
    assert not os.listdir(tmp_path)


def test_a_full_disk_loses_entries_and_raises_nothing() -> None:
    log = JsonLog(LogSettings(path="/dev/full"))
    log.write(STDOUT, b"x\n")
    log.close()


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
    ],
)
def test_timestamps(nanoseconds: int, text: str) -> None:
    assert timestamp(nanoseconds) == text
