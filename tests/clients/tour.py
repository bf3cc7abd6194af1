"""One tour of the docker CLI, for any client and any engine:

    python -m tests.clients.tour --host unix:///run/docker.sock [--docker PROGRAM] [--only GROUP] [--transcript]

Every step is a command with the status and the texts that Docker has for it: written down from the stock engine 26.1
and, where a later one says it in other words, from its source. What pybox does not do as Docker does is written down
beside it, with the reason, and is expected just as strictly: a difference that goes away is reported, too.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.clients.tour_words import plain

BASE = "debian:trixie-slim"  # the engine must have it
CLIENTS = (20, 26, 28)  # major versions whose words are written down; others are taken for the next lower one
_PATIENCE = 120.0  # seconds for one command on a busy computer
DOCKERFILE = """FROM tour:base AS first
LABEL tour=built
ARG WORD=built
RUN echo $WORD >/built
FROM first
ENV A=b
WORKDIR /usr/share
EXPOSE 80
COPY words /copied
CMD ["cat", "/copied"]
"""

Text = str | re.Pattern[str]


@dataclass(frozen=True)
class Says:
    """What a command leaves: its status and both outputs, without what differs from run to run (`tour_words`)."""

    out: Text = ""
    err: Text = ""
    status: int = 0

    def met_by(self, found: Says) -> bool:
        return self.status == found.status and _met(self.out, found.out) and _met(self.err, found.err)


@dataclass(frozen=True)
class Step:
    """One command. `clients` has what other versions of the client say, whatever the engine; `pybox` what pybox leaves in
    place of `docker`.

    `why` is the reason for a difference between the two engines: of `pybox`, or of two texts that `docker` both allows.
    """

    command: str
    docker: Says
    clients: tuple[tuple[int, Says], ...] = ()
    pybox: Says | None = None
    why: str = ""
    stdin: bytes = b""

    def expected(self, client: int, pybox: bool) -> Says:
        """What this client says, before Docker's own engine or before pybox."""
        own = dict(self.clients).get(client)
        return own or (self.pybox if pybox and self.pybox else self.docker)


@dataclass(frozen=True)
class Seen:
    """A step and what it left."""

    step: Step
    found: Says

    def __str__(self) -> str:
        lines = [f"$ docker {self.step.command}" + (f"  [{self.found.status}]" if self.found.status else "")]
        for mark, text in (("  ", self.found.out), ("! ", self.found.err)):
            lines += [mark + line for line in str(text).splitlines()]
        return "\n".join(lines)


def step(
    command: str,
    out: Text = "",
    err: Text = "",
    status: int = 0,
    *,
    old: Says | None = None,
    new: Says | None = None,
    pybox: Says | None = None,
    why: str = "",
    stdin: bytes = b"",
) -> Step:
    """A step with what the client 26 says; `old` is what 20.10 says in its place, `new` what 28 says."""
    others = tuple((client, says) for client, says in ((20, old), (28, new)) if says is not None)
    return Step(command, Says(out, err, status), others, pybox, why=why, stdin=stdin)


def like(pattern: str) -> re.Pattern[str]:
    """A text that this matches as a whole; `.` is any character, the end of a line, too."""
    return re.compile(pattern, re.DOTALL)


def archive() -> bytes:
    """A tar with one small file."""
    stream, content = io.BytesIO(), b"from an archive\n"
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("inside")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


class Tour:
    """The docker CLI `program` before the engine at `host`; `folder` is its current one, and empty.

    The engine must see `folder` for a bind mount: a machine of pybox must share it.
    """

    def __init__(self, program: str, host: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        self._environment = {
            **kept,
            "DOCKER_HOST": host,
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONFIG": str(folder / ".docker"),
            "HOME": str(folder),
        }
        self._prepare()
        words = str(self._docker(["--version"]).out)  # "Docker version 26.1.5+dfsg1, build a72d7cd"
        self.version = words.split()[2].rstrip(",").partition("+")[0]

    @property
    def client(self) -> int:
        """The newest of CLIENTS that this one is not older than."""
        major = int(self.version.partition(".")[0])
        return max((known for known in CLIENTS if known <= major), default=CLIENTS[0])

    def walk(self, steps: Sequence[Step]) -> Iterator[Seen]:
        """Take the steps of one group, one after the other; nothing of them is left on the engine."""
        self._clean()
        tagged = self._docker(["tag", BASE, "tour:base"])
        if tagged.status:
            raise LookupError(f"the engine has no {BASE}: {tagged.err}")
        try:
            for item in steps:
                words = shlex.split(item.command.replace("FOLDER", str(self._folder)))
                found = self._docker(words, item.stdin)
                place = str(self._folder)
                yield Seen(item, replace(found, out=plain(str(found.out), place), err=plain(str(found.err), place)))
        finally:
            self._clean()

    def _docker(self, words: Sequence[str], stdin: bytes = b"") -> Says:
        done = subprocess.run(
            [self._program, *words],
            input=stdin,
            capture_output=True,
            timeout=_PATIENCE,
            env=self._environment,
            cwd=self._folder,
            check=False,
        )
        return Says(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.returncode)

    def _clean(self) -> None:
        """Remove what a tour makes, by its names."""
        for listing, removal in (
            (["ps", "--all", "--quiet", "--filter", "name=tour-"], ["rm", "--force", "--volumes"]),
            (["volume", "ls", "--quiet", "--filter", "name=tour-"], ["volume", "rm"]),
            (["network", "ls", "--quiet", "--filter", "name=tour-"], ["network", "rm"]),
            (["images", "--format", "{{.Repository}}:{{.Tag}}", "tour"], ["rmi", "--force"]),
        ):
            if found := str(self._docker(listing).out).split():
                self._docker([*removal, *found])
        self._docker(["image", "prune", "--force", "--filter", "label=tour"])

    def _prepare(self) -> None:
        for name in (".docker", "bound", "folder"):
            (self._folder / name).mkdir()
        for name, text in (
            (".docker/config.json", "{}"),
            (".dockerignore", "*\n!words\n"),
            ("folder/seen", "seen\n"),
            ("words", "WORD=written\n"),
            ("Dockerfile", DOCKERFILE),
            ("Failing", "FROM tour:base\nRUN echo said; exit 3\n"),
            ("Broken", "FROM tour:base\nNOSUCH thing\n"),
        ):
            (self._folder / name).write_text(text)
        (self._folder / "small.tar").write_bytes(archive())


def groups() -> Mapping[str, tuple[Step, ...]]:
    """All steps."""
    from tests.clients import tour_containers, tour_images, tour_networks, tour_run, tour_system

    return {
        "system": tour_system.STEPS,
        "images": tour_images.STEPS,
        "run": tour_run.STEPS,
        "containers": tour_containers.STEPS,
        "networks": tour_networks.STEPS,
    }


def mistaken(seen: Seen, client: int, pybox: bool) -> str:
    """Say how a step did not go as expected; empty when it did."""
    expected = seen.step.expected(client, pybox)
    if expected.met_by(seen.found):
        return ""
    parts = [f"{seen}\n  expected:"]
    for name in ("status", "out", "err"):
        wanted, found = getattr(expected, name), getattr(seen.found, name)
        if not (wanted == found if isinstance(wanted, int) else _met(wanted, found)):
            parts.append(f"  {name} {wanted!r}\n   is {found!r}")
    return "\n".join(parts)


def _met(expected: Text, found: Text) -> bool:
    return expected == found if isinstance(expected, str) else expected.fullmatch(str(found)) is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default=os.environ.get("DOCKER_HOST"), help="the engine: unix://… or tcp://…")
    parser.add_argument("--docker", default=shutil.which("docker"), help="the client; else the one on PATH")
    parser.add_argument("--engine", choices=("pybox", "docker"), default="pybox", help="whose answers to expect")
    parser.add_argument("--folder", type=Path, help="an empty folder that the engine shares; else a temporary one")
    parser.add_argument("--only", choices=groups(), help="one group of steps")
    parser.add_argument("--transcript", action="store_true", help="print every step, too")
    arguments = parser.parse_args()
    if not arguments.host or not arguments.docker:
        parser.error("it needs an engine (--host) and a client (--docker)")
    with tempfile.TemporaryDirectory(prefix="tour-", dir=arguments.folder) as folder:
        tour = Tour(str(Path(arguments.docker).absolute()), arguments.host, Path(folder))
        wrong = 0
        for name, steps in groups().items():
            if arguments.only in (None, name):
                for seen in tour.walk(steps):
                    text = mistaken(seen, tour.client, arguments.engine == "pybox")
                    wrong += bool(text)
                    if text or arguments.transcript:
                        print(text or seen, flush=True)
    print(f"{wrong} steps did not go as expected" if wrong else "all as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
