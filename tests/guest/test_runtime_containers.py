"""Containers as a whole: what a program finds around it, how it starts, ends, and fails to start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from pyboxd import locations
from pyboxd.errors import Conflict, NotFound, SystemFailure
from pyboxd.runtime.failure import CommandFailure, StartFailure
from pyboxd.runtime.spec import Device, ExecSpec, Exit, Mount, RootFilesystem
from tests.support.container_lab import Lab, in_lab

CONTAINER = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: "
)
EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "


def test_a_program_runs_and_its_status_and_output_come_back(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("echo out; echo err >&2; exit 7")
        result = await lab.run(spec)
        assert (result.code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
        assert not result.exit.oom_killed
        recorded = json.loads(Path(spec.run_dir, "exit.json").read_text())
        assert recorded["code"] == 7

    in_lab(tmp_path, scenario)


def test_a_signal_counts_as_128_plus_its_number(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        assert (await lab.run(lab.script("kill -9 $$", init=True))).code == 137
        process = await lab.runtime.create(lab.script("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
        attachment = await process.attach(False, True, False)
        await process.start()
        await anext(attachment.frames())
        await process.signal(signal.SIGTERM)
        assert (await process.wait()).code == 5
        process = await lab.started(lab.spec("sleep", "100"))
        await process.signal(signal.SIGKILL)
        assert (await process.wait()).code == 137
        with pytest.raises(NotFound):
            await process.signal(signal.SIGTERM)

    in_lab(tmp_path, scenario)


def test_the_environment_has_what_programs_expect(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        result = await lab.run(lab.spec("env", hostname="box", env=("A=1", "A=2", "HOME=/elsewhere")))
        lines = set(result.text.splitlines())
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        assert lines == {path, "HOME=/elsewhere", "HOSTNAME=box", "A=2"}
        result = await lab.run(lab.spec("env", user="user"))
        assert "HOME=/home/user" in result.text
        result = await lab.run(lab.script("hostname; umask; pwd; echo $$", hostname="box", cwd="/made/by/us"))
        assert result.text.split() == ["box", "0022", "/made/by/us", "1"]

    in_lab(tmp_path, scenario)


@pytest.mark.parametrize(
    ("args", "detail", "code"),
    [
        (("nosuch",), 'exec: "nosuch": executable file not found in $PATH: unknown', 127),
        (("/nosuch",), 'exec: "/nosuch": stat /nosuch: no such file or directory: unknown', 127),
        (("/etc",), 'exec: "/etc": is a directory: unknown: permission denied', 126),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied: unknown', 126),
        (("/etc/script",), "exec /etc/script: no such file or directory: unknown", 127),
        (("/etc/garbage",), "exec /etc/garbage: exec format error: unknown", 126),
    ],
)
def test_a_command_that_cannot_run_fails_in_dockers_words(
    tmp_path: Path, args: tuple[str, ...], detail: str, code: int
) -> None:
    async def scenario(lab: Lab) -> None:
        for name, text in (("script", "#!/no/interpreter\n"), ("garbage", "\x01\x02\x03\x04")):
            (lab.image / "etc" / name).write_text(text)
            (lab.image / "etc" / name).chmod(0o755)
        process = await lab.runtime.create(lab.spec(*args))
        with pytest.raises(CommandFailure) as caught:
            await process.start()
        assert str(caught.value) == f"{CONTAINER}{detail}"
        assert caught.value.exit_code == code

        container = lab.spec("sleep", "100")
        running = await lab.started(container)
        process = await lab.runtime.exec(lab.exec_spec(container, running, *args))
        with pytest.raises(CommandFailure) as caught:
            await process.start()
        assert str(caught.value) == f"{EXEC}{detail}"
        await lab.stop(running)

    in_lab(tmp_path, scenario)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("0:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_a_user_that_is_not_there_is_told_plainly(tmp_path: Path, user: str, message: str) -> None:
    async def scenario(lab: Lab) -> None:
        with pytest.raises(StartFailure) as caught:
            await lab.runtime.create(lab.spec("true", user=user))
        assert str(caught.value) == message

    in_lab(tmp_path, scenario)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root)"),
        ("user", "uid=1000(user) gid=1000(user) groups=1001(extra),1002(more),1000(user)"),
        ("1000", "uid=1000(user) gid=1000(user) groups=1001(extra),1002(more),1000(user)"),
        ("0:", "uid=0(root) gid=0(root)"),
        (":33", "uid=0(root) gid=33"),
        ("user:extra", "uid=1000(user) gid=1001(extra)"),
        ("12345", "uid=12345 gid=0(root)"),
    ],
)
def test_a_user_is_found_in_the_images_own_files(tmp_path: Path, user: str, expected: str) -> None:
    async def scenario(lab: Lab) -> None:
        result = await lab.run(lab.spec("id", user=user))
        said = result.text.strip()
        head, _, groups = expected.partition(" groups=")
        assert said.startswith(head)
        assert set(groups.split(",")) - {""} <= set(said.partition("groups=")[2].split(","))

    in_lab(tmp_path, scenario)


def test_user_files_that_are_traps_are_left_alone(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        (lab.image / "etc/passwd").unlink()
        os.mkfifo(lab.image / "etc/passwd")
        (lab.image / "etc/group").unlink()
        (lab.image / "etc/group").symlink_to("/../../../../../../etc/group")
        assert (await lab.run(lab.spec("true", user="5"))).code == 0
        with pytest.raises(StartFailure, match="unable to find user daemon"):
            await lab.runtime.create(lab.spec("true", user="daemon"))

    in_lab(tmp_path, scenario)


def test_a_bind_mount_that_is_not_there_fails_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.spec("true", mounts=(Mount("bind", "/no/such", "/x"),))
        with pytest.raises(StartFailure, match=r'error mounting "/no/such" to rootfs at "/x".*no such file or directory'):
            await lab.runtime.create(spec)
        assert not os.path.exists(f"{locations.CGROUP}/docker/{spec.id}")

    in_lab(tmp_path, scenario)


def test_mounts_of_the_user(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        source = lab.folder / "source"
        (source / "deep").mkdir(parents=True)
        (source / "file").write_text("hello")
        mounts = (
            Mount("bind", str(source), "/data/inner"),
            Mount("bind", str(source / "file"), "/data/ro/file", readonly=True),
            Mount("tmpfs", "", "/data", options=("size=1m", "mode=700")),
            Mount("tmpfs", "", "/run/x", options=("exec", "size=64k")),
            Mount("bind", str(source / "file"), "/etc/resolv.conf"),
        )
        (lab.image / "etc/resolv.conf").symlink_to("../run/dangling/resolv.conf")
        text = (
            "cat /data/inner/file /data/ro/file /etc/resolv.conf; echo new > /data/inner/new; "
            "echo x > /data/ro/file; grep ' /data ' /proc/mounts; grep /run/x /proc/mounts; stat -c %a /data"
        )
        result = await lab.run(lab.script(text, mounts=mounts))
        lines = result.text.splitlines()
        assert lines[0].startswith("hellohellohello")
        assert "rw,nosuid,nodev,noexec" in lines[0] and "size=1024k" in lines[0]
        assert "noexec" not in lines[1] and "size=64k" in lines[1]
        assert lines[2] == "700"
        assert b"Read-only file system" in result.stderr
        assert (source / "new").read_text() == "new\n"

    in_lab(tmp_path, scenario)


def test_a_read_only_bind_is_read_only_below_too(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "touch /host/shm/x 2>&1; touch /host/x 2>&1"
        result = await lab.run(lab.script(text, mounts=(Mount("bind", "/dev", "/host", readonly=True),)))
        assert result.text.count("Read-only file system") == 2

    in_lab(tmp_path, scenario)


def test_a_read_only_root_and_an_empty_one(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("touch /x 2>&1; touch /dev/shm/x && echo fine")
        root = RootFilesystem(spec.root.lower, spec.root.upper, spec.root.work, readonly=True)
        result = await lab.run(lab.script("touch /x 2>&1; touch /dev/shm/x && echo fine", root=root))
        assert "Read-only file system" in result.text and "fine" in result.text
        upper, work = lab.folder / "eu", lab.folder / "ew"
        (upper / "bin").mkdir(parents=True)
        work.mkdir()
        (upper / "bin/busybox").write_bytes((lab.image / "bin/busybox").read_bytes())
        (upper / "bin/busybox").chmod(0o755)
        scratch = RootFilesystem((), str(upper), str(work))
        assert (await lab.run(lab.spec("/bin/busybox", "true", root=scratch))).code == 0

    in_lab(tmp_path, scenario)


def test_devices(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "head -c1 /dev/zero | wc -c; head -c1 /dev/fuller >/dev/null && echo read; echo x > /dev/fuller"
        result = await lab.run(lab.script(text, devices=(Device("/dev/full", "/dev/fuller", "r"),)))
        assert result.text.split() == ["1", "read"]
        text = "mknod /kmsg c 1 11 && echo made; cat /kmsg 2>&1 | head -1"
        result = await lab.run(lab.script(text))
        assert result.text.splitlines()[0] == "made" and "Operation not permitted" in result.text
        result = await lab.run(lab.script("test -c /dev/kmsg && head -c0 /dev/kmsg && echo all", privileged=True))
        assert result.text == "all\n"

    in_lab(tmp_path, scenario)


def test_a_container_that_is_not_started_goes_with_its_engine(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.spec("true")
        process = await lab.runtime.create(spec)
        await process.close()
        for _ in range(200):
            if not os.path.exists(f"{locations.CGROUP}/docker/{spec.id}"):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("still there")

    in_lab(tmp_path, scenario)


def test_a_created_container_can_be_killed(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.runtime.create(lab.spec("true"))
        await process.kill_all()
        with pytest.raises(StartFailure):
            await process.start()

    in_lab(tmp_path, scenario)


def test_an_engine_finds_its_containers_again(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("echo before; read x; echo got $x; exit 3", open_stdin=True)
        process = await lab.started(spec)
        await process.close()
        again = await lab.runtime.recover(spec.run_dir)
        assert not isinstance(again, Exit)
        assert again.pid == process.pid and again.started
        attachment = await again.attach(True, True, True)
        await attachment.write(b"word\n")
        assert (await again.wait()).code == 3
        recorded = await lab.runtime.recover(spec.run_dir)
        assert isinstance(recorded, Exit) and recorded.code == 3
        log = [json.loads(line)["log"] for line in Path(spec.log.path).read_text().splitlines()]
        assert log == ["before\n", "got word\n"]
        with pytest.raises(NotFound):
            await lab.runtime.recover(str(lab.folder / "nothing"))

    in_lab(tmp_path, scenario)


def test_a_container_ends_with_its_monitor(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.spec("sleep", "100")
        process = await lab.started(spec)
        monitor = int(next(line for line in _status(process.pid) if line.startswith("PPid")).split()[1])
        os.kill(monitor, signal.SIGKILL)
        assert (await process.wait()).code == 137
        assert not os.path.exists(process.cgroup)
        recorded = await lab.runtime.recover(spec.run_dir)
        assert isinstance(recorded, Exit) and recorded.code == 137

    in_lab(tmp_path, scenario)


def _status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def test_everything_in_the_container_ends_with_its_first_process(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        result = await lab.run(lab.script("sleep 100 & sleep 100 & echo started"))
        assert (result.code, result.stdout) == (0, b"started\n")
        result = await lab.run(lab.script("sleep 100 & echo started", pid_mode="host"))
        assert (result.code, result.stdout) == (0, b"started\n")

    in_lab(tmp_path, scenario)


def test_init_reaps_and_passes_signals_on(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
        process = await lab.runtime.create(lab.script(text, init=True, user="user"))
        attachment = await process.attach(False, True, True)
        frames = attachment.frames()
        await process.start()
        assert (await anext(frames))[1] == b"ready\n"
        await process.signal(signal.SIGTERM)
        assert (await anext(frames))[1] == b"got it\n"
        assert (await process.wait()).code == 9
        await attachment.close()
        # a grandchild whose parent is gone is reaped by the first process
        text = "sh -c 'sleep 0.2 & echo $! > /tmp/pid'; sleep 0.5; test -d /proc/$(cat /tmp/pid) || echo reaped"
        result = await lab.run(lab.script(text, init=True))
        assert result.stdout == b"reaped\n"
        process = await lab.runtime.create(lab.spec("nosuch", init=True))
        with pytest.raises(CommandFailure, match="executable file not found"):
            await process.start()

    in_lab(tmp_path, scenario)


def test_exec(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        container = lab.spec("sleep", "100", hostname="box")
        running = await lab.started(container)
        text = "hostname; pwd; id -u; id -G; cat /proc/1/comm; env | grep -c HOSTNAME; cat; exit 4"
        spec = lab.exec_spec(container, running, "sh", "-c", text, user="user", cwd="/tmp", open_stdin=True)
        result = await lab.run(spec, stdin=b"typed")
        assert result.code == 4
        assert result.text.split() == ["box", "/tmp", "1000", "1000", "1001", "1002", "sleep", "0", "typed"]
        assert not result.exit.oom_killed
        spec = lab.exec_spec(container, running, "true", cwd="/nope")
        with pytest.raises(StartFailure, match=r'chdir to cwd \("/nope"\) set in config.json failed.*no such file'):
            await (await lab.runtime.exec(spec)).start()
        long = await lab.runtime.exec(lab.exec_spec(container, running, "sleep", "100"))
        await long.start()
        await long.kill_all()
        assert (await long.wait()).code == 137
        await lab.stop(running)
        with pytest.raises(Conflict):
            await _exec_gone(lab, lab.exec_spec(container, running, "true"))

    in_lab(tmp_path, scenario)


async def _exec_gone(lab: Lab, spec: ExecSpec) -> None:
    try:
        await (await lab.runtime.exec(spec)).start()
    except StartFailure as error:
        assert "is not running" in str(error)
        raise Conflict(str(error)) from error


def test_pause_and_unpause(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.started(lab.script("while :; do sleep 0.01; done"))
        await process.pause()
        assert "frozen 1" in Path(process.cgroup, "cgroup.events").read_text()
        await process.unpause()
        assert "frozen 0" in Path(process.cgroup, "cgroup.events").read_text()
        await process.pause()
        assert (await lab.stop(process)).code == 137

    in_lab(tmp_path, scenario)


def test_namespaces_of_another_container(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        first = lab.script("echo shared > /dev/shm/file; echo $$; sleep 100", hostname="first")
        process = await lab.started(first)
        pid = process.pid
        modes = {name: f"/proc/{pid}/ns/{name}" for name in ("ipc", "pid", "uts", "net")}
        text = "until cat /dev/shm/file; do sleep 0.05; done; hostname; cat /proc/1/comm; ls /sys/class/net"
        second = lab.script(text, ipc_mode=modes["ipc"], pid_mode=modes["pid"], uts_mode=modes["uts"], network=modes["net"])
        result = await lab.run(second)
        shared, hostname, command, *interfaces = result.text.split()
        assert (shared, hostname, interfaces) == ("shared", "first", ["lo"]) and command in ("sh", "sleep")
        await lab.stop(process)

    in_lab(tmp_path, scenario)


def test_sysctls_of_the_containers_own(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax; echo 1 > /proc/sys/kernel/msgmax"
        result = await lab.run(lab.script(text, sysctls=(("kernel.msgmax", "4242"),)))
        assert result.text.split() == ["0", "4242"]
        assert b"Read-only file system" in result.stderr

    in_lab(tmp_path, scenario)


def test_helpers(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        script = "cat; echo err >&2; exit 3"
        result = await lab.runtime.run_helper(["/bin/sh", "-c", script], stdin=b"x" * 300_000)
        assert (result.status, len(result.stdout), result.stderr) == (3, 300_000, b"err\n")
        result = await lab.runtime.run_helper(["/bin/sh", "-c", "kill -9 $$"])
        assert result.status == 137
        with pytest.raises(SystemFailure, match="No such file"):
            await lab.runtime.run_helper(["/no/such/program"])
        with pytest.raises(SystemFailure, match="took too long"):
            await lab.runtime.run_helper(["/bin/sh", "-c", "sleep 100 & sleep 100"], timeout=0.3)
        marker = f"{lab.folder}/pid"
        task = asyncio.create_task(lab.runtime.run_helper(["/bin/sh", "-c", f"echo $$ > {marker}; sleep 100"]))
        while not (os.path.exists(marker) and Path(marker).read_text().strip()):
            await asyncio.sleep(0.02)
        task.cancel()
        pid = int(Path(marker).read_text())
        for _ in range(200):
            if not os.path.exists(f"/proc/{pid}"):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the helper lives on")

    in_lab(tmp_path, scenario)
