"""Everything that a run needs before it measures: programs, a guest image, the reference VM, folders, and their end."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pybox import hostos
from pybox.errors import MachineError, PyboxError
from pybox.hostos.interface import native_arch
from pybox.model import Accelerator, Arch
from pybox.paths import Paths
from pybox.qemu import probe
from pybox_image.manifest import FILE, read
from tests.bench.bench import Bench, Repeats, Say
from tests.bench.book import Book
from tests.bench.content import Content, Packages
from tests.bench.pybox_vm import PyboxVm
from tests.bench.stock import reference
from tests.bench.stock.vm import Size, StockVm

_ROOT = Path(__file__).parents[2]
_STAMP = "bench-source"
_ROOM = 8 << 30  # bytes of disk that a whole run may take


@dataclass(frozen=True)
class Options:
    """`memory_mib` and `cpus` of both machines."""

    memory_mib: int
    cpus: int
    repeats: Repeats
    long: bool
    rebuild: bool


@contextmanager
def prepared(book: Book, options: Options, say: Say) -> Iterator[Bench]:
    """All that is needed, and its end whatever happens. Raises PyboxError that says what to install."""
    if hostos.current().name != "linux" or native_arch() is not Arch.AMD64:
        raise PyboxError("the bench runs on amd64 Linux", "The reference VM is made for it.")
    cache = Path(os.environ.get("PYBOX_BENCH_CACHE") or Paths.from_environment().cache / "bench").absolute()
    downloads = Paths.from_environment().downloads
    home = cache / "home"
    home.mkdir(parents=True, exist_ok=True)
    qemu = probe.find(Arch.AMD64)
    with ExitStack() as stack:
        _lock(stack, cache)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pybox-bench-")))
        _require_room(folder)
        pybox = PyboxVm(home, options.memory_mib, options.cpus)
        _link_downloads(home, downloads)
        release = _guest_image(pybox, options.rebuild, say)
        if options.rebuild:
            shutil.rmtree(cache / "stock", ignore_errors=True)
        built = reference.ensure(cache / "stock", release, downloads, say)
        pybox.delete()  # what a run that was killed has left
        stack.callback(_quietly, pybox.delete)
        say("starting pybox once (its golden state is made if there is none)")
        pybox.start()
        accelerator = Accelerator(pybox.status()["accelerator"])
        pybox.stop()
        size = Size(qemu.program, accelerator, options.memory_mib, options.cpus)
        stock = StockVm(built, size, folder / "stock.raw")
        stack.callback(stock.kill)
        docker, registry = shutil.which("docker"), shutil.which("docker-registry")
        yield Bench(
            book=book,
            repeats=options.repeats,
            say=say,
            folder=folder,
            pybox=pybox,
            stock=stock,
            reference=built,
            size=size,
            content=Content(Packages(downloads)),
            downloads=downloads,
            docker=Path(docker) if docker else None,
            registry=Path(registry) if registry else None,
            long=options.long,
        )


def _lock(stack: ExitStack, cache: Path) -> None:
    stream = stack.enter_context((cache / "lock").open("ab"))
    if not hostos.current().try_lock(stream):
        raise PyboxError("another bench is running", f"It holds {cache / 'lock'}.", "Wait for it.")


def _require_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _ROOM:
        raise PyboxError(f"{folder.parent} has {free >> 20} MiB free, {_ROOM >> 20} are needed", "", "Set TMPDIR.")


def _link_downloads(home: Path, downloads: Path) -> None:
    """Let the bench's own installation share the user's downloads."""
    downloads.mkdir(parents=True, exist_ok=True)
    link = home / "cache"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(downloads.parent)


def _guest_image(pybox: PyboxVm, rebuild: bool, say: Say) -> str:
    """Build the guest image when there is none of this source; the release of its kernel."""
    folder = pybox.home / "state" / "images" / Arch.AMD64.value
    stamp, source = folder / _STAMP, _source()
    if rebuild or not stamp.exists() or stamp.read_text() != source or not (folder / FILE).exists():
        say("building pybox's guest image (once, and when its source changes)")
        pybox.run("machine", "build-image", timeout=1800)
        stamp.write_text(source)
    return read(folder).contents.kernel


def _source() -> str:
    """Return what the image builder's source comes to."""
    digest = hashlib.sha256()
    for path in sorted((_ROOT / "images" / "pybox_image").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(_ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _quietly(end: Callable[[], None]) -> None:
    with suppress(MachineError):
        end()
