"""Drives the real command line in a folder of its own, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """What a command left."""

    args: tuple[str, ...]
    status: int
    out: str
    err: str

    def ok(self) -> Finished:
        """This, or a failure that shows the whole command."""
        assert self.status == 0, f"{self}"
        return self

    def __str__(self) -> str:
        return f"{' '.join(self.args)}\nexit status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


class Cli:
    """`pybox` with its state below `home`."""

    def __init__(self, home: Path, machine: str = "default") -> None:
        self.home = home
        self.machine = machine
        self.environment = {
            **os.environ,
            "PYBOX_HOME": str(home),
            "PYBOX_MACHINE": machine,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("host", "guest", "images")),
        }

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "pybox", *args]

    def run(self, *args: str, stdin: bytes = b"", timeout: float = 300, cwd: Path | None = None) -> Finished:
        """Run to the end; never raises for an exit status."""
        done = subprocess.run(
            self.command(*args),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=self.environment,
            cwd=cwd or self.home,
            check=False,
        )
        return Finished(args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def ok(self, *args: str, **options: Any) -> str:
        """Run; its standard output without the last newline, or a failed assertion."""
        return self.run(*args, **options).ok().out.rstrip("\n")

    def json(self, *args: str) -> Any:
        return json.loads(self.ok(*args))

    def start_process(self, *args: str) -> subprocess.Popen[bytes]:
        """A command that goes on; the caller ends it."""
        return subprocess.Popen(
            self.command(*args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.home,
        )

    def docker_environment(self) -> dict[str, str]:
        """For other people's clients of the engine: what `pybox shellinit` sets, and nothing of this computer's user."""
        settings = dict(
            line.removeprefix("export ").split("=", 1) for line in self.ok("shellinit", "--shell", "bash").splitlines()
        )
        configuration = self.home / "docker-config"
        configuration.mkdir(exist_ok=True)
        return {**self.environment, **settings, "DOCKER_CONFIG": str(configuration), "HOME": str(self.home)}

    def docker(self, program: str, *args: str, stdin: bytes = b"", timeout: float = 300) -> Finished:
        """The ordinary docker CLI against this machine, as `pybox shellinit` sets it up."""
        done = subprocess.run(
            [program, *args],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=self.docker_environment(),
            cwd=self.home,
            check=False,
        )
        return Finished(
            (program, *args),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
