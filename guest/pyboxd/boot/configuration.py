"""What the host tells a machine about itself: the params of `configure`, once as frozen values.

Parsing only. `system.py` puts it in force, the engine takes what it needs from it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.model import Share

LEAST_KEY = 16  # bytes
T = TypeVar("T")


@frozen
class ApiWay:
    """Where the host waits for connections of the engine, and what both prove to know."""

    address: str
    port: int
    key: bytes


@frozen
class Proxies:
    """As in the environment variables of the same names; "" means none."""

    http: str = ""
    https: str = ""
    no: str = ""


@frozen
class SshKeys:
    """`authorized_key` is a line of authorized_keys, `host_key` an unencrypted OpenSSH private key (ed25519)."""

    authorized_key: str
    host_key: str


@frozen
class Configuration:
    """One `configure` message. `time` and `entropy` are of the moment and take no part in comparisons."""

    hostname: str = "pybox"
    api: ApiWay | None = None
    dns: tuple[str, ...] = ()
    proxies: Proxies = Proxies()
    certificates: str = ""  # PEM, extra roots
    shares: tuple[Share, ...] = ()
    insecure_registries: tuple[str, ...] = ()  # host[:port]
    registry_mirror: str = ""  # host[:port]
    data_disk: bool = False
    ssh: SshKeys | None = None
    default_host_ip: str = "127.0.0.1"


@frozen
class Moment:
    """The parts of `configure` that are different each time."""

    time: float | None = None  # seconds since the epoch
    entropy: bytes = b""


def parse(params: Mapping[str, Any]) -> tuple[Configuration, Moment]:
    """Check and convert the params of `configure`. Missing ones have defaults; InvalidArgument names a wrong one."""
    fields = _Fields("configure", params)
    configuration = Configuration(
        hostname=fields.text("hostname", "pybox") or "pybox",
        api=fields.part("api", _api),
        dns=fields.list_of_texts("dns"),
        proxies=fields.part("proxies", _proxies) or Proxies(),
        certificates=fields.text("certificates"),
        shares=tuple(_share(part) for part in fields.parts("shares")),
        insecure_registries=fields.list_of_texts("insecure_registries"),
        registry_mirror=fields.text("registry_mirror"),
        data_disk=fields.flag("data_disk"),
        ssh=fields.part("ssh", lambda part: SshKeys(*part.texts("authorized_key", "host_key"))),
        default_host_ip=fields.text("default_host_ip", "127.0.0.1") or "127.0.0.1",
    )
    time = fields.number("time", 0.0)
    return configuration, Moment(time or None, fields.base64("entropy"))


def _api(part: _Fields) -> ApiWay:
    (address,) = part.texts("address")
    key = part.base64("key")
    if len(key) < LEAST_KEY:
        raise InvalidArgument("configure: the key of the API is too short")
    return ApiWay(address, int(part.number("port", 0)), key)


def _proxies(part: _Fields) -> Proxies:
    return Proxies(part.text("http"), part.text("https"), part.text("no"))


def _share(part: _Fields) -> Share:
    name, host_path, guest_path = part.texts("name", "host_path", "guest_path")
    if not name or "/" in name or name in (".", ".."):
        raise InvalidArgument(f"configure: {name!r} is no name for a shared folder")
    return Share(name, host_path, guest_path, part.flag("readonly"))


class _Fields:
    """A JSON object whose values are taken out with their type checked; `where` is for the error's text."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"{where} is no object")
        self._where = where
        self._value = value

    def _get(self, name: str, default: T, *kinds: type) -> T:
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InvalidArgument(f"{self._where}: {name} has a value of the wrong type")
        return value  # type: ignore[return-value]

    def text(self, name: str, default: str = "") -> str:
        return self._get(name, default, str)

    def texts(self, *names: str) -> tuple[str, ...]:
        for name in names:
            if name not in self._value:
                raise InvalidArgument(f"{self._where}: {name} is missing")
        return tuple(self.text(name) for name in names)

    def number(self, name: str, default: float) -> float:
        return self._get(name, default, int, float)

    def flag(self, name: str) -> bool:
        return self._get(name, False, bool)

    def list_of_texts(self, name: str) -> tuple[str, ...]:
        values: list[object] = self._get(name, [], list)
        if not all(isinstance(value, str) for value in values):
            raise InvalidArgument(f"{self._where}: {name} is no list of texts")
        return tuple(str(value) for value in values)

    def base64(self, name: str) -> bytes:
        try:
            return base64.b64decode(self.text(name), validate=True)
        except binascii.Error:
            raise InvalidArgument(f"{self._where}: {name} is not base64") from None

    def part(self, name: str, convert: Callable[[_Fields], T]) -> T | None:
        value = self._value.get(name)
        return None if value is None else convert(_Fields(f"{self._where}: {name}", value))

    def parts(self, name: str) -> list[_Fields]:
        values: list[object] = self._get(name, [], list)
        return [_Fields(f"{self._where}: {name}", value) for value in values]
