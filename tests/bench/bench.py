"""What every section works with: both machines, the images, the book of results."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pybox.errors import PyboxError
from tests.bench.book import Book
from tests.bench.content import Content, Image
from tests.bench.machine import Machine
from tests.bench.pybox_vm import PyboxVm
from tests.bench.stock.reference import Reference
from tests.bench.stock.vm import Size, StockVm

Say = Callable[[str], None]


@dataclass(frozen=True)
class Repeats:
    """How often each thing is measured; `warm` times before that do not count."""

    boots: int  # of each kind that takes seconds
    golden: int
    calls: int  # run, exec
    commands: int  # whole processes
    transfers: int  # network, images, folders
    warm: int
    scale: tuple[int, ...]  # numbers of containers


SHORT = Repeats(boots=2, golden=5, calls=5, commands=5, transfers=2, warm=1, scale=(10,))
FULL = Repeats(boots=5, golden=20, calls=20, commands=15, transfers=3, warm=3, scale=(10, 50, 200))


@dataclass
class Bench:
    """One run. `folder` is temporary; the machines are running when a section other than start and folder begins."""

    book: Book
    repeats: Repeats
    say: Say
    folder: Path
    pybox: PyboxVm
    stock: StockVm
    reference: Reference
    size: Size
    content: Content
    downloads: Path
    docker: Path | None
    registry: Path | None
    long: bool
    _loaded: set[tuple[str, str]] = field(default_factory=set)

    @property
    def machines(self) -> tuple[Machine, Machine]:
        return self.pybox, self.stock

    def alternate(
        self, series: str, jobs: Mapping[str, Callable[[], float]], repeats: int, *, warm: int | None = None
    ) -> None:
        """Measure the sides of a series in turn: A B A B. A side that fails is left out from then on, with the reason."""
        going = dict(jobs)
        warm = self.repeats.warm if warm is None else warm
        for turn in range(warm + repeats):
            for side, job in list(going.items()):
                try:
                    value = job()
                except (PyboxError, OSError) as error:
                    self.fail(series, side, error)
                    del going[side]
                    continue
                if turn >= warm:
                    self.book.add(series, side, value)

    def both(self, series: str, job: Callable[[Machine], float], repeats: int, *, warm: int | None = None) -> None:
        """Measure the same on both machines in turn."""
        self.alternate(series, {machine.name: _bound(job, machine) for machine in self.machines}, repeats, warm=warm)

    def fail(self, series: str, side: str, error: Exception) -> None:
        """Note why a side of a series has no value."""
        text = str(error) or type(error).__name__
        details = error.details if isinstance(error, PyboxError) else ""
        last = details.strip().splitlines()[-1][:200] if details.strip() else ""
        self.book.skip(series, side, f"{text} ({last})" if last else text)
        self.say(f"  {series}, {side}: not measured: {text}\n{details}".rstrip())

    def stand_up(self) -> None:
        """Start a machine anew that does not answer any more: a guest may panic, and the next section is not to blame."""
        for machine in (self.pybox, self.stock):
            try:
                machine.api.call("GET", "/_ping")
            except PyboxError as error:
                self.say(f"  {machine.name} does not answer any more, and is started again: {error}\n{machine.last_words()}")
                machine.kill()
                machine.start()
                self._loaded = {(image, name) for image, name in self._loaded if name != machine.name}

    def load(self, image: Image, machines: Sequence[Machine] | None = None) -> None:
        """Give an image to both engines, once."""
        wanted = [item for item in machines or self.machines if (image.name, item.name) not in self._loaded]
        if not wanted:
            return
        archive = io.BytesIO()
        image.write_archive(archive)
        for machine in wanted:
            machine.api.call("POST", "/images/load?quiet=1", stream=archive)
            self._loaded.add((image.name, machine.name))


Measure = Callable[[Bench], None]  # one section


def _bound(job: Callable[[Machine], float], machine: Machine) -> Callable[[], float]:
    return lambda: job(machine)


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Time a block: the list holds its seconds afterwards."""
    taken: list[float] = []
    began = time.monotonic()
    yield taken
    taken.append(time.monotonic() - began)
