"""From Docker's resources to files of a cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyboxd import locations
from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.runtime import cgroup
from pyboxd.runtime.spec import IoLimit, Resources
from pyboxd.runtime.stats import BlockIo, read_stats

MB = 1 << 20


@pytest.mark.parametrize(
    ("resources", "files"),
    [
        (Resources(), []),
        (Resources(memory=64 * MB), [("memory.swap.max", str(64 * MB)), ("memory.max", str(64 * MB))]),
        (Resources(memory=64 * MB, memory_swap=64 * MB), [("memory.swap.max", "0"), ("memory.max", str(64 * MB))]),
        (Resources(memory=64 * MB, memory_swap=-1), [("memory.swap.max", "max"), ("memory.max", str(64 * MB))]),
        (Resources(memory=64 * MB, memory_swap=96 * MB), [("memory.swap.max", str(32 * MB)), ("memory.max", str(64 * MB))]),
        (Resources(memory=-1), [("memory.max", "max")]),
        (Resources(memory_reservation=5 * MB), [("memory.low", str(5 * MB))]),
        (Resources(cpu_quota_us=150_000), [("cpu.max", "150000 100000")]),
        (Resources(cpu_quota_us=-1, cpu_period_us=50_000), [("cpu.max", "max 50000")]),
        (Resources(cpu_shares=512), [("cpu.weight", "59")]),
        (Resources(cpuset_cpus="0-1", cpuset_mems="0"), [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        (Resources(pids_limit=100), [("pids.max", "100")]),
        (Resources(pids_limit=-1), [("pids.max", "max")]),
        (Resources(blkio_weight=10), [("io.weight", "default 1")]),
        (Resources(blkio_weight=1000), [("io.weight", "default 10000")]),
        (Resources(io=(IoLimit("/dev/x", read_bps=1, write_iops=2),)), [("io.max", "254:16 rbps=1 wiops=2")]),
    ],
)
def test_files(resources: Resources, files: list[tuple[str, str]]) -> None:
    assert cgroup.files(resources, lambda path: (254, 16)) == files


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (262144, 10000), (10**9, 10000)]
)
def test_cpu_weight(shares: int, weight: int) -> None:
    assert cgroup.cpu_weight(shares) == weight


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(memory=5 * MB), "Minimum memory limit allowed is 6MB"),
        (Resources(memory_swap=9 * MB), "You should always set the Memory limit"),
        (Resources(memory=9 * MB, memory_swap=8 * MB), "Minimum memoryswap limit should be larger"),
        (Resources(memory=9 * MB, memory_reservation=10 * MB), "less than memory reservation limit"),
        (Resources(cpu_quota_us=300_000), "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (Resources(cpu_quota_us=999), "CPU cfs quota can not be less than 1ms"),
        (Resources(cpu_period_us=10), "CPU cfs period can not be less than 1ms"),
        (Resources(blkio_weight=5), "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_what_cannot_be_is_refused_in_dockers_words(resources: Resources, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        cgroup.validate(resources, cpus=2)


def test_what_can_be_is_not_refused() -> None:
    cgroup.validate(Resources(memory=6 * MB, memory_swap=-1, cpu_quota_us=200_000, blkio_weight=10), cpus=2)


def test_the_path_of_a_cgroup_stays_below_the_root() -> None:
    assert cgroup.path_of("/docker", "abc") == f"{locations.CGROUP}/docker/abc"
    assert cgroup.path_of("docker//buildx/", "abc") == f"{locations.CGROUP}/docker/buildx/abc"
    for parent, name in (("/../x", "abc"), ("/docker/..", "abc"), ("/docker", "../abc")):
        with pytest.raises(InvalidArgument):
            cgroup.path_of(parent, name)


def test_stats_are_read_from_the_files(tmp_path: Path) -> None:
    for name, text in {
        "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.stat": "anon 10\ninactive_file 20\n",
        "memory.events": "low 0\nmax 6\noom_kill 0\n",
        "pids.current": "2\n",
        "pids.max": "100\n",
        "io.stat": "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 \n",
    }.items():
        (tmp_path / name).write_text(text)
    stats = read_stats(str(tmp_path))
    assert (stats.cpu_total_ns, stats.throttled_ns, stats.throttled_periods) == (5000, 9000, 1)
    assert (stats.memory_usage, stats.memory_limit, stats.memory_failures) == (4096, 0, 6)
    assert stats.memory_stat == {"anon": 10, "inactive_file": 20}
    assert (stats.pids, stats.pids_limit) == (2, 100)
    assert stats.block_io == (BlockIo(254, 0, 1, 2, 3, 4), BlockIo(253, 1, 0, 0, 0, 0))
    with pytest.raises(NotFound):
        read_stats(str(tmp_path / "gone"))
