"""Whole processes of command lines."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from pybox.errors import MachineError
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import BUSYBOX
from tests.bench.lines import PYBOX, STOCK

_NO_DOCKER = "the docker CLI is not on PATH (Debian: docker-cli, before trixie docker.io)"


def measure(bench: Bench) -> None:
    """`ps` and `version` ask the same engine, pybox's; `run` goes to each side's own."""
    bench.load(bench.content.busybox)
    ours = bench.pybox.own_environment()
    count = bench.repeats.commands
    run = ("run", "--rm", BUSYBOX, "true")
    with bench.pybox.api.container(BUSYBOX, ["sleep", "inf"]):
        for word in ("ps", "version"):
            _alternate(
                bench,
                {
                    (f"cli.{word}", PYBOX): (bench.pybox.command(word), ours),
                    (f"cli.docker-{word}", f"docker {word}"): (_docker(bench, word), bench.pybox.environment()),
                },
                count,
            )
    _alternate(
        bench,
        {
            ("cli.run", PYBOX): (_docker(bench, *run), bench.pybox.environment()),
            ("cli.pybox-run", PYBOX): (bench.pybox.command(*run), ours),
            ("cli.run", STOCK): (_docker(bench, *run), bench.stock.environment()),
        },
        count,
    )


def _docker(bench: Bench, *words: str) -> list[str]:
    return [str(bench.docker), *words] if bench.docker else []


def _alternate(bench: Bench, jobs: Mapping[tuple[str, str], tuple[Sequence[str], Mapping[str, str]]], count: int) -> None:
    """Run commands in turn; each belongs to a series and a side. An empty one is the docker CLI that is missing."""
    going = dict(jobs)
    for (series, side), (command, _environment) in jobs.items():
        if not command:
            bench.book.skip(series, side, _NO_DOCKER)
            del going[series, side]
    for turn in range(1 + count):
        for (series, side), (command, environment) in list(going.items()):
            try:
                seconds = _process(command, environment)
            except MachineError as error:
                bench.fail(series, side, error)
                del going[series, side]
                continue
            if turn:
                bench.book.add(series, side, seconds)


def _process(command: Sequence[str], environment: Mapping[str, str]) -> float:
    with stopwatch() as taken:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise MachineError(f"{' '.join(command[:3])}: exit status {done.returncode}", done.stderr.strip())
    return taken[0]
