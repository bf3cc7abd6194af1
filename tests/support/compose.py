"""Debian's `docker compose` (2.26 in trixie) with one file and one project."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.pybox_cli import Cli, Finished

_PROGRAM = "usr/libexec/docker/cli-plugins/docker-compose"
_LISTINGS = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))


def unpacked(cli: Cli) -> str:
    """The program, unpacked by the project's own downloader."""
    tools = cli.home / "docker-compose"
    if not tools.exists():
        subprocess.run(
            [sys.executable, "-m", "pybox_image", "unpack", "docker-compose", "--suite", "trixie", "--into", str(tools)],
            check=True,
            env=cli.environment,
        )
    return str(tools / _PROGRAM)


class Compose:
    """A project. `settings` are what the file takes from its environment."""

    def __init__(self, cli: Cli, file: Path, project: str, settings: Mapping[str, str], folder: Path) -> None:
        self.project = project
        self._cli = cli
        self._program = unpacked(cli)
        values = folder / f"{project}.env"
        values.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._options = ("-f", str(file), "-p", project, "--env-file", str(values))

    def run(self, *args: str, timeout: float = 300) -> Finished:
        """A command to its end, whatever its exit status is."""
        return self._cli.docker(self._program, *self._options, *args, timeout=timeout)

    def ok(self, *args: str, timeout: float = 300) -> str:
        """Its output without white space around it, or a failed assertion."""
        return self.run(*args, timeout=timeout).ok().out.strip()

    def listed(self) -> dict[str, dict[str, Any]]:
        """What `ps` says of each container, by its name."""
        return {item["Name"]: item for item in map(json.loads, self.ok("ps", "-a", "--format", "json").splitlines())}

    def port(self, service: str, port: int, index: int = 1) -> int:
        """The port of this computer that leads to one of the service's containers."""
        return int(self.ok("port", "--index", str(index), service, str(port)).rpartition(":")[2])

    @contextmanager
    def in_background(self, output: Path, *args: str) -> Iterator[None]:
        """A command that goes on meanwhile and writes into a file."""
        environment = self._cli.docker_environment()
        with (
            output.open("wb") as file,
            subprocess.Popen(
                [self._program, *self._options, *args], stdin=subprocess.DEVNULL, stdout=file, env=environment
            ) as process,
        ):
            try:
                yield
            finally:
                process.kill()

    def left(self) -> list[str]:
        """The containers, networks and volumes there are of this project."""
        label = f"label=com.docker.compose.project={self.project}"
        return [line for kind in _LISTINGS for line in self._cli.ok(*kind, "--filter", label).split()]
