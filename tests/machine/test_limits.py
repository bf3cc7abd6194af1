"""Each limit is looked at from inside and made to bite."""

from __future__ import annotations

from tests.support.pybox_cli import Cli


def test_memory_kills_and_says_so(cli: Cli, debian: str, name: str) -> None:
    done = cli.run(
        "run", "--name", name, "-m", "64m", debian,
        "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max; exec tail /dev/zero",
    )  # fmt: skip
    assert done.out.split() == [str(64 << 20), str(64 << 20)]
    assert done.status == 137
    state = cli.json("inspect", name)[0]["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_cpus_throttle(cli: Cli, debian: str) -> None:
    script = "cat /sys/fs/cgroup/cpu.max; timeout 3 sh -c 'while :; do :; done'; grep nr_throttled /sys/fs/cgroup/cpu.stat"
    lines = cli.ok("run", "--rm", "--cpus", "0.25", debian, "sh", "-c", script).splitlines()
    assert lines[0] == "25000 100000"
    assert int(lines[1].split()[1]) > 5


def test_pids_refuse_a_fork(cli: Cli, debian: str) -> None:
    script = "cat /sys/fs/cgroup/pids.max; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait"
    done = cli.run("run", "--rm", "--pids-limit", "8", debian, "sh", "-c", script)
    assert done.out.split()[0] == "8"
    assert "annot fork" in done.err


def test_io_rate_is_kept(cli: Cli, debian: str) -> None:
    """Direct writes of 8 MiB at 4 MiB a second must show in the time that the kernel itself accounts."""
    script = (
        "cat /sys/fs/cgroup/io.max; start=$(date +%s%N); "
        "dd if=/dev/zero of=/data/x bs=256k count=32 oflag=direct 2>/dev/null; end=$(date +%s%N); "
        "echo $(( (end - start) / 1000000 ))"
    )
    device = "/dev/vdb"
    lines = cli.ok(
        "run", "--rm", "-v", "/data", "--device-write-bps", f"{device}:4mb", debian, "sh", "-c", script
    ).splitlines()
    assert f"wbps={4 << 20}" in lines[0]
    assert int(lines[1]) >= 1500  # a floor that the limit itself sets: it cannot be faster


def test_cpu_shares_and_cpuset(cli: Cli, debian: str) -> None:
    script = "cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpuset.cpus.effective; nproc"
    found = cli.ok("run", "--rm", "-c", "512", "--cpuset-cpus", "0", debian, "sh", "-c", script)
    assert found.split() == ["59", "0", "1"]


def test_ulimit_shm_and_tmpfs(cli: Cli, debian: str) -> None:
    script = "ulimit -n; ulimit -Hn; df -k /dev/shm /scratch | tail -2 | awk '{print $2}'"
    found = cli.ok(
        "run", "--rm", "--ulimit", "nofile=100:200", "--shm-size", "8m", "--tmpfs", "/scratch:size=4m", debian,
        "sh", "-c", script,
    )  # fmt: skip
    assert found.split() == ["100", "200", "8192", "4096"]


def test_impossible_limits_are_refused(cli: Cli, debian: str) -> None:
    done = cli.run("run", "--rm", "-m", "1m", debian, "true")
    assert done.status == 125
    assert "Minimum memory limit allowed is 6MB" in done.err
    done = cli.run("run", "--rm", "--cpus", "1000", debian, "true")
    assert done.status == 125
    assert "range of CPUs is from 0.01 to" in done.err.lower() or "Range of CPUs is from 0.01 to" in done.err
