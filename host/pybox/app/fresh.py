"""Throw-away machines: a clean VM for one command, gone without a trace behind it.

A throw-away machine starts from the golden state like every other; its disk is an overlay over a template that
machines only read. A template holds the images that were asked for: it is made once, from the images of the user's own
machine, and made anew when a name there means another image.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pybox import hostos, process, settings
from pybox.app.machines import Machines, Report
from pybox.engine.client import EngineClient
from pybox.errors import EngineError, MachineError
from pybox.files import write_atomically
from pybox.frozen import as_dict, frozen
from pybox.hostos.interface import ProcessIdentity
from pybox.machine import disks, lifecycle
from pybox.machine.files import MachineFiles, ProcessRecord
from pybox.model import MachineState
from pybox.paths import Paths

PREFIX = "fresh-"
KEPT = 8  # templates
_STOP = 10.0  # seconds for the machine of a template to end properly


@frozen
class Template:
    """A disk that throw-away machines stand on."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "data.qcow2"

    @property
    def record(self) -> Path:
        return self.folder / "images.json"

    def images(self) -> dict[str, str]:
        """What it holds, name -> id. OSError or ValueError when it cannot be told."""
        return {str(name): str(identity) for name, identity in json.loads(self.record.read_bytes()).items()}


class Fresh:
    """One throw-away machine: `open`, and `close` at last, whatever happened. `origin` is the user's own machine."""

    def __init__(self, machines: Machines, paths: Paths, origin: str, report: Report) -> None:
        self._machines = machines
        self._paths = paths
        self._origin = origin
        self._report = report
        self.machine = PREFIX + secrets.token_hex(4)

    def open(self, images: Sequence[str] = ()) -> EngineClient:
        """Start it, with these images of the user's own machine in it; names that are not there are left out."""
        remove_abandoned(self._machines, self._paths)
        template = self._template(images)
        self._make_disk(self.machine, template)
        self._machines.start(self.machine, self._report)
        return self._engine(self.machine)

    def close(self) -> None:
        """End it and remove all that it was."""
        _remove(self._machines, self._paths, self.machine)

    # -- inside -------------------------------------------------------------------------------------

    def _engine(self, machine: str) -> EngineClient:
        return EngineClient(hostos.api_address(self._paths, machine))

    def _template(self, images: Sequence[str]) -> Template:
        """Return the template for these images, made if there is none that is still right."""
        if self._machines.status(self._origin).found.state is not MachineState.RUNNING:
            known = self._newest_with(images)
            if known is not None:
                return known
            if images:
                self._machines.start(self._origin, self._report)
        wanted = self._identities(images) if images else {}
        text = json.dumps(sorted(wanted.items()))
        template = Template(self._paths.templates_dir / hashlib.sha256(text.encode()).hexdigest()[:32])
        if template.disk.exists():
            os.utime(template.folder)
            return template
        self._make(template, wanted)
        return template

    def _newest_with(self, images: Sequence[str]) -> Template | None:
        """Return what was made last and holds these names, and no others; nobody can say that they mean others now."""
        for template in _templates(self._paths):
            with suppress(OSError, ValueError):
                if template.images().keys() == set(images) and template.disk.exists():
                    return template
        return None

    def _identities(self, images: Sequence[str]) -> dict[str, str]:
        engine, found = self._engine(self._origin), {}
        for name in images:
            with suppress(EngineError):
                found[name] = str(engine.get(f"/images/{name}/json")["Id"])
        return found

    def _make(self, template: Template, images: dict[str, str]) -> None:
        """Fill a disk in a machine of its own, and keep it."""
        self._report.step("Preparing a disk for throw-away machines")
        machine = PREFIX + secrets.token_hex(4)
        self._make_disk(machine, None)
        try:
            self._machines.start(machine, self._report)
            if images:
                self._copy(self._engine(machine), list(images))
            lifecycle.stop(settings.load(self._paths, machine), machine, _STOP)
            unfinished = template.folder.with_name(f"{template.folder.name}.{machine}")
            unfinished.mkdir(mode=0o700, parents=True)
            made = Template(unfinished)
            MachineFiles(self._paths, machine).data_disk.replace(made.disk)
            made.disk.chmod(0o400)  # overlays would be worthless if it changed
            write_atomically(made.record, json.dumps(images).encode())
            with suppress(OSError):  # another process was faster
                unfinished.rename(template.folder)
        finally:
            _remove(self._machines, self._paths, machine)
        _collect(self._paths)

    def _copy(self, target: EngineClient, images: list[str]) -> None:
        """Send images from the user's own machine."""

        def pieces() -> Iterator[bytes]:
            with self._engine(self._origin).stream("GET", "/images/get", {"names": images}) as response:
                while data := response.read1():
                    yield data

        headers = {"Content-Type": "application/x-tar"}
        for line in target.json_lines("POST", "/images/load", {"quiet": True}, pieces(), headers):
            if "error" in line:
                raise MachineError("the images cannot be given to a throw-away machine", str(line["error"]))

    def _make_disk(self, machine: str, template: Template | None) -> None:
        """Make the machine's folder, with its owner's name in it, and its disk over a template."""
        files = MachineFiles(self._paths, machine)
        files.folder.mkdir(mode=0o700, parents=True)
        owner = ProcessRecord.of(os.getpid())
        if owner is not None:
            write_atomically(_owner_file(files), json.dumps(as_dict(owner)).encode())
        if template is not None:
            disks.make_overlay(self._machines.qemu(machine), files.data_disk, template.disk)


def remove_abandoned(machines: Machines, paths: Paths) -> None:
    """Remove the throw-away machines whose command was killed before it could."""
    folder = paths.machines_dir
    for path in folder.glob(f"{PREFIX}*") if folder.is_dir() else ():
        try:
            found = json.loads(_owner_file(MachineFiles(paths, path.name)).read_bytes())
            owner = ProcessRecord(int(found["pid"]), ProcessIdentity(**found["identity"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not owner.lives():
            _remove(machines, paths, path.name)


def _remove(machines: Machines, paths: Paths, machine: str) -> None:
    files = MachineFiles(paths, machine)
    if files.exists():
        with suppress(MachineError):
            machines.delete(machine)
    shutil.rmtree(files.folder, ignore_errors=True)
    shutil.rmtree(files.sockets, ignore_errors=True)


def _owner_file(files: MachineFiles) -> Path:
    return files.folder / "owner.json"


def _templates(paths: Paths) -> list[Template]:
    """Return all templates, the one that was used last first."""
    folder = paths.templates_dir
    found = [path for path in folder.iterdir() if "." not in path.name] if folder.is_dir() else []
    return [Template(path) for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def _collect(paths: Paths) -> None:
    """Keep the templates that were used last. A running machine keeps the disk that it has open."""
    for template in _templates(paths)[KEPT:]:
        shutil.rmtree(template.folder, ignore_errors=True)


def run_with(client_address: str, machine: str, command: Sequence[str]) -> int:
    """Run a program of this host that finds the machine where `docker` and `pybox` look for it; its exit status."""
    environment = {
        **os.environ,
        "DOCKER_HOST": client_address,
        "DOCKER_BUILDKIT": "0",
        "PYBOX_MACHINE": machine,
    }
    child = process.popen(command, stdin=None, stdout=None, stderr=None, environment=environment)
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:  # the program has got it too, and decides
            continue
        return status if status >= 0 else 128 - status
