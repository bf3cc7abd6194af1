"""QEMU's command line: pure, so all systems and architectures are tested on each."""

from __future__ import annotations

from pathlib import Path

import pytest

from pybox.frozen import replace
from pybox.model import Accelerator, Arch
from pybox.qemu.command import (
    BakeMachine,
    Board,
    Channel,
    Channels,
    EngineMachine,
    InheritedSocket,
    LoopbackPort,
    bake_command,
    engine_command,
)

SYSTEMS: dict[str, tuple[Accelerator, Channel]] = {
    "linux": (Accelerator.KVM, InheritedSocket(7)),
    "macos": (Accelerator.HVF, InheritedSocket(7)),
    "windows": (Accelerator.WHPX, LoopbackPort(4711)),
}


def board(arch: Arch = Arch.AMD64, accelerator: Accelerator = Accelerator.TCG) -> Board:
    return Board(
        program=Path("/opt/qemu"),
        arch=arch,
        accelerator=accelerator,
        memory_mib=2048,
        cpus=2,
        kernel=Path("/image/vmlinuz"),
        initrd=Path("/machine/initrd"),
        console_log=Path("/machine/console.log"),
    )


def machine(base: Board, channel: Channel) -> EngineMachine:
    return EngineMachine(
        base,
        "default",
        Path("/image/root.erofs"),
        Path("/machine/data.qcow2"),
        Channels(channel, channel, channel, channel),
    )


def values(words: list[str], option: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def device(words: list[str], start: str) -> str:
    (found,) = [value for value in values(words, "-device") if value.startswith(start)]
    return found


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("arch", Arch)
def test_the_devices_have_their_places_everywhere(system: str, arch: Arch) -> None:
    accelerator, channel = SYSTEMS[system]
    words = engine_command(machine(board(arch, accelerator), channel))
    assert [item.partition(",")[0] for item in values(words, "-device")] == [
        "virtio-serial-pci",
        "virtserialport",
        "virtserialport",
        "virtserialport",
        "virtio-net-pci",
        "virtio-blk-pci",
        "virtio-blk-pci",
        "virtio-rng-pci",
    ]
    assert "addr=0x3" in device(words, "virtio-serial-pci")
    assert "addr=0x4" in device(words, "virtio-net-pci") and device(words, "virtio-net-pci").endswith("romfile=")
    assert "addr=0x5" in device(words, "virtio-blk-pci,drive=root")
    assert "addr=0x6" in device(words, "virtio-blk-pci,drive=data")
    assert "addr=0x7" in device(words, "virtio-rng-pci")
    ports = [item for item in values(words, "-device") if item.startswith("virtserialport")]
    names = [("nr=1", "org.pybox.control"), ("nr=2", "org.pybox.fuse"), ("nr=3", "org.pybox.bulk")]
    assert all(number in port and port.endswith(name) for port, (number, name) in zip(ports, names, strict=True))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("arch", Arch)
def test_machine_memory_and_processor(system: str, arch: Arch) -> None:
    accelerator, channel = SYSTEMS[system]
    words = engine_command(machine(board(arch, accelerator), channel))
    assert values(words, "-accel") == [accelerator.value]
    (kind,) = values(words, "-machine")
    assert kind.startswith("q35," if arch is Arch.AMD64 else "virt,") and kind.endswith("memory-backend=ram")
    assert values(words, "-object") == ["memory-backend-ram,id=ram,size=2048M"]
    (processor,) = values(words, "-cpu")
    assert processor == "host" or (accelerator is Accelerator.WHPX and arch is Arch.AMD64)
    (line,) = values(words, "-append")
    assert line.startswith("console=ttyS0 " if arch is Arch.AMD64 else "console=ttyAMA0 ")


@pytest.mark.parametrize(("arch", "processor"), [(Arch.AMD64, "Nehalem"), (Arch.ARM64, "max,pauth-impdef=on")])
def test_emulation(arch: Arch, processor: str) -> None:
    words = engine_command(machine(board(arch), InheritedSocket(7)))
    assert values(words, "-accel") == ["tcg,thread=multi"]
    assert values(words, "-cpu") == [processor]


def test_whpx_gets_what_images_ask_for() -> None:
    (processor,) = values(engine_command(machine(board(accelerator=Accelerator.WHPX), LoopbackPort(1))), "-cpu")
    assert all(f"+{flag}" in processor for flag in ("cx16", "popcnt", "sse4.1", "sse4.2", "ssse3"))


def test_nothing_is_taken_from_the_users_configuration_or_left_to_default() -> None:
    words = engine_command(machine(board(), InheritedSocket(7)))
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(words)


def test_channels() -> None:
    channels = Channels(InheritedSocket(3), InheritedSocket(4), InheritedSocket(5), InheritedSocket(6))
    words = engine_command(replace(machine(board(), InheritedSocket(7)), channels=channels))
    assert values(words, "-chardev")[1:] == [
        f"socket,id={name},fd={number},server=on,wait=off"
        for name, number in (("monitor", 3), ("control", 4), ("fuse", 5), ("bulk", 6))
    ]
    assert values(words, "-mon") == ["chardev=monitor,mode=control"]
    words = engine_command(machine(board(), LoopbackPort(4711)))
    assert "socket,id=monitor,host=127.0.0.1,port=4711,server=on,wait=off" in values(words, "-chardev")


def test_disks() -> None:
    words = engine_command(machine(board(), InheritedSocket(7)))
    root, data = values(words, "-drive")
    assert "readonly=on" in root and "format=raw" in root
    assert "readonly" not in data and "discard=unmap,detect-zeroes=unmap" in data and "format=qcow2" in data


def test_commas_in_paths() -> None:
    comma = replace(board(), console_log=Path("/a,b/console.log"))
    words = engine_command(replace(machine(comma, InheritedSocket(7)), data_disk=Path("/a,b/data.qcow2")))
    assert "file,id=console,path=/a,,b/console.log" in values(words, "-chardev")
    assert values(words, "-drive")[1].endswith("file=/a,,b/data.qcow2")


def test_the_only_network_is_the_users() -> None:
    words = engine_command(machine(board(), InheritedSocket(7)))
    assert values(words, "-netdev") == ["user,id=net0,ipv6=off"]  # forwards are added later, to 127.0.0.1


def test_bake() -> None:
    words = bake_command(BakeMachine(board(), (Path("/w/one"), Path("/w/two")), "console=ttyS0 panic=-1"))
    assert values(words, "-append") == ["console=ttyS0 panic=-1"]
    assert "-netdev" not in words and "-mon" not in words
    assert [item.split("file=")[1] for item in values(words, "-drive")] == ["/w/one", "/w/two"]
