"""Logging in to a registry: Basic, and tokens of the service that the registry names (distribution-spec, auth)."""

from __future__ import annotations

import base64
import copy
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import SplitResult, urlencode, urlsplit

from pyboxd.errors import SystemFailure, Unauthorized
from pyboxd.image.refusal import NoCredentials, Refused
from pyboxd.model import RegistryAuth

CLIENT = "docker"  # token services give identity tokens to this name, and take them back from it
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_LIFETIME = 60.0  # seconds of a token whose service does not say how long it is good
_MARGIN = 10.0  # seconds before its end in which a token is not used any more
_WRONG = b'{"details": "incorrect username or password"}'


class Reply(Protocol):
    """What is read of an answer; `registry.Answer` is one."""

    @property
    def status(self) -> int: ...
    def body(self) -> bytes: ...


Send = Callable[[str, str, Mapping[str, str], "bytes | None"], Reply]  # method, URL, headers, content


@dataclass
class _Learnt:
    """What the registry asked for, and what was got for it. Threads share it; the last one to write wins."""

    scheme: str = ""
    challenge: Mapping[str, str] = field(default_factory=dict)
    tokens: dict[tuple[str, ...], tuple[str, float]] = field(default_factory=dict)  # scopes -> token, its end
    identity_token: str = ""


class Login:
    """One login at the registry `host`. `send` makes a request, `offline` asks for an identity token too."""

    def __init__(self, host: str, auth: RegistryAuth | None, send: Send, *, offline: bool = False) -> None:
        self._host = host
        self._auth = auth or RegistryAuth()
        self._send = send
        self._offline = offline
        self._learnt = _Learnt()

    def sent_by(self, send: Send) -> Login:
        """The same login for another job."""
        other = copy.copy(self)
        other._send = send
        return other

    @property
    def given(self) -> bool:
        """Whether there are credentials at all."""
        return bool(self._auth.username or self._auth.identity_token or self._auth.registry_token)

    @property
    def identity_token(self) -> str:
        """What the token service gave to be used instead of the password; "" if nothing."""
        return self._learnt.identity_token

    def headers(self, scopes: tuple[str, ...]) -> Mapping[str, str]:
        """What to send along, as far as the registry has said what it wants. Fetches a token when the last one ends."""
        if self._learnt.scheme == "basic":
            return {"Authorization": f"Basic {self._basic()}"}
        if self._learnt.scheme != "bearer":
            return {}
        token, end = self._learnt.tokens.get(scopes, ("", 0.0))
        if end < time.monotonic():
            token = self._fetch(scopes)
        return {"Authorization": f"Bearer {token}"}

    def assume_basic(self) -> None:
        """Send the password at once: what an old registry keeps for those who do, it does not ask others for."""
        self._learnt.scheme = "basic" if self._auth.username else ""

    def learn(self, challenge: str, url: str, scopes: tuple[str, ...], sent: Mapping[str, str]) -> bool:
        """Prepare for what the answer 401 to `url` wants; False if it was among what was `sent`.

        Unauthorized in Docker's words when there is nothing to send, Refused by a token service.
        """
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not self._auth.username:
                raise NoCredentials(url)
            self._learnt.scheme = "basic"
            return not sent
        if scheme.lower() == "bearer":
            self._learnt.challenge = dict(_CHALLENGE.findall(rest))
            self._learnt.scheme = "bearer"
            if self.headers(scopes) == sent:  # else another job has just got a token
                self._fetch(scopes)
            return True
        if not scheme:
            return False
        raise Unauthorized(f"{self._host}: unknown authentication {scheme!r}")

    def _basic(self) -> str:
        return base64.b64encode(f"{self._auth.username}:{self._auth.password}".encode()).decode()

    def _fetch(self, scopes: tuple[str, ...]) -> str:
        if self._auth.registry_token:
            return self._auth.registry_token
        challenge = self._learnt.challenge
        realm = urlsplit(challenge.get("realm", ""))
        if realm.scheme not in ("http", "https") or not realm.hostname:
            raise Unauthorized(f"{self._host}: invalid realm for auth challenge")
        asked = [*dict.fromkeys((*scopes, *filter(None, (challenge.get("scope", ""),))))]
        answer = self._ask(realm, challenge.get("service", ""), asked)
        said = answer.body()
        if answer.status in (400, 401, 403):
            raise Refused(
                self._host, 401 if answer.status == 400 else answer.status, said or (_WRONG if self.given else b"")
            )
        if answer.status != 200:
            raise SystemFailure(f"fetching a token from {realm.netloc}: unexpected HTTP status {answer.status}")
        return self._keep(scopes, said)

    def _ask(self, realm: SplitResult, service: str, scopes: Sequence[str]) -> Reply:
        """The token service's answer. It gets a secret only over TLS, or when it is on the registry's own host."""
        query = [("service", service)] if service else []
        trusted = realm.scheme == "https" or realm.hostname == urlsplit(f"//{self._host}").hostname
        if self._auth.identity_token and trusted:
            query += [("grant_type", "refresh_token"), ("refresh_token", self._auth.identity_token), ("client_id", CLIENT)]
            query += [("scope", " ".join(scopes))] if scopes else []
            form = urlencode(query).encode()
            return self._send("POST", realm.geturl(), {"Content-Type": "application/x-www-form-urlencoded"}, form)
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if self._auth.username and trusted:
            query.append(("account", self._auth.username))
            if self._offline:
                query += [("offline_token", "true"), ("client_id", CLIENT)]
            headers["Authorization"] = f"Basic {self._basic()}"
        joint = "&" if realm.query else "?"
        return self._send("GET", f"{realm.geturl()}{joint}{urlencode(query)}", headers, None)

    def _keep(self, scopes: tuple[str, ...], body: bytes) -> str:
        try:
            value = json.loads(body)
            token = str(value.get("token") or value["access_token"])
            lifetime = max(float(value.get("expires_in") or 0), _LIFETIME)
            self._learnt.identity_token = str(value.get("refresh_token") or "") or self._learnt.identity_token
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise Unauthorized("authorization server did not include a token in the response") from error
        self._learnt.tokens[scopes] = token, time.monotonic() + lifetime - _MARGIN
        return token
