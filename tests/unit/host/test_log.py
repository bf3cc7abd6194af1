"""The hostagent's log: it does not grow without end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox import log as logs


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The root logger as it was, after the test."""
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = kept
    root.setLevel(level)


def test_a_full_log_is_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_FILE_LIMIT", 1000)
    path = tmp_path / "machine" / "agent.log"
    logs.to_file(path)
    for number in range(40):
        logging.getLogger("pybox").info("line %d", number)
    assert sorted(file.name for file in path.parent.iterdir()) == ["agent.log", "agent.log.1"]
    lines = [*path.with_name("agent.log.1").read_text().splitlines(), *path.read_text().splitlines()]
    first = int(lines[0].rpartition(" ")[2])
    assert [line.rpartition("line ")[2] for line in lines] == [str(number) for number in range(first, 40)]
    assert path.stat().st_size < 1000
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_not_told_is_not_written(tmp_path: Path) -> None:
    logs.to_file(tmp_path / "log")
    logging.getLogger("pybox").debug("nothing")
    logging.getLogger("qemu.qmp").error("QEMU has ended")
    assert (tmp_path / "log").read_text() == ""
