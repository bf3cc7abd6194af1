"""What goes into a process and comes out of it: pipes, terminals, the log, and those who do not read."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from pyboxd.errors import Conflict, NotFound
from pyboxd.runtime.client import Attachment, Process
from pyboxd.runtime.spec import LogSettings
from tests.support.container_lab import Lab, collect, in_lab


def logged(lab: Lab, path: str) -> str:
    return "".join(json.loads(line)["log"] for line in Path(path).read_text().splitlines())


async def until(attachment: Attachment, text: bytes) -> bytes:
    """Read until some text has come."""
    seen = b""
    async for _, data in attachment.frames():
        seen += data
        if text in seen:
            return seen
    raise AssertionError(f"ended with {seen!r}")


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def parent(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("PPid")).split()[1])


def test_input_goes_in_and_its_end_too(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        data = bytes(range(256)) * 4000
        result = await lab.run(lab.spec("cat", open_stdin=True, stdin_once=True), stdin=data)
        assert result.stdout == data and result.code == 0
        result = await lab.run(lab.spec("cat"))
        assert result.stdout == b"" and result.code == 0

    in_lab(tmp_path, scenario)


def test_without_stdin_once_the_input_stays_open(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.started(lab.script("read a; echo got $a; read b; echo got $b", open_stdin=True))
        for word in (b"one", b"two"):
            attachment = await process.attach(True, True, True)
            await attachment.write(word + b"\n")
            assert await until(attachment, b"\n") == b"got " + word + b"\n"
            await attachment.close_stdin()
            await attachment.close()
        assert (await process.wait()).code == 0

    in_lab(tmp_path, scenario)


def test_with_stdin_once_the_input_ends_with_the_one_who_fed_it(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("cat; echo done", open_stdin=True, stdin_once=True)
        process = await lab.started(spec)
        attachment = await process.attach(True, False, False)
        await attachment.write(b"x" * 100_000)
        await attachment.close()
        assert (await process.wait()).code == 0
        assert logged(lab, spec.log.path) == "x" * 100_000 + "done\n"

    in_lab(tmp_path, scenario)


def test_input_before_the_start_waits(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.runtime.create(lab.spec("cat", open_stdin=True, stdin_once=True))
        attachment = await process.attach(True, True, True)
        await attachment.write(b"early")
        await attachment.close_stdin()
        await process.start()
        assert (await collect(attachment))[0] == b"early"
        await process.wait()

    in_lab(tmp_path, scenario)


def test_a_process_that_closes_its_input_does_not_stop_the_feeder(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.started(lab.script("exec 0<&-; sleep 0.5; echo end", open_stdin=True))
        attachment = await process.attach(True, True, True)
        for _ in range(20):
            await attachment.write(b"x" * 65536)
        assert (await collect(attachment))[0] == b"end\n"
        await process.wait()

    in_lab(tmp_path, scenario)


def test_several_follow_the_same_output(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.runtime.create(lab.script("echo out; echo err >&2"))
        both = await process.attach(False, True, True)
        out = await process.attach(False, True, False)
        err = await process.attach(False, False, True)
        none = await process.attach(False, False, False)
        await process.start()
        results = await asyncio.gather(*[collect(attachment) for attachment in (both, out, err, none)])
        assert results == [(b"out\n", b"err\n"), (b"out\n", b""), (b"", b"err\n"), (b"", b"")]
        await process.wait()
        with pytest.raises(NotFound):
            await process.attach(False, True, True)

    in_lab(tmp_path, scenario)


def test_one_who_does_not_read_makes_the_process_wait_and_nothing_grow(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("head -c 30000000 /dev/zero | tr '\\0' 'x'; echo end", log=LogSettings("none"))
        process = await lab.runtime.create(spec)
        attachment = await process.attach(False, True, True)
        await process.start()
        await asyncio.sleep(1)
        monitor = parent(process.pid)
        assert os.path.exists(f"/proc/{process.pid}")
        assert memory(monitor) < 60 << 20
        # another one comes and goes, and the first one still gets all there is
        other = await process.attach(False, True, False)
        await other.close()
        out, _ = await collect(attachment)
        assert len(out) == 30_000_004 and out.endswith(b"xend\n")
        await process.wait()

    in_lab(tmp_path, scenario)


def test_one_who_dies_without_reading_is_dropped(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("head -c 3000000 /dev/zero | tr '\\0' 'x'; echo end")
        process = await lab.runtime.create(spec)
        attachment = await process.attach(False, True, True)
        await process.start()
        await asyncio.sleep(0.3)
        await attachment.close()
        assert (await process.wait()).code == 0
        assert len(logged(lab, spec.log.path)) == 3_000_004

    in_lab(tmp_path, scenario)


def test_output_that_is_left_when_the_process_ends_is_not_lost(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        for _ in range(5):
            spec = lab.script("head -c 60000 /dev/zero | tr '\\0' 'x'; echo; echo last")
            result = await lab.run(spec)
            assert result.stdout.endswith(b"x\nlast\n") and len(result.stdout) == 60_006
            assert len(logged(lab, spec.log.path)) == 60_006

    in_lab(tmp_path, scenario)


def test_an_exec_ends_although_others_keep_its_output_open(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        container = lab.spec("sleep", "100")
        running = await lab.started(container)
        spec = lab.exec_spec(container, running, "sh", "-c", "sleep 90 & echo gone")
        result = await asyncio.wait_for(lab.run(spec), 30)
        assert result.stdout == b"gone\n"
        await lab.stop(running)

    in_lab(tmp_path, scenario)


async def _terminal(lab: Lab, process: Process, attachment: Attachment) -> None:
    await attachment.write(b"stty size; tty; echo err >&2; test -t 0 && test -t 1 && test -t 2 && echo a''ll\r")
    seen = await until(attachment, b"all\r\n")
    assert b"24 80\r\n" in seen and b"/dev/pts/0\r\n" in seen and b"err\r\n" in seen
    await process.resize(50, 132)
    await attachment.write(b"stty size\r")
    await until(attachment, b"50 132")
    await attachment.write(b"sleep 100\r")
    await until(attachment, b"sleep 100")
    await asyncio.sleep(0.3)
    await attachment.write(b"\x03")  # the line discipline makes it SIGINT for the foreground
    await attachment.write(b"echo sta''tus $?\r")
    await until(attachment, b"status 130")
    await attachment.write(b"exit 3\r")
    assert (await process.wait()).code == 3


@pytest.mark.parametrize(("user", "init"), [("", False), ("user", False), ("", True)])
def test_a_terminal(tmp_path: Path, user: str, init: bool) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.spec("sh", terminal=True, open_stdin=True, console_size=(24, 80), user=user, init=init)
        process = await lab.runtime.create(spec)
        attachment = await process.attach(True, True, True)
        await process.start()
        await _terminal(lab, process, attachment)
        await attachment.close()
        assert "all\r\n" in logged(lab, spec.log.path)

    in_lab(tmp_path, scenario)


def test_a_terminal_of_an_exec(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        container = lab.spec("sleep", "100")
        running = await lab.started(container)
        spec = lab.exec_spec(container, running, "sh", terminal=True, open_stdin=True, console_size=(24, 80))
        process = await lab.runtime.exec(spec)
        attachment = await process.attach(True, True, True)
        await process.start()
        await _terminal(lab, process, attachment)
        await lab.stop(running)

    in_lab(tmp_path, scenario)


def test_the_console_is_the_terminal(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        process = await lab.runtime.create(lab.script("echo through > /dev/console; echo $TERM", terminal=True))
        attachment = await process.attach(False, True, True)
        await process.start()
        assert (await collect(attachment))[0] == b"through\r\nxterm\r\n"
        await process.wait()
        process = await lab.started(lab.spec("sleep", "100"))
        with pytest.raises(Conflict):
            await process.resize(1, 2)
        await lab.stop(process)

    in_lab(tmp_path, scenario)


def test_a_detached_container_is_logged(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        spec = lab.script("for i in 1 2 3; do echo line $i; done; echo error >&2; printf end")
        process = await lab.started(spec)
        assert (await process.wait()).code == 0
        lines = [json.loads(line) for line in Path(spec.log.path).read_text().splitlines()]
        by_stream = {name: [e["log"] for e in lines if e["stream"] == name] for name in ("stdout", "stderr")}
        assert by_stream == {"stdout": ["line 1\n", "line 2\n", "line 3\n", "end"], "stderr": ["error\n"]}

    in_lab(tmp_path, scenario)
