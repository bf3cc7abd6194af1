"""The published ways out of containers, tried on this runtime, and what a container may do at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from pyboxd.errors import Unavailable
from pyboxd.runtime.client import Runtime
from pyboxd.runtime.failure import StartFailure
from pyboxd.runtime.spec import ExecSpec, Mount, Resources
from tests.support.container_lab import Lab, in_lab

CAPABILITIES = "CapInh:0000000000000000 CapPrm:{0} CapEff:{0} CapBnd:{1} CapAmb:0000000000000000"
DEFAULT = "00000000a80425fb"
READ_CAPS = "grep ^Cap /proc/self/status | tr -d '\\t' | tr '\\n' ' '"


@pytest.mark.parametrize(("user", "effective"), [("", DEFAULT), ("user", "0" * 16)])
def test_capabilities_of_run_and_exec(tmp_path: Path, user: str, effective: str) -> None:
    """CVE-2022-24769, CVE-2022-27650, CVE-2022-29162: nothing inheritable, nothing ambient."""

    async def scenario(lab: Lab) -> None:
        expected = CAPABILITIES.format(effective, DEFAULT)
        result = await lab.run(lab.script(READ_CAPS, user=user))
        assert result.text.strip() == expected
        result = await lab.run(lab.script(READ_CAPS, user=user, init=True))
        assert result.text.strip() == expected
        container = lab.spec("sleep", "100")
        running = await lab.started(container)
        spec = lab.exec_spec(container, running, "sh", "-c", READ_CAPS, user=user)
        assert (await lab.run(spec)).text.strip() == expected
        await lab.stop(running)

    in_lab(tmp_path, scenario)


def test_a_program_of_roots_is_not_run_by_others_with_leftover_capabilities(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        program = lab.image / "bin/private"
        program.write_bytes((lab.image / "bin/busybox").read_bytes())
        program.chmod(0o700)
        process = await lab.runtime.create(lab.spec("/bin/private", "true", user="user"))
        with pytest.raises(StartFailure, match="permission denied"):
            await process.start()

    in_lab(tmp_path, scenario)


def test_no_new_privileges_and_the_filter(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; unshare -U true 2>&1; echo $?"
        result = await lab.run(lab.script(text))
        assert result.text.splitlines()[:2] == ["NoNewPrivs:0", "Seccomp:2"]
        assert result.text.splitlines()[-1] == "1"
        result = await lab.run(lab.script(text, no_new_privileges=True))
        assert result.text.splitlines()[:2] == ["NoNewPrivs:1", "Seccomp:2"]
        result = await lab.run(lab.script(text, seccomp="unconfined"))
        assert result.text.splitlines()[:2] == ["NoNewPrivs:0", "Seccomp:0"]
        result = await lab.run(lab.script(text, privileged=True))
        assert result.text.splitlines()[:2] == ["NoNewPrivs:0", "Seccomp:0"]

    in_lab(tmp_path, scenario)


def test_a_profile_of_the_users_is_in_force(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        rules = '[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]'
        profile = f'{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rules}}}'
        result = await lab.run(lab.script("mkdir /x 2>&1; echo $?", seccomp=profile))
        assert "Input/output error" in result.text
        with pytest.raises(StartFailure, match="decoding seccomp profile failed"):
            await lab.runtime.create(lab.spec("true", seccomp="{"))

    in_lab(tmp_path, scenario)


def test_no_descriptor_of_the_guest_is_left_open(tmp_path: Path) -> None:
    """CVE-2024-21626: leaked descriptors, and a working directory behind one."""

    async def scenario(lab: Lab) -> None:
        text = "ls /proc/self/fd /proc/1/fd; pwd"
        result = await lab.run(lab.script(text))
        assert set(result.text.split()) == {"0", "1", "2", "3", "/proc/self/fd:", "/proc/1/fd:", "/"}  # 3 is of ls
        for number in range(3, 24):
            with pytest.raises(StartFailure, match="chdir to cwd"):
                await lab.runtime.create(lab.spec("true", cwd=f"/proc/self/fd/{number}"))
        (lab.image / "link").symlink_to("/proc/self/fd/8")
        with pytest.raises(StartFailure):
            await lab.runtime.create(lab.spec("true", cwd="/link"))
        container = lab.spec("sleep", "100")
        running = await lab.started(container)
        for number in range(3, 24):
            with pytest.raises(StartFailure, match="chdir to cwd"):
                spec = lab.exec_spec(container, running, "true", cwd=f"/proc/self/fd/{number}")
                await (await lab.runtime.exec(spec)).start()
        for cwd in ("/proc/1/cwd", "/proc/1/root", "/link"):
            with pytest.raises(StartFailure):
                await (await lab.runtime.exec(lab.exec_spec(container, running, "true", cwd=cwd))).start()
        result = await lab.run(lab.exec_spec(container, running, "sh", "-c", text))
        assert set(result.text.split()) <= {"0", "1", "2", "3", "/proc/self/fd:", "/proc/1/fd:", "/"}
        await lab.stop(running)

    in_lab(tmp_path, scenario)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("link", ["/etc", "../../../../../etc", "/nowhere"])
def test_images_whose_system_directories_are_links(tmp_path: Path, name: str, link: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: /proc, /sys and /dev must be where they seem to be."""

    async def scenario(lab: Lab) -> None:
        (lab.image / name).symlink_to(link)
        with pytest.raises(StartFailure, match="must be mounted on ordinary directory"):
            await lab.runtime.create(lab.spec("true"))

    in_lab(tmp_path, scenario)


def test_nothing_is_mounted_inside_proc(tmp_path: Path) -> None:
    """CVE-2025-52881: a /proc that lies could swallow what is written to it."""

    async def scenario(lab: Lab) -> None:
        (lab.folder / "fake").mkdir()
        for target in ("/proc", "/proc/self", "/proc/sys", "/link/sys"):
            (lab.image / "link").unlink(missing_ok=True)
            (lab.image / "link").symlink_to("/proc")
            mounts = (Mount("bind", str(lab.folder / "fake"), target),)
            with pytest.raises(StartFailure, match="inside /proc"):
                await lab.runtime.create(lab.spec("true", mounts=mounts))
            with pytest.raises(StartFailure, match="inside /proc"):
                await lab.runtime.create(lab.spec("true", mounts=(Mount("tmpfs", "", target),)))

    in_lab(tmp_path, scenario)


def test_what_is_masked_stays_masked(tmp_path: Path) -> None:
    """CVE-2025-31133: the mask is the guest's own /dev/null, whatever the image calls so."""

    async def scenario(lab: Lab) -> None:
        (lab.image / "dev").mkdir()
        (lab.image / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
        text = (
            "for p in acpi interrupts kcore keys timer_list scsi; do test -e /proc/$p && "
            "{ test -d /proc/$p && ls /proc/$p || cat /proc/$p; }; done | wc -c; ls /sys/firmware | wc -l;"
            'for p in bus fs irq sys sysrq-trigger; do test -e /proc/$p && grep -c "/proc/$p proc ro," /proc/mounts; done;'
            "echo x > /proc/sys/kernel/core_pattern; mount -o remount,rw /proc/sys; umount /proc/kcore"
        )
        result = await lab.run(lab.script(text))
        counts = result.text.split()
        assert counts[:2] == ["0", "0"] and set(counts[2:]) == {"1"}
        assert b"Read-only file system" in result.stderr and b"remount" not in result.stdout
        assert b"mount: permission denied" in result.stderr and b"Operation not permitted" in result.stderr

    in_lab(tmp_path, scenario)


def test_links_in_the_image_lead_into_the_image(tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: targets of mounts are made inside the root and nowhere else."""

    async def scenario(lab: Lab) -> None:
        outside = lab.folder / "outside"
        outside.mkdir()
        source = lab.folder / "source"
        source.write_text("content")
        (lab.image / "escape").symlink_to(str(outside))
        (lab.image / "up").symlink_to("../" * 20 + str(outside).lstrip("/"))
        mounts = tuple(Mount("bind", str(source), f"/{link}/made/here") for link in ("escape", "up"))
        result = await lab.run(lab.script("cat /escape/made/here; echo; readlink -f /up/made", mounts=mounts))
        assert result.text.split() == ["content", f"{outside}/made"]
        assert list(outside.iterdir()) == []

    in_lab(tmp_path, scenario)


def test_a_volume_that_changes_while_it_is_mounted_over(tmp_path: Path) -> None:
    """CVE-2021-30465: another container flips a directory and a link while targets are resolved through it."""

    async def scenario(lab: Lab) -> None:
        volume = lab.folder / "volume"
        (volume / "a").mkdir(parents=True)
        outside = lab.folder / "outside"
        outside.mkdir()
        before = Path("/proc/self/mounts").read_text()
        shared = Mount("bind", str(volume), "/v")
        text = f"cd /v; ln -s {outside} l; while :; do mv a b; mv l a; mv a l; mv b a; done 2>/dev/null"
        flipper = await lab.started(lab.script(text, mounts=(shared,)))
        inner = Mount("tmpfs", "", "/v/a/inner")
        for _ in range(40):
            try:
                await lab.run(lab.spec("true", mounts=(shared, inner)))
            except StartFailure:
                continue
        await lab.stop(flipper)
        assert list(outside.iterdir()) == []
        assert Path("/proc/self/mounts").read_text() == before

    in_lab(tmp_path, scenario)


def test_an_image_cannot_choose_the_console(tmp_path: Path) -> None:
    """CVE-2025-52565: the console is the terminal that the runtime made, by descriptor."""

    async def scenario(lab: Lab) -> None:
        (lab.image / "dev").mkdir()
        (lab.image / "dev/console").symlink_to("/proc/sys/kernel/core_pattern")
        (lab.image / "dev/pts").symlink_to("/etc")
        result = await lab.run(lab.script("stat -c %F /dev/console; ls /dev/pts", terminal=True))
        assert result.text.split("\r\n")[0] == "character special file"
        assert "ptmx" in result.text

    in_lab(tmp_path, scenario)


def test_the_runtime_cannot_be_overwritten_or_watched_from_inside(tmp_path: Path) -> None:
    """CVE-2019-5736, CVE-2016-9962: whoever enters a container is not to be traced, read or written."""

    async def scenario(lab: Lab) -> None:
        (lab.image / "self").symlink_to("/proc/self/exe")
        # A watcher that tries all it can on every process that appears while execs come in. What it sees counts
        # only if the process has not become the container's own program meanwhile.
        text = (
            "while :; do for p in /proc/[0-9]*; do case $(cat $p/comm 2>/dev/null) in monitor|python*|pytest) "
            'seen=$(ls $p/fd/; readlink $p/cwd; head -c 20 $p/environ); readlink $p/exe || test -z "$seen" || echo saw; '
            "(: > $p/exe) && echo written;; esac; done; done 2>/dev/null | grep -v busybox"
        )
        container = lab.script(text)
        running = await lab.started(container)
        attachment = await running.attach(False, True, False)
        python = Path(sys.executable).resolve()
        before = (python.stat().st_mtime_ns, python.stat().st_size)
        for _ in range(15):
            assert (await lab.run(lab.exec_spec(container, running, "true"))).code == 0
        with pytest.raises(StartFailure):
            # /proc/self/exe is the runtime's interpreter until execve: no magic link is executed by name
            process = await lab.runtime.exec(lab.exec_spec(container, running, "/nosuch/self"))
            await process.start()
        await running.kill_all()
        seen = b"".join([data async for _, data in attachment.frames()])
        await running.wait()
        assert seen == b""
        assert (python.stat().st_mtime_ns, python.stat().st_size) == before

    in_lab(tmp_path, scenario)


def test_the_first_process_of_init_is_as_closed_as_the_program(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = "grep -E '^(CapEff|Seccomp|Uid):' /proc/1/status | tr '\\t\\n' '  '; ls /proc/1/fd; cat /proc/1/environ"
        result = await lab.run(lab.script(text, init=True, user="user"))
        assert result.text.split() == [
            "Uid:",
            "1000",
            "1000",
            "1000",
            "1000",
            "CapEff:",
            "0000000000000000",
            "Seccomp:",
            "2",
        ]
        assert result.stderr.count(b"ermission denied") == 2

    in_lab(tmp_path, scenario)


def test_an_exec_into_a_process_that_is_not_the_containers_is_refused(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        container = lab.spec("sleep", "100")
        running = await lab.started(container)
        spec = lab.exec_spec(container, running, "true")
        wrong = ExecSpec(**{**vars(spec), "container_pid": os.getpid()})
        with pytest.raises(StartFailure, match="is not running"):
            await (await lab.runtime.exec(wrong)).start()
        await lab.stop(running)

    in_lab(tmp_path, scenario)


def test_the_runtimes_sockets_are_out_of_reach_on_the_hosts_network(tmp_path: Path) -> None:
    """CVE-2020-15257: nothing listens in the abstract name space, and the run directory is the engine's alone."""

    async def scenario(lab: Lab) -> None:
        spec = lab.script("cat /proc/net/unix", network="host")
        result = await lab.run(spec)
        assert "pyboxd" not in result.text.replace(str(lab.folder), "")
        assert all("@" not in line.split()[-1] or "pybox" not in line for line in result.text.splitlines()[1:])
        assert Path(spec.run_dir).stat().st_mode & 0o777 == 0o700

    in_lab(tmp_path, scenario)


def test_resources_are_not_the_containers_to_change(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        text = (
            "echo 1 > /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x; tail -1 /proc/self/cgroup; "
            "ls /sys/fs/cgroup | grep -c cgroup.kill"
        )
        result = await lab.run(lab.script(text, resources=Resources()))
        assert result.text.split() == ["0::/", "1"]
        assert result.stderr.count(b"Read-only file system") == 2

    in_lab(tmp_path, scenario)


def test_killing_the_spawner_leaves_containers_alone(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:

        own = Runtime.fork()
        spec = lab.spec("cat", open_stdin=True, stdin_once=True)
        process = await own.create(spec)
        await process.start()
        monitor = _parent(process.pid)
        os.kill(_parent(monitor), signal.SIGKILL)
        await asyncio.wait_for(own.wait_broken(), 10)
        with pytest.raises(Unavailable):
            await own.create(lab.spec("true"))
        attachment = await process.attach(True, True, True)
        await attachment.write(b"still here")
        await attachment.close_stdin()
        assert [data async for _, data in attachment.frames()] == [b"still here"]
        assert (await process.wait()).code == 0
        await own.close()

    in_lab(tmp_path, scenario)


def _parent(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("PPid")).split()[1])


def test_a_script_that_names_the_runtimes_own_program(tmp_path: Path) -> None:
    """CVE-2019-5736: `#!/proc/self/exe` makes the container run the interpreter; it must not be writable."""
    if not os.statvfs(os.path.realpath(sys.executable)).f_flag & os.ST_RDONLY:
        pytest.skip("needs the interpreter on a read-only file system, as in the guest")

    async def scenario(lab: Lab) -> None:
        script = lab.image / "bin/attack"
        script.write_text("#!/proc/self/exe\nopen('/proc/self/exe', 'r+b')\nprint('written')\n")
        script.chmod(0o755)
        try:
            result = await lab.run(lab.spec("/bin/attack"))
        except StartFailure:
            return
        assert b"written" not in result.stdout and result.code != 0

    in_lab(tmp_path, scenario)
