"""A shared folder: pybox's against 9p (QEMU's own, cache=none: the coherent one), sshfs and virtiofsd in the reference VM.

The same program runs in a container on each; it sees the folder as a bind mount.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pybox.errors import MachineError, PyboxError
from tests.bench.bench import Bench
from tests.bench.content import PYTHON
from tests.bench.lines import FOLDER_PEERS, LINES, PYBOX
from tests.bench.machine import Machine
from tests.bench.sections import folder_servers
from tests.bench.stock.vm import StockVm

_PROGRAM = Path(__file__).with_name("folder_work.py")
_FOLDERS = 20
_FILES = 50  # in each
_NAMES = tuple(dict.fromkeys(line.series for line in LINES if line.section == "folder"))


def measure(bench: Bench) -> None:
    """No machine runs before or after: both are started with the folder."""
    folder = bench.folder / "shared"
    _fill(folder / "tree")
    with ExitStack() as stack:
        places: dict[str, tuple[Machine, str]] = {}
        bench.pybox.settings["shares"] = str(folder)
        try:
            stack.callback(bench.pybox.stop)
            bench.pybox.start()
            bench.load(bench.content.python, [bench.pybox])
            places[PYBOX] = (bench.pybox, str(folder))
        except PyboxError as error:
            _fail(bench, PYBOX, error)
        vm, mounted = stack.enter_context(_stock(bench, folder))
        if vm is not None:
            places |= {peer: (vm, place) for peer, place in mounted.items()}
        _work(bench, places)
    bench.pybox.settings["shares"] = ""


def _work(bench: Bench, places: Mapping[str, tuple[Machine, str]]) -> None:
    going = dict(places)
    for _ in range(bench.repeats.transfers):
        for side, (machine, place) in list(going.items()):
            try:
                found = _run(machine, place)
            except (PyboxError, OSError, ValueError) as error:
                _fail(bench, side, error)
                del going[side]
                continue
            for name, value in found.items():
                bench.book.add(f"folder.{name}", side, value)


def _run(machine: Machine, place: str) -> dict[str, float]:
    api = machine.api
    # It empties the guest's caches, which only a privileged container may.
    host = {"Binds": [f"{place}:/shared"], "Privileged": True, "NetworkMode": "none"}
    name = api.create(PYTHON, ["python3", "-I", "-c", _PROGRAM.read_text()], host)
    try:
        api.start(name)
        status, text = api.wait(name), api.output(name)
    finally:
        api.discard(name)
    if status:
        raise MachineError(f"the work on the folder ended with {status}", text)
    values: dict[str, float] = json.loads(text.strip().splitlines()[-1])
    return values


def _fail(bench: Bench, side: str, error: Exception) -> None:
    for series in _NAMES:
        bench.book.skip(series, side, str(error))
    details = error.details if isinstance(error, PyboxError) else ""
    bench.say(f"  folder, {side}: not measured: {error}\n{details}".rstrip())


def _fill(tree: Path) -> None:
    for folder in range(_FOLDERS):
        (tree / f"{folder:02}").mkdir(parents=True)
        for number in range(_FILES):
            (tree / f"{folder:02}" / f"{number:02}").write_bytes(b"%d\n" % number * 100)


@contextmanager
def _stock(bench: Bench, folder: Path) -> Iterator[tuple[StockVm | None, dict[str, str]]]:
    """A reference VM in which the folder is mounted by every server that this computer has: name to place."""
    with ExitStack() as stack:
        words = [
            "-fsdev",
            f"local,id=p9,path={folder},security_model=none",
            "-device",
            "virtio-9p-pci,fsdev=p9,mount_tag=p9",
        ]
        orders = {"9p": "mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 p9"}
        size = bench.size.words()
        try:
            words += stack.enter_context(folder_servers.virtiofsd(folder, bench.folder))
            memory = f"memory-backend-memfd,id=ram,size={bench.size.memory_mib}M,share=on"
            size[size.index("-object") + 1] = memory
            orders["virtiofsd"] = "mount -t virtiofs fs"
        except PyboxError as error:
            _fail(bench, "virtiofsd", error)
        try:
            port = stack.enter_context(folder_servers.sftp(bench.downloads, bench.folder))
            orders["sshfs"] = f"modprobe fuse; sshfs -o directport={port} 10.0.2.2:{folder}"
        except PyboxError as error:
            _fail(bench, "sshfs", error)
        vm = StockVm(bench.reference, bench.size, bench.folder / "folder.raw", extra=words, machine=size)
        stack.callback(vm.kill)
        try:
            vm.start()
            mounted = _mount(bench, vm, orders)
            archive = bench.folder / "python.tar"
            with archive.open("w+b") as stream:
                bench.content.python.write_archive(stream)
                vm.api.call("POST", "/images/load?quiet=1", stream=stream)
        except PyboxError as error:
            for peer in FOLDER_PEERS:
                _fail(bench, peer, error)
            yield None, {}
            return
        yield vm, mounted


def _mount(bench: Bench, vm: StockVm, orders: Mapping[str, Any]) -> dict[str, str]:
    vm.shell("mount -t tmpfs tmpfs /mnt")
    mounted = {}
    for peer, order in orders.items():
        place = f"/mnt/{peer}"
        seen = vm.shell(f"mkdir {place}; {order} {place}; ls {place}")
        if seen.split() == ["tree"]:
            mounted[peer] = place
        else:
            _fail(bench, peer, MachineError("it cannot be mounted in the reference VM", seen))
    return mounted
