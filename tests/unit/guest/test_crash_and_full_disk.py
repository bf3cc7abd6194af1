"""What the engine does about a step of a build that outlived an engine, and about a disk that takes nothing more."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyboxd.engine import supervision
from pyboxd.engine.containers import Containers
from pyboxd.engine.model import Record, Status
from pyboxd.engine.store import Store
from pyboxd.errors import SystemFailure
from tests.support.image_lab import ImageLab, Sample, tar
from tests.unit.guest.test_engine_lifecycle import FakeProcess, Lab


def test_a_step_that_outlived_its_engine_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stray = "s" * 64
    (tmp_path / stray / "deep").mkdir(parents=True)
    monkeypatch.setattr(supervision, "running_ids", lambda: [stray])
    monkeypatch.setattr(supervision, "run_directory_of", lambda name: f"{tmp_path}/{name}")

    async def scenario() -> None:
        lab = Lab()
        process = lab.found = FakeProcess(lab, 7)
        await process.start()
        await lab.supervisor.recover()
        assert (await process.wait()).code == 137
        assert process.closed
        assert lab.detached == [""]
        assert list(tmp_path.iterdir()) == []

    asyncio.run(scenario())


class FullStore(Store):
    """Takes nothing while it is full."""

    full = False

    def save_container(self, record: Record) -> None:
        if self.full:
            raise SystemFailure("no space left on device")
        super().save_container(record)


def test_a_container_ends_on_a_full_disk() -> None:
    async def scenario() -> None:
        lab = Lab()
        store = FullStore(lab.database)
        lab.containers._store = store
        box = lab.add()
        await lab.lifecycle.start(box)
        store.full = True
        lab.process.end(3)
        while box.state.status != Status.EXITED:
            await asyncio.sleep(0.01)
        assert box.state.exit_code == 3
        store.full = False
        lab.containers.set_state(box, error="something later")
        (stored,) = Containers(Store(lab.database))
        assert (stored.state.status, stored.state.exit_code) == (Status.EXITED, 3)

    asyncio.run(scenario())


def test_an_image_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def chunks() -> AsyncIterator[bytes]:
        yield Sample.of(tar({"file": b"data"})).saved("a")

    lab = ImageLab(tmp_path)
    monkeypatch.setattr("pyboxd.image.transfer.os.makedirs", full)
    with pytest.raises(SystemFailure, match="write layer: no space left on device"):
        asyncio.run(lab.images.load(chunks(), lab.said.append))
    monkeypatch.undo()
    lab.assert_empty()
    lab.close()
