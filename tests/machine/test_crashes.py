"""A part of the machine is killed in the middle of everything: afterwards nothing is lost that was acknowledged, nothing
is half there, and nothing has to be repaired by hand."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine.test_machine import status, wait_until_gone
from tests.support.data_disk import untidy
from tests.support.pybox_cli import Cli
from tests.support.registry import running_registry
from tests.support.small_image import busybox, busybox_layer, image
from tests.support.wire import Wire

MIB = 1 << 20
PULLED, LOADED, BASE = "pulled", "loaded:1", "small:1"
# Small layers are complete long before the large one is, at which the wire holds.
PULLED_SIZES = (MIB // 2, MIB // 2, 6 * MIB, MIB // 2)
HOLD_AT = 5 * MIB
PARTS = ("qemu", "hostagent", "engine")


@dataclass(frozen=True)
class Material:
    """Archives of images for the tests, the registry's port, and a folder to build."""

    base: Path
    loaded: Path
    registry_port: int
    context: Path


@pytest.fixture(scope="module")
def material(other: Cli, home: Path) -> Iterator[Material]:
    folder = home / "crashes"
    context = folder / "context"
    context.mkdir(parents=True)
    layer = busybox_layer(busybox(other))
    for name, sizes in ((BASE, ()), (LOADED, (4 * MIB, 4 * MIB)), (PULLED, PULLED_SIZES)):
        archive = folder / f"{name.partition(':')[0]}.tar"
        archive.write_bytes(image(layer, *sizes, name=name).saved(name))
    (context / "data").write_bytes(os.urandom(MIB))
    (context / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY data /data\n"
        "ARG WAIT=1000\nRUN dd if=/data of=/copy bs=1024k && echo is working && sleep $WAIT\n"
        "RUN echo built >/built\n"
    )
    with running_registry(folder / "registry") as registry:
        registry.push(folder / f"{PULLED}.tar", f"team/{PULLED}:1")
        yield Material(folder / "small.tar", folder / "loaded.tar", int(registry.address.rpartition(":")[2]), context)


@dataclass(frozen=True)
class Crash:
    """What was going on when the part was killed, and what became of the clients."""

    part: str
    images: str  # ids, all that there were
    acknowledged: int  # the last number that the container had written and synced
    clients: dict[str, tuple[int, str]]  # exit status and standard error
    port: int  # of the registry, for the guest


@pytest.fixture(scope="module", params=PARTS)
def crash(request: pytest.FixtureRequest, other: Cli, material: Material) -> Iterator[Crash]:
    """Kill one part while a container writes, an image is loaded, one is pulled and one is built; then `pybox start`."""
    part = str(request.param)
    other.ok("load", "-i", str(material.base))
    step = "echo $i >/n/new; sync /n/new; mv /n/new /n/count; sync /n; echo $i"
    other.ok(
        "run", "-d", "--name", "writer", "-v", "numbers:/n", BASE, "sh", "-c", f"i=0; while :; do i=$((i+1)); {step}; done"
    )
    with Wire(material.registry_port, HOLD_AT) as wire:
        clients = {
            "build": other.start_process("build", "--no-cache", str(material.context)),
            "pull": other.start_process("pull", f"localhost:{wire.port}/team/{PULLED}:1"),
            "load": other.start_process("load"),
        }
        data = material.loaded.read_bytes()
        feed(clients["load"], data[: len(data) // 2])
        assert wire.reached.wait(120)
        wait_for_output(clients["build"], b"is working")
        wait_until_published(other)
        images = other.ok("images", "-aq", "--no-trunc")
        acknowledged = wait_for_number(other)
        assert all(client.poll() is None for client in clients.values()), "the kill would come too late"
        kill(other, part)
        endings = {name: ending(client) for name, client in clients.items()}
        other.ok("start")
        wait_until_it_answers(other)
        wire.release()
        yield Crash(part, images, acknowledged, endings, wire.port)
    other.run("rm", "-f", "writer")
    other.run("volume", "rm", "numbers")
    for identity in other.ok("images", "-q").split():
        other.run("rmi", "-f", identity)


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Send the first part of the input; the rest is never sent, and the input does not end."""
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def wait_for_output(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    seen = b""
    while text not in seen.replace(b"echo " + text, b""):  # the step's own line has the words, too
        data = os.read(process.stdout.fileno(), 4096)
        assert data, seen
        seen += data


def wait_for_number(other: Cli) -> int:
    """The last number that the writer has said, when it has said some."""
    deadline = time.monotonic() + 60
    while len(seen := other.ok("logs", "writer").split()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return int(seen[-1])


def wait_until_published(other: Cli) -> None:
    """Until a layer of the pull is in the store that no image has: exactly what must be gone after the crash."""
    deadline = time.monotonic() + 60
    while not any(line.startswith("layers/") for line in untidy(other)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def kill(other: Cli, part: str) -> None:
    found = status(other)
    if part == "engine":
        other.ok("ssh", "kill -9 $(pidof pyboxd-engine)")
        return
    os.kill(int(str(found["qemu_pid" if part == "qemu" else "pid"])), signal.SIGKILL)
    wait_until_gone(found["qemu_pid"])


def ending(client: subprocess.Popen[bytes]) -> tuple[int, str]:
    with contextlib.suppress(BrokenPipeError):
        assert client.stdin is not None
        client.stdin.close()
    client.stdin = None
    _, error = client.communicate(timeout=120)
    return client.returncode, error.decode()


def wait_until_it_answers(other: Cli) -> None:
    deadline = time.monotonic() + 120
    while other.run("ps").status != 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_every_client_fails_with_words(crash: Crash) -> None:
    for name, (code, error) in crash.clients.items():
        assert code == 1, (name, code, error)
        assert "Error: The connection to the engine was lost." in error, (name, error)
        assert "pybox status" in error and "Traceback" not in error, (name, error)


def test_what_was_synced_is_there(crash: Crash, other: Cli) -> None:
    assert int(other.ok("run", "--rm", "-v", "numbers:/n", BASE, "cat", "/n/count")) >= crash.acknowledged
    running = other.json("inspect", "writer")[0]["State"]["Running"]
    assert running is (crash.part == "engine")  # a container outlives the engine, and ends with the machine
    other.ok("rm", "-f", "writer")


def test_no_image_is_half_there(crash: Crash, other: Cli) -> None:
    assert other.ok("images", "-aq", "--no-trunc") == crash.images
    for name in (f"localhost:{crash.port}/team/{PULLED}:1", LOADED):
        done = other.run("image", "inspect", name)
        assert done.status == 1 and "No such image" in done.err
    for identity in crash.images.split():
        assert other.ok("run", "--rm", identity, "echo", "whole") == "whole"


def test_no_file_is_left(crash: Crash, other: Cli) -> None:
    deadline = time.monotonic() + 60  # it is swept in the background
    while left := untidy(other):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_no_process_is_left(crash: Crash, other: Cli) -> None:
    deadline = time.monotonic() + 30
    while "sleep 1000" in (seen := other.ok("ssh", "busybox", "ps")):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)


def test_everything_works_again(crash: Crash, other: Cli, material: Material) -> None:
    reference = f"localhost:{crash.port}/team/{PULLED}:1"
    assert "Downloaded newer image" in other.ok("pull", reference)
    assert f"Loaded image: {LOADED}" in other.ok("load", "-i", str(material.loaded))
    other.ok("build", "--build-arg", "WAIT=0", "-t", "built", str(material.context))
    names = [f"{PULLED}{number}" for number in range(len(PULLED_SIZES))]
    sums = other.ok("run", "--rm", reference, "busybox", "sha256sum", *names).split()
    contents = [random.Random(name).randbytes(size) for name, size in zip(names, PULLED_SIZES, strict=True)]
    assert sums[::2] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert other.ok("run", "--rm", LOADED, "echo", "loaded") == "loaded"
    assert other.ok("run", "--rm", "built", "cat", "/built") == "built"
    assert untidy(other) == []


def test_kill_9_of_the_engine_keeps_logs_and_exits(other: Cli, material: Material) -> None:
    other.ok("load", "-i", str(material.base))
    count = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 6"
    other.ok("run", "-d", "--name", "lives", BASE, "sh", "-c", count)
    kill(other, "engine")
    wait_until_it_answers(other)
    assert other.ok("wait", "lives") == "6"
    assert other.ok("logs", "lives").split() == [str(number) for number in range(1, 151)]
    other.ok("rm", "lives")
