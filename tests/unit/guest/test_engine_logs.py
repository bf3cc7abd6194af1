"""Reading logs that the runtime's own writer wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from pyboxd.engine import logs
from pyboxd.engine.containers import Container
from pyboxd.engine.logs import LogEntry, LogQuery
from pyboxd.engine.model import ContainerConfig, HostConfig, LogConfig, Record
from pyboxd.errors import NotImplementedHere
from pyboxd.runtime.client import Process
from pyboxd.runtime.logfile import JsonLog
from pyboxd.runtime.spec import LogSettings


def container(running: bool = False, driver: str = "json-file") -> Container:
    host = HostConfig(log_config=LogConfig(driver))
    made = Container(Record("c" * 64, "n", 1, "i", "i", "linux", ContainerConfig(), host))
    made.process = cast(Process, object()) if running else None
    return made


def writer(path: Path, **settings: Any) -> JsonLog:
    return JsonLog(LogSettings(path=str(path), **settings))


async def texts(source: Container, path: Path, query: LogQuery) -> list[str]:
    return [entry.text.decode() async for entry in logs.read(source, str(path), query)]


def read(path: Path, query: LogQuery) -> list[str]:
    return asyncio.run(texts(container(), path, query))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = writer(tmp_path / "log")
    for number in range(10):
        log.write(1 + number % 2, f"line {number}\n".encode())
    log.close()
    return tmp_path / "log"


def test_all_and_one_stream(path: Path) -> None:
    assert read(path, LogQuery()) == [f"line {number}\n" for number in range(10)]
    assert read(path, LogQuery(stdout=False)) == [f"line {number}\n" for number in (1, 3, 5, 7, 9)]


@pytest.mark.parametrize("tail", [0, 1, 3, 9, 10, 11, 1000])
def test_tail(path: Path, tail: int) -> None:
    assert read(path, LogQuery(tail=tail)) == [f"line {number}\n" for number in range(10)][max(0, 10 - tail) :]


def test_nothing_was_written(tmp_path: Path) -> None:
    assert read(tmp_path / "none", LogQuery()) == []
    assert read(tmp_path / "none", LogQuery(tail=5)) == []


def test_tail_looks_at_blocks_from_the_end(tmp_path: Path) -> None:
    log = writer(tmp_path / "log")
    for number in range(3000):
        log.write(1, f"{number:>100}\n".encode())
    log.close()
    assert [line.strip() for line in read(tmp_path / "log", LogQuery(tail=1500))] == [str(n) for n in range(1500, 3000)]


@pytest.mark.parametrize("tail", [-1, 0, 3, 10, 11])
def test_what_is_written_meanwhile_is_not_read(path: Path, tail: int) -> None:
    """A container that writes faster than its log is read: the reading ends."""

    async def scenario() -> list[str]:
        log, found = writer(path), []
        async for entry in logs.read(container(), str(path), LogQuery(tail=tail)):
            found.append(entry.text.decode())
            log.write(1, b"more\n")
            assert len(found) < 100
        return found

    assert asyncio.run(scenario()) == [f"line {number}\n" for number in range(10)][max(0, 10 - tail) if tail >= 0 else 0 :]


def test_rotated_files_are_read_too(tmp_path: Path) -> None:
    log = writer(tmp_path / "log", max_size=200, max_file=4)
    for number in range(20):
        log.write(1, f"{number}\n".encode())
    log.close()
    everything = [int(text) for text in read(tmp_path / "log", LogQuery())]
    assert everything == list(range(everything[0], 20))
    assert everything[0] > 0
    assert [int(text) for text in read(tmp_path / "log", LogQuery(tail=9))] == list(range(20))[-9:]


def test_times(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [f'{{"log":"{n}\\n","stream":"stdout","time":"1970-01-01T00:00:0{n}.5Z"}}\n' for n in range(5)]
    path.write_text("".join(lines) + '{"log":"cut sho')
    assert read(path, LogQuery(since=2 * 10**9, until=4 * 10**9)) == ["2\n", "3\n"]
    assert LogEntry(1, "1970-01-01T00:00:01.5Z", b"").padded_time == "1970-01-01T00:00:01.500000000Z"
    assert LogEntry(1, "1970-01-01T00:00:01Z", b"").padded_time == "1970-01-01T00:00:01.000000000Z"


def test_bytes_that_are_no_text_do_not_stop_anything(tmp_path: Path) -> None:
    log = writer(tmp_path / "log")
    log.write(1, b"\xff\xfe\n")
    log.write(1, b"after\n")
    log.close()
    assert asyncio.run(_count(tmp_path / "log")) == 2


async def _count(path: Path) -> int:
    return len([entry async for entry in logs.read(container(), str(path), LogQuery())])


def test_follow_until_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        source = container(running=True)
        log = writer(tmp_path / "log")
        log.write(1, b"old\n")
        log.write(1, b"before\n")
        found: list[str] = []

        async def follow() -> None:
            async for entry in logs.read(source, str(tmp_path / "log"), LogQuery(tail=1, follow=True)):
                found.append(entry.text.decode())

        task = asyncio.create_task(follow())
        while "before\n" not in found:
            await asyncio.sleep(0.01)
        log.write(2, b"now\n")
        while "now\n" not in found:
            await asyncio.sleep(0.01)
        log.write(1, b"last\n")
        log.close()
        source.process = None
        source.changed.set()
        await asyncio.wait_for(task, 10)
        assert found == ["before\n", "now\n", "last\n"]

    asyncio.run(scenario())


@pytest.mark.parametrize("files", [1, 3])
def test_follow_over_a_rotation(tmp_path: Path, files: int) -> None:
    async def scenario() -> None:
        source = container(running=True)
        log = writer(tmp_path / "log", max_size=200, max_file=files)
        found: list[int] = []

        async def follow() -> None:
            async for entry in logs.read(source, str(tmp_path / "log"), LogQuery(follow=True)):
                found.append(int(entry.text))

        task = asyncio.create_task(follow())
        for number in range(12):
            log.write(1, f"{number}\n".encode())
            while not found or found[-1] != number:
                await asyncio.sleep(0.005)
        source.changed.set()
        await asyncio.wait_for(task, 10)
        assert found == list(range(12))

    asyncio.run(scenario())


def test_a_driver_that_keeps_nothing() -> None:
    with pytest.raises(NotImplementedHere, match="does not support reading"):
        logs.check_readable(container(driver="none"))
