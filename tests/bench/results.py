"""Writes what was measured: JSON, table, chart; and says under which conditions."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

from pybox.errors import PyboxError
from pybox_image.errors import ImageError
from pybox_image.manifest import read
from tests.bench.bench import Bench, Say
from tests.bench.book import Book
from tests.bench.chart import chart
from tests.bench.content import Packages
from tests.bench.drawing import Font, Picture, png, svg
from tests.bench.report import to_json, to_markdown

_ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("RESULTS.md")
_FONT = "usr/share/consolefonts/Lat15-Terminus16.psf.gz"
_FONT_PACKAGE = "console-setup-linux"


def conditions(bench: Bench, load_before: float, seconds: float) -> dict[str, str]:
    """Return what the figures depend on, in words."""
    size = bench.size
    words = size.words()
    stock = dict(bench.reference.versions)
    image = read(bench.pybox.home / "state" / "images" / "amd64").contents
    cores = os.cpu_count() or 0
    kernel = stock.pop("kernel")
    return {
        "when": f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {seconds / 60:.0f} minutes",
        "pybox": f"{metadata.version('pybox')} {_commit()}".strip(),
        "other": ", ".join(f"{name} {version}" for name, version in sorted(stock.items())),
        "machines": f"{size.cpus} CPUs, {size.memory_mib} MiB, {size.accelerator}, {words[words.index('-cpu') + 1]}",
        "kernels": f"{image.kernel} (pybox), {kernel} (other)",
        "QEMU": _first_line([str(size.program), "--version"]),
        "docker CLI": _first_line([str(bench.docker), "--version"]) if bench.docker else "none",
        "computer": f"{platform.system()} {platform.machine()}, {cores} CPUs, Python {platform.python_version()}",
        "its load": f"{load_before:.1f} when the bench began (more than a few tenths: something else was at work)",
    }


def write(book: Book, known: dict[str, str], command: str, out: Path, results: bool, downloads: Path, say: Say) -> None:
    """Write bench.json, bench.md, bench.svg and bench.png below `out`; with `results` the table beside this file."""
    out.mkdir(parents=True, exist_ok=True)
    table = to_markdown(book, known, command)
    (out / "bench.json").write_text(to_json(book, known))
    (out / "bench.md").write_text(table)
    picture = chart(book)
    if picture is not None:
        (out / "bench.svg").write_text(svg(picture))
        _write_png(picture, out / "bench.png", downloads, say)
    if results:
        RESULTS.write_text(table)
    print(table)
    say(f"written: {out}/bench.json, bench.md, bench.svg, bench.png")


def _write_png(picture: Picture, into: Path, downloads: Path, say: Say) -> None:
    """Its letters are those of Debian's console font: no library draws them."""
    try:
        font = Font.read(Packages(downloads).tree(_FONT_PACKAGE, dependencies=False).read(_FONT))
    except (PyboxError, ImageError) as error:
        say(f"no bench.png: the font cannot be had: {error}")
        return
    into.write_bytes(png(picture, font))


def _commit() -> str:
    """Return the commit of this checkout, with a remark when files differ from it; "" where there is none."""
    commit = _first_line(["git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD"])
    changed = _first_line(["git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no"])
    return f"{commit}, changed" if commit and changed else commit


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
