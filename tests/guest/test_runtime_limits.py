"""Resources as the kernel enforces them. Needs the controllers of cgroup version 2."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pyboxd.errors import SystemFailure
from pyboxd.runtime import cgroup
from pyboxd.runtime.failure import StartFailure
from pyboxd.runtime.spec import Resources
from pyboxd.runtime.stats import read_stats
from tests.support.container_lab import Lab, has_controllers, in_lab, runtime

MB = 1 << 20


@pytest.fixture(autouse=True)
def _controllers() -> None:
    runtime()
    if not has_controllers("cpu", "memory", "pids"):
        pytest.skip("needs the controllers of cgroup version 2")


def test_limits_are_in_the_files(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        wanted = Resources(
            memory=64 * MB,
            memory_swap=64 * MB,
            memory_reservation=32 * MB,
            cpu_quota_us=50_000,
            cpu_shares=512,
            cpuset_cpus="0",
            pids_limit=20,
        )
        process = await lab.started(lab.spec("sleep", "100", resources=wanted))
        read = {name: Path(process.cgroup, name).read_text().strip() for name, _ in cgroup.files(wanted)}
        assert read.pop("memory.swap.max", "0") == "0"
        assert read == {
            "memory.max": str(64 * MB),
            "memory.low": str(32 * MB),
            "cpu.max": "50000 100000",
            "cpu.weight": "59",
            "cpuset.cpus": "0",
            "pids.max": "20",
        }
        stats = read_stats(process.cgroup)
        assert stats.memory_limit == 64 * MB and stats.pids_limit == 20 and stats.pids == 1
        assert 0 < stats.memory_usage < 64 * MB and stats.cpu_total_ns > 0 and "inactive_file" in stats.memory_stat
        cgroup.apply(process.cgroup, Resources(memory=128 * MB, pids_limit=-1))
        assert Path(process.cgroup, "memory.max").read_text() == f"{128 * MB}\n"
        assert Path(process.cgroup, "pids.max").read_text() == "max\n"
        with pytest.raises(SystemFailure, match=r"failed to write '77' to cpuset.cpus"):
            cgroup.apply(process.cgroup, Resources(cpuset_cpus="77"))
        await lab.stop(process)

    in_lab(tmp_path, scenario)


def test_too_much_memory_kills_and_is_told(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        limits = Resources(memory=16 * MB, memory_swap=16 * MB)
        text = "x=0123456789abcdef; while :; do x=$x$x; done"
        result = await lab.run(lab.script(text, resources=limits))
        assert result.code == 137 and result.exit.oom_killed
        # a child of the first process is killed, and the first one tells its own story
        result = await lab.run(lab.script(f"sh -c '{text}'; echo status $?; exit 5", resources=limits))
        assert result.text == "status 137\n"
        assert result.code == 5 and result.exit.oom_killed
        result = await lab.run(lab.script("exit 137", resources=limits))
        assert result.code == 137 and not result.exit.oom_killed

    in_lab(tmp_path, scenario)


def test_too_little_memory_to_begin_with(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with pytest.raises(StartFailure, match=r"container init was OOM-killed|the first process died"):
            process = await lab.runtime.create(lab.spec("true", resources=Resources(memory=4096, memory_swap=4096)))
            await process.start()

    in_lab(tmp_path, scenario)


def test_too_many_processes(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo made"
        result = await lab.run(lab.script(text, resources=Resources(pids_limit=4)))
        assert b"fork" in result.stderr and result.stdout != b"made\n"

    in_lab(tmp_path, scenario)


def test_a_container_with_groups_of_its_own(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = (
            "cd /sys/fs/cgroup; mkdir -p init deep/er; echo 1 > init/cgroup.procs; "
            "echo +pids > cgroup.subtree_control && echo ready; sleep 100"
        )
        container = lab.script(text, privileged=True)
        process = await lab.runtime.create(container)
        attachment = await process.attach(False, True, True)
        await process.start()
        assert await anext(attachment.frames()) == (1, b"ready\n")
        # the kernel wants no process in a group that hands controllers down
        spec = lab.exec_spec(container, process, "tail", "-1", "/proc/self/cgroup", privileged=True)
        assert (await lab.run(spec)).text == "0::/init\n"
        assert cgroup.processes(process.cgroup) == [process.pid]
        await attachment.close()
        ended = await lab.stop(process)
        assert ended.code == 137 and not Path(process.cgroup).exists()

    in_lab(tmp_path, scenario)


def test_many_at_once(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        results = await asyncio.gather(*[lab.run(lab.script(f"echo {n}; exit {n}")) for n in range(12)])
        assert [(result.code, result.text) for result in results] == [(n, f"{n}\n") for n in range(12)]

    in_lab(tmp_path, scenario)
