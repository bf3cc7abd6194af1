"""What a container sees and may do."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli

# The slim image has no mount(8): the call itself, by its number on amd64.
MOUNT = """perl -e '$n = "none"; $t = "/mnt"; $f = "tmpfs"; exit !(syscall(165, $n, $t, $f, 0, 0) == 0)'"""
DEFAULT_CAPABILITIES = 0x00000000A80425FB  # the 14 of Docker's default set


def test_two_containers_share_nothing(cli: Cli, debian: str, name: str) -> None:
    cli.ok("run", "-d", "--name", name, "--hostname", "other", debian, "sh", "-c", "echo secret >/mark; exec sleep 987")
    script = (
        "ls /proc | grep -c '^[0-9]'; grep -c . /proc/net/dev; hostname; test -e /mark && echo visible;"
        "cat /proc/[0-9]*/comm | grep -x sleep; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done"
    )
    mine = cli.ok("run", "--rm", "--hostname", "mine", debian, "sh", "-c", script).splitlines()
    theirs = cli.ok("exec", name, "sh", "-c", "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done")
    assert "visible" not in mine and "sleep" not in mine
    assert "mine" in mine
    assert int(mine[0]) < 8
    assert not set(mine) & set(theirs.splitlines())


def test_capabilities_seccomp_and_no_inheritance(cli: Cli, debian: str) -> None:
    text = cli.ok("run", "--rm", debian, "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == int(fields["CapPrm"], 16) == DEFAULT_CAPABILITIES
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
    assert fields["Seccomp"] == "2"


def test_capabilities_can_be_dropped_and_added(cli: Cli, debian: str) -> None:
    text = cli.ok(
        "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", debian, "grep", "CapEff", "/proc/self/status"
    )
    assert int(text.split()[1], 16) == 1 << 12
    done = cli.run("run", "--rm", "--cap-add", "NONSENSE", debian, "true")
    assert done.status == 125 and "capability" in done.err and "NONSENSE" in done.err


@pytest.mark.parametrize(
    "script",
    [
        MOUNT,
        "unshare -m true",
        "unshare -U true",
        "echo 1 >/proc/sys/kernel/panic",
        "echo b >/proc/sysrq-trigger",
        "mknod /tmp/vdb b 254 16 && dd if=/tmp/vdb of=/dev/null count=1",
        "echo 1 >/sys/fs/cgroup/pids.max",
        "date -s @0",
        "chroot --userspec=0 / hostname changed",
        "cat /proc/kcore | head -c 1 | grep .",
        "cat /proc/keys | grep .",
    ],
)
def test_forbidden(cli: Cli, debian: str, script: str) -> None:
    done = cli.run("run", "--rm", debian, "sh", "-c", script)
    assert done.status != 0, f"{done}"


def test_masked_and_read_only_paths(cli: Cli, debian: str) -> None:
    script = (
        "ls -A /proc/acpi /sys/firmware 2>/dev/null | grep -v : ; "
        "for p in /proc/sys /proc/irq /proc/bus /proc/fs /proc/sysrq-trigger; do [ -w $p ] && echo writable $p; done; true"
    )
    assert cli.ok("run", "--rm", debian, "sh", "-c", script).split() == []


def test_read_only_root(cli: Cli, debian: str) -> None:
    done = cli.run("run", "--rm", "--read-only", "--tmpfs", "/tmp", debian, "sh", "-c", "echo x >/tmp/ok && echo x >/no")
    assert done.status != 0 and "Read-only file system" in done.err


def test_no_new_privileges(cli: Cli, debian: str) -> None:
    text = cli.ok("run", "--rm", "--security-opt", "no-new-privileges", debian, "grep", "NoNewPrivs", "/proc/self/status")
    assert text.split()[1] == "1"


def test_privileged_has_everything(cli: Cli, debian: str) -> None:
    text = cli.ok(
        "run",
        "--rm",
        "--privileged",
        debian,
        "sh",
        "-c",
        f"grep CapEff /proc/self/status; {MOUNT} && echo ok",
    )
    assert int(text.split()[1], 16) > 0x1FFFFFFFFFF - 1 and text.endswith("ok")


def test_only_three_descriptors_and_a_real_working_folder(cli: Cli, debian: str) -> None:
    text = cli.ok("run", "--rm", debian, "sh", "-c", "ls /proc/self/fd; readlink /proc/self/cwd")
    assert text.split() == ["0", "1", "2", "3", "/"]  # 3 is ls's own
    for number in (3, 7, 8, 9):
        assert cli.run("run", "--rm", "-w", f"/proc/self/fd/{number}", debian, "true").status != 0


def test_the_engine_is_out_of_reach(cli: Cli, debian: str) -> None:
    script = (
        "for address in 10.0.2.15 172.17.0.1; do for port in 2375 2376; do "
        'timeout 3 bash -c "exec 3<>/dev/tcp/$address/$port" 2>/dev/null && echo reached $address:$port; done; done; true'
    )
    assert cli.ok("run", "--rm", debian, "bash", "-c", script) == ""
    assert cli.run("run", "--rm", debian, "sh", "-c", "ls /run/docker.sock /var/run/docker.sock").status != 0


def test_symlinks_in_an_image_end_inside(cli: Cli, debian: str, name: str) -> None:
    """A container whose /etc and /proc are links: start fails or stays inside, and the next container is unharmed."""
    cli.ok("run", "--name", name, debian, "sh", "-c", "mv /etc /etc2; ln -s /proc/1/root/etc /etc; ln -sfn /etc /opt/dev")
    cli.run("start", "-a", name)
    assert cli.ok("run", "--rm", debian, "cat", "/etc/debian_version") != ""


def test_other_users_of_the_computer_do_not_reach_the_engine(cli: Cli) -> None:
    """The sockets are their owner's. At the loopback port a stranger gets no word (tests/contract/test_api_pipe.py)."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    sockets = [path for path in (cli.home / "run").rglob("*") if path.is_socket()]
    assert sockets
    mode = cli.home.stat().st_mode
    cli.home.chmod(0o755)  # the test's folder is nobody else's either, and shall not be what protects them
    try:
        for path in sockets:
            assert [error_of_connecting(path, user) for user in (0, 65534)] == [0, errno.EACCES], path
    finally:
        cli.home.chmod(mode)


def error_of_connecting(path: Path, user: int) -> int:
    """What connect(2) says to a process of that user."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os._exit(socket.socket(socket.AF_UNIX).connect_ex(str(path)))
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
