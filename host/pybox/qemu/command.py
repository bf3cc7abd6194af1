"""QEMU's command line: values in, words out. Nothing is looked up, opened or started here.

The devices are a fixed list at fixed places: the guest's initrd finds its root disk by PCI slot, and a saved machine
fits only the machine it was saved from. No secret is among the words, because everybody can read them.
"""

from __future__ import annotations

from pathlib import Path

from pybox.frozen import frozen
from pybox.model import Accelerator, Arch

# PCI slots on pcie.0. The guest relies on them.
SLOT_SERIAL = 0x3
SLOT_NETWORK = 0x4
SLOT_ROOT = 0x5
SLOT_DATA = 0x6
SLOT_ENTROPY = 0x7

NETWORK = "net0"  # QEMU's name of the user network, for forwards
GUEST_ADDRESS = "10.0.2.15"
HOST_ADDRESS = "10.0.2.2"  # this host's loopback, seen from the guest
DNS_ADDRESS = "10.0.2.3"

# Neither watchdogs nor clock checks, which misfire where the host stops the guest; and under emulation the kernel then
# patches less of its own code while several CPUs run it, in which it was seen to crash.
_QUICK = "no_timer_check nowatchdog tsc=reliable"
_NO_DISK = 1 << 30  # bytes of a data disk that stands for none
_CONSOLE = {Arch.AMD64: "ttyS0", Arch.ARM64: "ttyAMA0"}
# x86-64-v2 is what container images of our days ask for; `qemu64` alone is v1.
_CPU_V2 = "qemu64,+cx16,+lahf-lm,+popcnt,+ssse3,+sse4.1,+sse4.2"


@frozen
class InheritedSocket:
    """A listening unix socket that QEMU gets from its parent: it can be connected to before QEMU runs."""

    descriptor: int


@frozen
class LoopbackPort:
    """A TCP port of 127.0.0.1, for systems that hand over no sockets."""

    port: int


Channel = InheritedSocket | LoopbackPort


@frozen
class Channels:
    """The byte streams between QEMU and the hostagent."""

    monitor: Channel
    control: Channel
    fuse: Channel
    bulk: Channel


@frozen
class MemoryFile:
    """A file that holds the guest's RAM.

    Shared, what the guest writes goes into the file. Private, the file is only read, page by page when one is touched,
    and what the guest writes is this process's own: many machines may stand on one file, which never changes.
    """

    path: Path
    private: bool


@frozen
class Board:
    """What every machine has, an engine's or a bake's."""

    program: Path
    arch: Arch
    accelerator: Accelerator
    memory_mib: int
    cpus: int
    kernel: Path
    initrd: Path
    console_log: Path
    memory: MemoryFile | None = None  # None: memory without a file


@frozen
class EngineMachine:
    """A machine that runs the engine."""

    board: Board
    name: str
    root_disk: Path  # EROFS, raw
    data_disk: Path | None  # qcow2; None: a disk of zeros in its place, for a machine that no user's data may reach
    channels: Channels
    incoming: bool = False  # it does not boot: it waits for a saved state


@frozen
class BakeMachine:
    """A machine that boots once and writes to raw disks; it has no network and nobody talks to it."""

    board: Board
    disks: tuple[Path, ...]
    append: str


def engine_command(machine: EngineMachine) -> list[str]:
    """Return the words that start a machine for the engine."""
    board = machine.board
    channels = machine.channels
    return [
        *_board(board, f"pybox-{machine.name}"),
        "-append", kernel_line(board.arch),
        *_chardev("monitor", channels.monitor),
        "-mon", "chardev=monitor,mode=control",
        *_chardev("control", channels.control),
        *_chardev("fuse", channels.fuse),
        *_chardev("bulk", channels.bulk),
        "-device", f"virtio-serial-pci,id=ports,bus=pcie.0,addr={SLOT_SERIAL:#x},max_ports=4",
        "-device", "virtserialport,bus=ports.0,nr=1,chardev=control,name=org.pybox.control",
        "-device", "virtserialport,bus=ports.0,nr=2,chardev=fuse,name=org.pybox.fuse",
        "-device", "virtserialport,bus=ports.0,nr=3,chardev=bulk,name=org.pybox.bulk",
        "-netdev", f"user,id={NETWORK},ipv6=off",
        "-device", f"virtio-net-pci,netdev={NETWORK},bus=pcie.0,addr={SLOT_NETWORK:#x},romfile=",
        "-drive", f"if=none,id=root,format=raw,readonly=on,file={_escaped(machine.root_disk)}",
        "-device", f"virtio-blk-pci,drive=root,bus=pcie.0,addr={SLOT_ROOT:#x},serial=root",
        "-drive", _data_drive(machine.data_disk),
        "-device", f"virtio-blk-pci,drive=data,bus=pcie.0,addr={SLOT_DATA:#x},serial=data",
        "-device", f"virtio-rng-pci,bus=pcie.0,addr={SLOT_ENTROPY:#x}",
        *(["-incoming", "defer"] if machine.incoming else []),
    ]  # fmt: skip


def bake_command(machine: BakeMachine) -> list[str]:
    """Return the words that start a machine for one boot of the image build."""
    words = [*_board(machine.board, "pybox-bake"), "-append", machine.append]
    for number, disk in enumerate(machine.disks):
        words += [
            # What is written is read back as a file after the machine's end, and made anew after a crash.
            "-drive", f"if=none,id=disk{number},format=raw,cache=unsafe,file={_escaped(disk)}",
            "-device", f"virtio-blk-pci,drive=disk{number},bus=pcie.0,addr={SLOT_ROOT + number:#x}",
        ]  # fmt: skip
    return words


def kernel_line(arch: Arch) -> str:
    """Return the kernel's command line."""
    return f"console={_CONSOLE[arch]} quiet loglevel=3 mitigations=off panic=-1 {_QUICK}"


def _board(board: Board, name: str) -> list[str]:
    return [
        str(board.program),
        "-name", name,
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        "-no-reboot",
        "-machine", _machine(board.arch),
        "-accel", _accelerator(board.accelerator),
        "-cpu", _cpu(board.arch, board.accelerator),
        "-smp", str(board.cpus),
        "-m", f"{board.memory_mib}M",
        "-object", _memory(board.memory, board.memory_mib),
        "-kernel", str(board.kernel),
        "-initrd", str(board.initrd),
        "-chardev", f"file,id=console,path={_escaped(board.console_log)}",
        "-serial", "chardev:console",
    ]  # fmt: skip


def _memory(file: MemoryFile | None, mib: int) -> str:
    if file is None:
        return f"memory-backend-ram,id=ram,size={mib}M"
    share = "off" if file.private else "on"
    return f"memory-backend-file,id=ram,size={mib}M,mem-path={_escaped(file.path)},share={share}"


def _data_drive(path: Path | None) -> str:
    if path is None:
        return f"if=none,id=data,format=raw,file.driver=null-co,file.read-zeroes=on,file.size={_NO_DISK}"
    return f"if=none,id=data,format=qcow2,cache=writeback,discard=unmap,detect-zeroes=unmap,file={_escaped(path)}"


def _machine(arch: Arch) -> str:
    if arch is Arch.AMD64:
        return "q35,memory-backend=ram"
    return "virt,gic-version=max,memory-backend=ram"


def _accelerator(accelerator: Accelerator) -> str:
    return "tcg,thread=multi" if accelerator is Accelerator.TCG else accelerator.value


def _cpu(arch: Arch, accelerator: Accelerator) -> str:
    if accelerator is Accelerator.TCG:
        # x86-64-v2, and nothing that programs would use and QEMU emulate badly. Measured (boot, Python, zlib, SHA-256,
        # fork): qemu64, Westmere, Haswell and max are within 5 % of it, in either direction.
        # Pointer authentication by its architected cipher costs half of all cycles under emulation.
        return "Nehalem" if arch is Arch.AMD64 else "max,pauth-impdef=on"
    if accelerator is Accelerator.WHPX and arch is Arch.AMD64:
        return _CPU_V2  # WHPX has no `host`
    return "host"


def _chardev(name: str, channel: Channel) -> list[str]:
    match channel:
        case InheritedSocket(descriptor):
            where = f"fd={descriptor}"
        case LoopbackPort(port):
            where = f"host=127.0.0.1,port={port}"
    return ["-chardev", f"socket,id={name},{where},server=on,wait=off"]


def _escaped(path: Path) -> str:
    """Return a path for inside an option, where a comma would end the value."""
    return str(path).replace(",", ",,")
