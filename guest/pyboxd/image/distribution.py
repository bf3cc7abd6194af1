"""A registry's HTTP interface (distribution-spec), as far as pulling needs it. Blocking, for worker threads.

`localhost` and 127.0.0.0/8 mean the user's own computer, which the guest reaches through QEMU's gateway; they may
speak plain HTTP, as may the registries that the settings call insecure. Credentials are sent to the registry itself
and to a token service over TLS (or on the same host), never along a redirect. No other registry can send the engine
to the user's computer.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from pyboxd.errors import InvalidArgument, NotFound, PyboxdError, SystemFailure, Unauthorized
from pyboxd.frozen import frozen
from pyboxd.image.model import RegistrySettings
from pyboxd.image.reference import DEFAULT_DOMAIN, Reference
from pyboxd.image.trust import tls_context
from pyboxd.image.workers import Stop
from pyboxd.model import RegistryAuth

HUB = "registry-1.docker.io"
CONNECT_TIMEOUT = 15.0  # seconds
TIMEOUT = 60.0  # seconds without a byte
PIECE = 256 * 1024
ATTEMPTS = 5
PAUSE = 0.2  # seconds before the second attempt, doubled for each later one
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of a manifest or token
MAX_REDIRECTS = 5
MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@frozen
class Document:
    """A manifest: its bytes, media type, and the digest that the registry told (or "")."""

    data: bytes
    media_type: str
    digest: str


@dataclass
class _Answer:
    status: int
    headers: Mapping[str, str]
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection

    def body(self) -> bytes:
        try:
            return self.response.read(MAX_DOCUMENT + 1)
        finally:
            self.connection.close()


@dataclass
class Registry:
    """One repository of one registry."""

    reference: Reference
    settings: RegistrySettings = field(default_factory=RegistrySettings)
    auth: RegistryAuth | None = None
    stop: Stop = field(default_factory=Stop)
    _authorization: str = ""
    _base: str = ""

    @property
    def host(self) -> str:
        return HUB if self.reference.domain == DEFAULT_DOMAIN else self.reference.domain

    def with_stop(self, stop: Stop) -> Registry:
        """The same repository for another job: what was learnt about the way in and the login stays."""
        return replace(self, stop=stop)

    def manifest(self, what: str) -> Document:
        """The manifest of a tag or digest. NotFound, Unauthorized, SystemFailure in Docker's words."""
        try:
            answer = self._get(f"manifests/{what}", {"Accept": ", ".join(MANIFEST_TYPES)})
            data = answer.body()
        except (OSError, http.client.HTTPException) as error:
            self.stop.check()
            url = f"{self._base}/v2/{self.reference.path}/manifests/{what}"
            raise SystemFailure(f'Get "{url}": {_words(error, self.host)}') from error
        if len(data) > MAX_DOCUMENT:
            raise SystemFailure("the manifest is larger than 4 MiB")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        return Document(data, kind, answer.headers.get("docker-content-digest", ""))

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob; a broken transfer is taken up where it ended, a few times."""
        done = 0
        failures = 0
        while done < size:
            try:
                for piece in self._blob_from(digest, done):
                    done += len(piece)
                    failures = 0
                    if done > size:
                        raise InvalidArgument(f"{digest} is longer than its manifest says")
                    yield piece
                if done < size:
                    raise http.client.IncompleteRead(b"", size - done)
            except (OSError, http.client.HTTPException) as error:
                self.stop.check()
                failures += 1
                if failures >= ATTEMPTS:
                    raise SystemFailure(f"download of {digest} failed: {_words(error)}") from error
                self.stop.wait(PAUSE * 2**failures)

    def document(self, digest: str, size: int) -> bytes:
        """A small blob, whole."""
        if size > MAX_DOCUMENT:
            raise SystemFailure(f"the image's configuration is larger than {MAX_DOCUMENT} bytes")
        return b"".join(self.blob(digest, size))

    # -- requests --------------------------------------------------------------------------------

    def _blob_from(self, digest: str, start: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._get(f"blobs/{digest}", headers)
        try:
            skip = start if answer.status == 200 else 0  # a registry without ranges begins again
            if answer.status == 206 and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise http.client.HTTPException("the registry answered with another range")
            while data := answer.response.read1(PIECE):
                self.stop.check()
                if skip >= len(data):
                    skip -= len(data)
                    continue
                piece, skip = data[skip:], 0
                yield piece
        finally:
            answer.connection.close()

    def _get(self, path: str, headers: Mapping[str, str]) -> _Answer:
        url = f"{self._base or self._find_base()}/v2/{self.reference.path}/{path}"
        answer = self._send(url, headers)
        if answer.status == 401:
            self._login(answer, url)
            answer = self._send(url, headers)
        if answer.status in (200, 206):
            return answer
        raise self._problem(answer, path)

    def _send(self, url: str, headers: Mapping[str, str]) -> _Answer:
        authorization = {"Authorization": self._authorization} if self._authorization else {}
        origin = urlsplit(url)[:2]
        answer = self._once(url, {**headers, **authorization})
        for _ in range(MAX_REDIRECTS):
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            answer.body()
            url = urljoin(url, answer.headers.get("location", ""))
            if urlsplit(url)[:2] != origin:
                authorization = {}  # for good: whoever comes next is chosen by a stranger
            answer = self._once(url, {**headers, **authorization})
        raise SystemFailure(f"{self.host}: too many redirects")

    def _find_base(self) -> str:
        """https, or http for a registry that may be insecure and does not speak TLS."""
        candidates = ["https", "http"] if self._may_be_insecure() else ["https"]
        for scheme in candidates:
            try:
                self._once(f"{scheme}://{self.host}/v2/", {}).body()
            except (OSError, http.client.HTTPException) as error:
                if scheme == candidates[-1]:
                    self.stop.check()
                    raise SystemFailure(f'Get "{scheme}://{self.host}/v2/": {_words(error, self.host)}') from error
            else:
                self._base = f"{scheme}://{self.host}"
                break
        return self._base

    def _may_be_insecure(self) -> bool:
        return self.host in self.settings.insecure or is_loopback(self.host)

    def _once(self, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None) -> _Answer:
        """One request; a POST if there is a `form`."""
        connection, target, more = self._connection(url)
        heads = {"Host": urlsplit(url).netloc, "User-Agent": "pybox", **more, **headers}
        body = urlencode(form).encode() if form is not None else None
        if body is not None:
            heads["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.connect()
            connection.sock.settimeout(TIMEOUT)
            self.stop.on_stop(_waker(connection.sock))
            connection.request("POST" if form is not None else "GET", target, body, heads)
            response = connection.getresponse()
        except BaseException:  # whatever it is: nobody else has the connection to close it
            connection.close()
            raise
        return _Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response, connection)

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
        """A connection for `url` that is not open yet, the request's target, and headers for a proxy."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        own = is_loopback(parts.netloc)
        if (own or host == self.settings.gateway) and not is_loopback(self.host):
            raise SystemFailure(f"{self.host}: refused to follow it to {parts.netloc}, which is this computer")
        proxy = "" if own else self._proxy(host, secure=secure)
        host = self.settings.gateway if own else host
        context = self._context(parts.netloc) if secure else None
        if proxy:
            via = urlsplit(proxy)
            address, gate = via.hostname or "", via.port or 80
            login = _proxy_login(via.username, via.password)
            if context is None:
                return http.client.HTTPConnection(address, gate, timeout=CONNECT_TIMEOUT), url, login
            tunnelled = http.client.HTTPSConnection(address, gate, timeout=CONNECT_TIMEOUT, context=context)
            tunnelled.set_tunnel(host, port, dict(login))
            return tunnelled, target, {}
        if context is None:
            return http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT), target, {}
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT, context=context), target, {}

    def _proxy(self, host: str, *, secure: bool) -> str:
        for item in filter(None, map(str.strip, self.settings.no_proxy.split(","))):
            suffix = item.lstrip("*.")
            if item == "*" or host == suffix or host.endswith(f".{suffix}"):
                return ""
        return self.settings.https_proxy if secure else self.settings.http_proxy

    def _context(self, netloc: str) -> ssl.SSLContext:
        context = tls_context()
        if netloc == self.host and self._may_be_insecure():
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    # -- logging in ------------------------------------------------------------------------------

    def _login(self, answer: _Answer, url: str) -> None:
        challenge = answer.headers.get("www-authenticate", "")
        answer.body()
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if self.auth is None or not self.auth.username:
                raise Unauthorized(f'Head "{url}": no basic auth credentials')
            self._authorization = f"Basic {self._basic()}"
        elif scheme.lower() == "bearer":
            self._authorization = f"Bearer {self._token(dict(_CHALLENGE.findall(rest)))}"
        else:
            raise Unauthorized(f"{self.host}: unknown authentication {scheme!r}")

    def _has_login(self) -> bool:
        return self.auth is not None and bool(self.auth.username or self.auth.identity_token)

    def _basic(self) -> str:
        assert self.auth is not None
        return base64.b64encode(f"{self.auth.username}:{self.auth.password}".encode()).decode()

    def _token(self, challenge: Mapping[str, str]) -> str:
        realm = urlsplit(challenge.get("realm", ""))
        if realm.scheme not in ("http", "https") or not realm.hostname:
            raise Unauthorized(f"{self.host}: invalid realm for auth challenge")
        query = {key: challenge[key] for key in ("service", "scope") if key in challenge}
        query.setdefault("scope", f"repository:{self.reference.path}:pull")
        headers = {}
        trusted = realm.scheme == "https" or realm.hostname == urlsplit(f"//{self.host}").hostname
        if self.auth is not None and self.auth.identity_token and trusted:
            form = {"grant_type": "refresh_token", "refresh_token": self.auth.identity_token, "client_id": "pybox", **query}
            answer = self._once(realm.geturl(), {}, form)
        else:
            if self.auth is not None and self.auth.username and trusted:
                query["account"] = self.auth.username
                headers["Authorization"] = f"Basic {self._basic()}"
            joint = "&" if realm.query else "?"
            answer = self._once(f"{realm.geturl()}{joint}{urlencode(query)}", headers)
        body = answer.body()
        if answer.status in (400, 401, 403):
            raise self._denied("unauthorized: incorrect username or password" if self._has_login() else "")
        if answer.status != 200:
            raise SystemFailure(f"fetching a token from {realm.netloc}: unexpected HTTP status {answer.status}")
        try:
            value = json.loads(body)
            return str(value.get("token") or value["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise Unauthorized("authorization server did not include a token in the response") from error

    # -- errors ----------------------------------------------------------------------------------

    def _problem(self, answer: _Answer, path: str) -> PyboxdError:
        code, message = _registry_error(answer.body())
        said = f"{code.lower().replace('_', ' ')}: {message}" if code else message
        if answer.status == 404:
            if code == "NAME_UNKNOWN":
                return NotFound(f"repository {self.reference.familiar_name} not found: {said}")
            what = f"manifest for {self.reference.familiar}" if path.startswith("manifests/") else path
            return NotFound(f"{what} not found: {said or 'manifest unknown: manifest unknown'}")
        if answer.status == 429:
            return SystemFailure(said or "toomanyrequests: too many requests")
        if answer.status in (401, 403):
            return self._denied(said)
        return SystemFailure(
            f"received unexpected HTTP status from {self.host}: {answer.status}{f': {said}' if said else ''}"
        )

    def _denied(self, why: str) -> PyboxdError:
        if self._has_login():
            return Unauthorized(why or "unauthorized: authentication required")
        return NotFound(
            f"pull access denied for {self.reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {why or 'denied: requested access to the resource is denied'}"
        )


def is_loopback(netloc: str) -> bool:
    """Whether `host[:port]` is the user's own computer."""
    host = (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxy_login(name: str | None, password: str | None) -> Mapping[str, str]:
    """The header for what a proxy's URL says before the `@`."""
    if name is None:
        return {}
    login = base64.b64encode(f"{unquote(name)}:{unquote(password or '')}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {login}"}


def _waker(connection: socket.socket) -> Callable[[], None]:
    """What ends a wait for this connection from another thread. Closing would wait for the reader's lock instead."""

    def wake() -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    return wake


def _registry_error(body: bytes) -> tuple[str, str]:
    try:
        first = json.loads(body)["errors"][0]
        return str(first.get("code", "")), str(first.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""


def _words(error: Exception, host: str = "") -> str:
    if isinstance(error, ConnectionRefusedError):
        address = f"127.0.0.1{host[len('localhost') :]}" if host.startswith("localhost") else host
        return f"dial tcp {address}: connect: connection refused" if host else "connection refused"
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {host.partition(':')[0]}: no such host"
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if isinstance(error, http.client.IncompleteRead):
        return "unexpected EOF"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "http: server gave HTTP response to HTTPS client"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
