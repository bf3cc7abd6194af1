"""Settings: a TOML file, over it the environment (`PYBOX_MEMORY`, …), read once into a frozen value.

A machine may have its own: the table `[machine.NAME]` in the file wins over the top level. Names are written with
hyphens in the file and on the command line, in capitals with underscores in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pybox import settings_values as values
from pybox.errors import UsageProblem
from pybox.files import write_atomically
from pybox.frozen import frozen, replace
from pybox.model import Accelerator, Arch
from pybox.paths import Paths, check_machine_name
from pybox.settings_values import Key

ENVIRONMENT_PREFIX = "PYBOX_"

KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key("memory", values.memory, "memory of the machine, in MiB or with a unit (4G); empty: a quarter of the host's"),
        Key("cpus", values.cpus, "virtual CPUs; empty: half of the host's, at most 4"),
        Key("disk-size", values.disk_size, "size of the data disk (64G); it can only grow"),
        Key("arch", values.arch, "architecture of the guest, amd64 or arm64; empty: the host's"),
        Key("accelerator", values.accelerator, "hvf, whpx, kvm or tcg; empty: the first that works"),
        Key("qemu", values.absolute_path, "the QEMU program, if it is not the one on PATH"),
        Key("mirror", values.url, "Debian mirror that the guest image is made from"),
        Key("shares", values.folders, "shared folders, PATH or PATH:ro; `~` is the home folder; none: []"),
        Key("insecure-registries", values.words, "registries, HOST[:PORT], that are spoken to without TLS"),
        Key("registry-mirror", values.plain, "registry, HOST[:PORT], that pulls ask in the place of Docker Hub"),
        Key("default-host-ip", values.host_ip, "address that published ports listen on unless the container says"),
        Key("http-proxy", values.url, "proxy for http; empty: the environment's"),
        Key("https-proxy", values.url, "proxy for https; empty: the environment's"),
        Key("no-proxy", values.plain, "hosts that are reached without a proxy; empty: the environment's"),
        Key("certificates", values.paths, "PEM files of further roots that the engine trusts"),
        Key("dns", values.addresses, "name servers of the machine; empty: the host's"),
        Key("ssh", values.flag, "true: the machine runs an ssh server for `pybox ssh`"),
        Key("golden-state", values.flag, "true: machines start from the saved state of one that was booted before"),
        Key("autostart", values.flag, "true: run, create, build, pull and load start the machine by themselves"),
        Key("idle", values.idle, "what it does after a time without containers and clients: suspend:15m, stop:2h, off"),
    )
}


@frozen
class Settings:
    """What the user wants of one machine. None and "" mean that pybox chooses."""

    paths: Paths
    memory_mib: int | None = None
    cpus: int | None = None
    disk_size: int = 64 * values.GIB  # bytes
    arch: Arch | None = None
    accelerator: Accelerator | None = None
    qemu: str = ""
    mirror: str = ""
    shares: tuple[str, ...] = ("~",)
    insecure_registries: tuple[str, ...] = ()
    registry_mirror: str = ""
    default_host_ip: str = "127.0.0.1"
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    certificates: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    ssh: bool = True
    golden_state: bool = True
    autostart: bool = True
    idle: values.Idle | None = None

    def with_values(self, changes: Mapping[str, str]) -> Settings:
        """Return these settings with some replaced: names as in KEYS, values as typed. Raises UsageProblem."""
        return replace(self, **{_field(name): key_of(name).from_text(text) for name, text in changes.items()})

    def as_json(self) -> dict[str, Any]:
        """Return all values but the paths by their names, for a start request."""
        found = {name: getattr(self, _field(name)) for name in KEYS}
        return {name: str(value) if isinstance(value, values.Idle) else value for name, value in found.items()}

    @classmethod
    def from_json(cls, paths: Paths, value: Mapping[str, Any]) -> Settings:
        """Take back what `as_json` gave (through JSON)."""
        fields = {_field(name): KEYS[name].from_json(item) for name, item in value.items() if item is not None}
        return cls(paths, **fields)


def _field(name: str) -> str:
    return "memory_mib" if name == "memory" else name.replace("-", "_")


def key_of(name: str) -> Key:
    """Return the setting of this name. Raises UsageProblem that lists all."""
    try:
        return KEYS[name]
    except KeyError:
        raise UsageProblem(f"there is no setting {name!r}", "", f"Settings are: {', '.join(KEYS)}.") from None


def load(paths: Paths, machine: str = "default", environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of a machine. Raises UsageProblem that names the wrong one and where it stands."""
    file = SettingsFile(paths.settings_file)
    found = Settings(paths)
    for name, (value, place) in file.effective(machine).items():
        found = replace(found, **{_field(name): key_of(name).from_toml(value, place)})
    for name, key in KEYS.items():
        variable = ENVIRONMENT_PREFIX + name.replace("-", "_").upper()
        if variable in environ:
            found = replace(found, **{_field(name): key.from_text(environ[variable], f"in {variable}")})
    return found


class SettingsFile:
    """The settings file, for `pybox config`. Every change is checked before it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str, machine: str | None = None) -> str | None:
        """Return a value of the file as one would type it; None when it is not set there."""
        key_of(name)
        value = self._table(self._read(), machine).get(name)
        return None if value is None else values.to_text(value)

    def items(self, machine: str | None = None) -> dict[str, str]:
        """Return all values that the file sets at the top level, or for one machine."""
        table = self._table(self._read(), machine)
        return {name: values.to_text(table[name]) for name in KEYS if name in table}

    def set(self, name: str, value: str, machine: str | None = None) -> None:
        """Write a value. Raises UsageProblem, and leaves the file as it was, when the value cannot be."""
        key = key_of(name)
        stored = key.to_toml(value)
        document = self._read()
        self._table(document, machine, make=True)[name] = stored
        self._write(document)

    def unset(self, name: str, machine: str | None = None) -> None:
        """Take a value out of the file; nothing happens when it is not there."""
        key_of(name)
        document = self._read()
        if self._table(document, machine).pop(name, None) is not None:
            self._write(document)

    def effective(self, machine: str) -> dict[str, tuple[Any, str]]:
        """Return each value that holds for a machine, with the place where it stands (for errors)."""
        document = self._read()
        found = {name: (value, f"in {self.path}") for name, value in document.items() if not isinstance(value, dict)}
        for name, value in self._table(document, machine).items():
            found[name] = (value, f"in {self.path}, [machine.{machine}]")
        return found

    def _table(self, document: dict[str, Any], machine: str | None, make: bool = False) -> dict[str, Any]:
        if machine is None:
            return document
        check_machine_name(machine)
        machines = document.setdefault("machine", {}) if make else document.get("machine", {})
        table: object = machines.setdefault(machine, {}) if make else machines.get(machine, {})
        if not isinstance(table, dict):
            raise UsageProblem(f"{self.path}: machine.{machine} is not a table", "", "Correct the file.")
        return table

    def _read(self) -> dict[str, Any]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageProblem(f"the settings file {self.path} cannot be read", str(error.strerror)) from None
        import tomllib  # most users have no such file

        try:
            return tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageProblem(
                f"the settings file {self.path} is not TOML", str(error), "Correct it, or remove it."
            ) from None

    def _write(self, document: dict[str, Any]) -> None:
        lines = ["# Settings of pybox; `pybox config set` writes this file anew, without comments."]
        lines += [_line(name, value) for name, value in document.items() if not isinstance(value, dict)]
        for machine, table in sorted(document.get("machine", {}).items()):
            if table:
                lines += ["", f"[machine.{machine}]", *(_line(name, value) for name, value in table.items())]
        write_atomically(self.path, ("\n".join(lines) + "\n").encode(), 0o600)


def _line(name: str, value: object) -> str:
    return f"{name} = {values.to_toml_text(value)}"
