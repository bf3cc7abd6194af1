"""The lines of the table: what is compared with what, and the budgets.

A line takes its values from two series of measurements by their names. Its ratio is pybox's cost by the other's cost:
below 1 pybox is better, for times, memory and rates alike.
"""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = ("start", "run", "exec", "cli", "memory", "net", "folder", "images", "scale")
PYBOX = "pybox"
STOCK = "stock"
SCALE = (10, 50, 200)
FOLDER_PEERS = ("9p", "sshfs", "virtiofsd")


@dataclass(frozen=True)
class Line:
    """One line. `series` begins with its section and a dot; `other` is whom pybox is compared with, "" for nobody.

    `other_series` is the other's series where its name differs. `ratio` and `absolute` (in `unit`, of pybox's median)
    are budgets: at most, or for a rate (`more_is_better`) at least.
    """

    series: str
    what: str
    unit: str = "s"
    other: str = STOCK
    other_series: str = ""
    more_is_better: bool = False
    ratio: float | None = None
    absolute: float | None = None

    @property
    def section(self) -> str:
        return self.series.partition(".")[0]

    @property
    def theirs(self) -> str:
        return self.other_series or self.series

    def budget(self) -> str:
        """Return the budget in words, "" when the line has none."""
        words = []
        if self.ratio is not None:
            words.append(f"ratio {_fraction(self.ratio)}")
        if self.absolute is not None:
            words.append(f"{self.absolute:g} {self.unit}")
        return ", ".join(words)


def _fraction(ratio: float) -> str:
    inverse = 1 / ratio
    return f"1/{inverse:.0f}" if inverse > 1 and abs(inverse - round(inverse)) < 1e-9 else f"{ratio:g}"


LINES: tuple[Line, ...] = (
    Line("start.golden", "`pybox start` from the golden state, whole process to an answered call",
         other_series="start.boot", ratio=1 / 20, absolute=0.5),
    Line("start.qemu", "the same, from QEMU's exec to an answered call", other="", absolute=0.2),
    Line("start.cold", "cold boot, whole process to an answered call", other_series="start.boot", ratio=1 / 2),
    Line("start.suspend", "`pybox suspend` with a running container, whole process", other="", absolute=0.6),
    Line("start.resume", "`pybox resume` of it, whole process to an answered call", other="", absolute=0.7),
    Line("start.fresh", "eight `--fresh` machines at once, all answering", other="", absolute=3.0),
    Line("start.fresh-memory", "each of the eight, PSS of all its processes", "MB", other="", absolute=120),
    Line("run.bridge", "create, start, wait, remove of `true`, bridge", ratio=1 / 10),
    Line("run.none", "create, start, wait, remove of `true`, no network"),
    Line("exec.true", "exec of `true`", ratio=1 / 10),
    Line("cli.ps", "`pybox ps` and `docker ps` on pybox's engine", other="docker ps", other_series="cli.docker-ps", ratio=3),
    Line("cli.version", "`pybox version` and `docker version` on pybox's engine",
         other="docker version", other_series="cli.docker-version"),
    Line("cli.run", "`docker run --rm` of `true`, on both engines"),
    Line("cli.pybox-run", "`pybox run --rm` of `true`, and `docker run --rm` on stock", other_series="cli.run"),
    Line("memory.boot", "engine after boot, PSS", "MB"),
    Line("memory.idle", "engine after 50 API calls, PSS", "MB", ratio=1 / 3),
    Line("memory.container", "each idle container beyond the first, with a published port, PSS", "MB", absolute=3.0),
    Line("net.in", "TCP into a published port", "MB/s", more_is_better=True, ratio=1),
    Line("net.out", "TCP out of a published port", "MB/s", more_is_better=True, ratio=1),
    Line("net.latency", "connect to a published port, 1 byte there and back", "ms", ratio=1),
    *(
        Line(f"folder.{work}", f"shared folder: {what}", unit, other=peer, more_is_better=True, ratio=ratios.get(peer, 1))
        for work, what, unit, ratios in (
            ("walk", "walk and stat, cold", "files/s", {"virtiofsd": 1.5}),
            ("again", "walk and stat, again", "files/s", {"virtiofsd": 1.5}),
            ("create", "create 1 KiB files", "files/s", {"virtiofsd": 1.5}),
            ("small", "read 1 KiB files, cold", "files/s", {"virtiofsd": 1.5}),
            ("unlink", "unlink", "files/s", {"virtiofsd": 1.5}),
            ("write", "write 64 MiB", "MB/s", {"virtiofsd": 3}),
            ("read", "read 64 MiB, cold", "MB/s", {"virtiofsd": 3}),
        )
        for peer in FOLDER_PEERS
    ),
    Line("images.pull", "pull of a 100 MB layer", ratio=1 / 4),
    Line("images.load", "load of a 100 MB layer", ratio=1 / 4),
    Line("images.build", "build FROM it, COPY 2,000 files, RUN true: cold", ratio=1 / 3),
    Line("images.cached", "the same build, cached", ratio=1 / 2),
    *(
        line
        for count in SCALE
        for line in (
            Line(f"scale.start.{count}", f"{count} containers: start of each of the last ones"),
            Line(f"scale.ps.{count}", f"{count} containers: list them over the API", "ms"),
            Line(f"scale.event.{count}", f"{count} containers: from the call of `kill` to the event `die`", "ms"),
            Line(f"scale.memory.{count}", f"{count} containers: engine and monitors, PSS", "MB"),
        )
    ),
)  # fmt: skip
