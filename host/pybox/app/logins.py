"""Logins to registries: pybox keeps its own, and reads those of docker's client without ever writing them.

Both files have docker's form: {"auths": {REGISTRY: {"auth": base64 of "user:password", "identitytoken": ...}}}; docker's
may name programs that keep the secrets instead ("credsStore" for all registries, "credHelpers" by registry).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pybox import process
from pybox.engine.client import EngineClient
from pybox.errors import PyboxError
from pybox.files import write_atomically
from pybox.frozen import frozen

HUB = "https://index.docker.io/v1/"  # what docker calls its own registry in files and requests
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # a helper's user name when its secret is an identity token


@frozen
class Login:
    """What one registry wants to know: a user's name with a password, or a token in the password's place."""

    registry: str
    user: str = ""
    password: str = ""
    token: str = ""

    def body(self) -> dict[str, str]:
        """The API's AuthConfig."""
        found = {"username": self.user, "password": self.password, "identitytoken": self.token}
        return {**{key: value for key, value in found.items() if value}, "serveraddress": self.registry}


class Logins:
    """The logins of this user. `own` is pybox's file, `docker` that of docker's client; neither needs to be there."""

    def __init__(self, own: Path, docker: Path) -> None:
        self._own = own
        self._docker = docker

    def find(self, registry: str) -> Login | None:
        """The login to a registry, None when there is none that can be read."""
        return _entry(_load(self._own), registry) or self._of_docker(_load(self._docker), registry)

    def all(self) -> list[Login]:
        """Every login there is, one for each registry."""
        own, docker = _load(self._own), _load(self._docker)
        names = [*_part(own, "auths"), *_part(docker, "credHelpers"), *_part(docker, "auths")]
        if store := docker.get("credsStore"):
            names += list(_helper(str(store), "list"))
        found = (self.find(name) for name in dict.fromkeys(map(registry_name, names)))
        return [login for login in found if login is not None]

    def header(self, registry: str) -> str:
        """The value of X-Registry-Auth for a registry; of an empty login when there is none."""
        login = self.find(registry)
        return _encoded(login.body() if login else {})

    def configuration_header(self) -> str:
        """The value of X-Registry-Config: all logins."""
        return _encoded({login.registry: login.body() for login in self.all()})

    def keep(self, login: Login) -> None:
        """Put a login into pybox's file, in the place of one to the same registry. Raises OSError."""
        found = _load(self._own)
        secret = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        entry = {"auth": secret, **({"identitytoken": login.token} if login.token else {})}
        self._write({**_part(found, "auths"), login.registry: entry})

    def forget(self, registry: str) -> bool:
        """Take a login out of pybox's file; False when it has none. Raises OSError."""
        kept = dict(_part(_load(self._own), "auths"))
        if kept.pop(registry, None) is None:
            return False
        self._write(kept)
        return True

    def _write(self, auths: Mapping[str, Any]) -> None:
        write_atomically(self._own, json.dumps({"auths": auths}, indent=2).encode() + b"\n", 0o600)

    def _of_docker(self, configuration: Mapping[str, Any], registry: str) -> Login | None:
        helper = _part(configuration, "credHelpers").get(registry) or configuration.get("credsStore")
        found = _helper(str(helper), "get", registry) if helper else {}
        user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
        if user == _TOKEN_USER:
            return Login(registry, token=secret)
        return Login(registry, user, secret) if user else _entry(configuration, registry)


def registry_name(text: str) -> str:
    """A registry as it is kept: host and port alone, or HUB. "https://host/v1/" is "host"."""
    name = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if not name or name in _HUB_NAMES else name


def registry_of(name: str) -> str:
    """The registry that an image's name belongs to."""
    return registry_name(name.partition("/")[0]) if names_registry(name) else HUB


def names_registry(name: str) -> bool:
    """Whether an image's name begins with a registry; otherwise it is the hub's."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def log_in(client: EngineClient, logins: Logins, login: Login) -> str:
    """Ask the registry whether it takes a login, and keep it; the engine's words. Raises EngineError when it does not."""
    answer = client.post("/auth", body=login.body())
    if token := answer.get("IdentityToken"):
        login = Login(login.registry, login.user, token=str(token))
    logins.keep(login)
    return str(answer["Status"])


def _load(path: Path) -> Mapping[str, Any]:
    """A file of logins; what cannot be read holds none, as nobody need be logged in to most of what is pulled."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _part(configuration: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = configuration.get(key)
    return value if isinstance(value, dict) else {}


def _entry(configuration: Mapping[str, Any], registry: str) -> Login | None:
    auths = _part(configuration, "auths")
    entry = auths.get(registry) or next((auths[name] for name in auths if registry_name(name) == registry), None)
    if not isinstance(entry, dict):
        return None
    try:
        user, _, password = base64.b64decode(str(entry.get("auth") or "")).decode().partition(":")
    except ValueError:
        return None
    user, password = str(entry.get("username") or user), str(entry.get("password") or password).rstrip("\0")
    token = str(entry.get("identitytoken") or "")
    return Login(registry, user, password, token) if user or token else None


def _helper(name: str, verb: str, text: str = "") -> Mapping[str, Any]:
    """What a credential helper prints; nothing when it has nothing, or does not work."""
    try:
        done = process.run([f"docker-credential-{name}", verb], input_data=text, check=False)
        value = json.loads(done.stdout) if done.status == 0 else {}
    except (PyboxError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
