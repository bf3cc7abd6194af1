"""The tour before Docker's own engine and before pybox, and what differs:

    PYBOX_TEST_BASE=ARCHIVE python -m tests.clients.tour_compare [--docker PROGRAM]... [--only GROUP]

Both engines run in VMs of the same kind, the ones of `scripts/bench`. Without `--docker` the clients are Debian's 20.10
and 26, unpacked for this, and the one on PATH. It prints a table in Markdown, and fails when an engine does not answer
as the tour says, or when the two differ without a reason in the tour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pybox.errors import PyboxError
from tests.bench.bench import SHORT
from tests.bench.book import Book
from tests.bench.preparation import Options, prepared
from tests.bench.pybox_vm import PyboxVm
from tests.clients.tour import BASE, Says, Seen, Tour, groups, mistaken

PACKAGES = (("docker.io", "bookworm"), ("docker-cli", "trixie"))  # of Debian, with 20.10 and 26
_LONGEST = 90  # characters of a text in the table


@dataclass(frozen=True)
class Difference:
    """One step that the two engines answered otherwise, by one client."""

    client: str
    docker: Seen
    pybox: Seen


def unpacked(package: str, suite: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """The docker CLI of a Debian package, unpacked by the project's own downloader."""
    into = folder / f"{package}-{suite}"
    command = [sys.executable, "-m", "pybox_image", "unpack", package, "--suite", suite, "--into", str(into)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
    return str(into / "usr/bin/docker")


def clients(folder: Path) -> Iterator[str]:
    """The programs of all clients that are at hand."""
    for package, suite in PACKAGES:
        yield unpacked(package, suite, folder)
    if found := shutil.which("docker"):
        yield found


def compare(program: str, hosts: tuple[str, str], folder: Path, only: str | None) -> tuple[list[Difference], list[str]]:
    """Take the tour twice; what differs, and what did not go as the tour says."""
    tours = []
    for name, host in zip(("docker", "pybox"), hosts, strict=True):
        (folder / name).mkdir()
        tours.append(Tour(program, host, folder / name))
    differences: list[Difference] = []
    mistakes: list[str] = []
    for name, steps in groups().items():
        if only in (None, name):
            # One after the other: in turns, what is timed in one tour would wait for the other engine.
            for docker, pybox in zip(*(list(tour.walk(steps)) for tour in tours), strict=True):
                if docker.found != pybox.found:
                    differences.append(Difference(tours[0].version, docker, pybox))
                mistakes += filter(None, (mistaken(docker, tours[0].client, False), mistaken(pybox, tours[0].client, True)))
    return differences, mistakes


def table(differences: Sequence[Difference]) -> str:
    """All differences, each once, with the clients that show it."""
    by_row: dict[tuple[str, ...], list[str]] = {}
    for item in differences:
        step, left, right = item.docker.step, item.docker.found, item.pybox.found
        row = f"`{step.command}`", _shown(left, right), _shown(right, left), step.why or "**not explained**"
        by_row.setdefault(row, []).append(item.client)
    lines = ["| clients | command | docker.io 26.1 | pybox | why |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {', '.join(names)} | {' | '.join(row)} |" for row, names in by_row.items()]
    return "\n".join(lines)


def _shown(says: Says, other: Says) -> str:
    """The first line in which one differs from the other, and its status if that is what differs."""
    parts = [f"status {says.status}"] if says.status != other.status else []
    mine, its = (f"{item.out}\n{item.err}".splitlines() for item in (says, other))
    for number, line in enumerate(mine):
        if number >= len(its) or line != its[number]:
            text = line if len(line) <= _LONGEST else f"…{line[1 - _LONGEST :]}"
            parts.append(f"`{text}`".replace("|", "\\|") if text.strip() else "nothing")
            break
    else:
        parts.append("nothing more")
    return ", ".join(parts)


def base_archive(pybox: PyboxVm, folder: Path) -> Path:
    """The base image: PYBOX_TEST_BASE, or made in the machine."""
    if given := os.environ.get("PYBOX_TEST_BASE"):
        pybox.run("load", "-i", given)
        return Path(given)
    pybox.run("image", "bootstrap", "-t", BASE, timeout=1800)
    archive = folder / "base.tar"
    pybox.run("save", "-o", str(archive), BASE)
    return archive


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--docker", action="append", help="a client; several are taken one after the other")
    parser.add_argument("--only", choices=groups(), help="one group of steps")
    arguments = parser.parse_args()
    differences: list[Difference] = []
    mistakes: list[str] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tours-") as name,
            prepared(Book(), Options(2048, 2, SHORT, long=False, rebuild=False), _say) as bench,
        ):
            folder = Path(name)
            bench.pybox.settings["shares"] = name
            bench.pybox.start()
            bench.stock.start()
            hosts = bench.stock.environment()["DOCKER_HOST"], bench.pybox.environment()["DOCKER_HOST"]
            programs = arguments.docker or list(clients(folder))
            loading = ["load", "--quiet", "--input", str(base_archive(bench.pybox, folder))]
            subprocess.run([programs[0], *loading], env=bench.stock.environment(), check=True, stdout=sys.stderr)
            for number, program in enumerate(programs):
                _say(f"the tour of {program}")
                place = folder / str(number)
                place.mkdir()
                found, wrong = compare(program, hosts, place, arguments.only)
                differences += found
                mistakes += wrong
    except PyboxError as error:
        print(error, error.details, sep="\n", file=sys.stderr)
        return 1
    print(table(differences))
    for text in mistakes:
        print(text, file=sys.stderr)
    return 1 if mistakes or any(not item.docker.step.why for item in differences) else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
