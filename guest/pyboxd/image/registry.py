"""A registry's HTTP: the way there, proxies, redirects and logins. Blocking, for worker threads.

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
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urljoin, urlsplit

from pyboxd.errors import SystemFailure
from pyboxd.image.login import Login
from pyboxd.image.model import RegistrySettings
from pyboxd.image.reference import DEFAULT_DOMAIN
from pyboxd.image.refusal import Refused
from pyboxd.image.trust import tls_context
from pyboxd.image.workers import Stop
from pyboxd.model import RegistryAuth

HUB = "registry-1.docker.io"
CONNECT_TIMEOUT = 15.0  # seconds
TIMEOUT = 60.0  # seconds without a byte
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of a manifest, a token or an error
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_HEADERS: Mapping[str, str] = {}

Content = bytes | Iterator[bytes] | None


@dataclass
class Answer:
    """What came back; the body is still to be read, and the connection to be closed (`body` does both)."""

    status: int
    headers: Mapping[str, str]  # by lower-case name
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection

    def body(self) -> bytes:
        """The body, cut behind `MAX_DOCUMENT` and one byte more."""
        try:
            return self.response.read(MAX_DOCUMENT + 1)
        finally:
            self.connection.close()


@dataclass
class Client:
    """The way to one registry, `host[:port]`. `scopes` are what a token is asked for, with `offline` an identity token
    as well."""

    host: str
    settings: RegistrySettings = field(default_factory=RegistrySettings)
    auth: RegistryAuth | None = None
    scopes: tuple[str, ...] = ()
    offline: bool = False
    stop: Stop = field(default_factory=Stop)
    base: str = ""  # "https://host", once it is known

    def __post_init__(self) -> None:
        self.login = Login(self.host, self.auth, self.send, offline=self.offline)

    def with_stop(self, stop: Stop) -> Client:
        """The same for another job: what was learnt about the way in and the login stays."""
        other = replace(self, stop=stop)
        other.login = self.login.sent_by(other.send)
        return other

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = _NO_HEADERS,
        content: Content = None,
        *,
        scope: str = "",
        timeout: float = TIMEOUT,
    ) -> Answer:
        """Send a request, log in if the registry wants it, and send it again; the answer, whatever its status is.

        `path` may be a whole URL. What an iterator gives is sent as it comes and cannot be sent again: the answer is
        401 then, and the login is known for the next attempt. `scope` is one more than `scopes`. OSError,
        http.client.HTTPException; Refused and Unauthorized by the login.
        """
        url = urljoin(f"{self.base or self._find_base()}/", path)
        scopes = (*self.scopes, scope) if scope else self.scopes
        own = urlsplit(url)[:2] == urlsplit(self.base)[:2]
        login = self.login.headers(scopes) if own else {}
        answer = self._follow(method, url, headers, content, login, timeout)
        if answer.status != 401 or not own:
            return answer
        challenge = answer.headers.get("www-authenticate", "")
        if not isinstance(content, bytes | None):
            self.login.learn(challenge, url, scopes, login)
            return answer
        said = answer.body()
        if not self.login.learn(challenge, url, scopes, login):
            raise Refused(self.host, 401, said, challenge)
        return self._follow(method, url, headers, content, self.login.headers(scopes), timeout)

    def refusal(self, answer: Answer) -> Refused:
        """What an answer says that is none of those that were hoped for."""
        return Refused(self.host, answer.status, answer.body(), answer.headers.get("www-authenticate", ""))

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content,
        login: Mapping[str, str],
        timeout: float,
    ) -> Answer:
        origin = urlsplit(url)[:2]
        answer = self.send(method, url, {**headers, **login}, content, timeout)
        for _ in range(MAX_REDIRECTS):
            if answer.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return answer
            answer.body()
            url = urljoin(url, answer.headers.get("location", ""))
            if urlsplit(url)[:2] != origin:
                login = {}  # for good: whoever comes next is chosen by a stranger
            answer = self.send(method, url, {**headers, **login}, None, timeout)
        raise SystemFailure(f"{self.host}: too many redirects")

    def _find_base(self) -> str:
        """https, or http for a registry that may be insecure and does not speak TLS."""
        candidates = ["https", "http"] if self._may_be_insecure() else ["https"]
        for scheme in candidates:
            try:
                self.send("GET", f"{scheme}://{self.host}/v2/", {}).body()
            except (OSError, http.client.HTTPException) as error:
                if scheme == candidates[-1]:
                    self.stop.check()
                    raise SystemFailure(f'Get "{scheme}://{self.host}/v2/": {words(error, self.host)}') from error
            else:
                self.base = f"{scheme}://{self.host}"
                break
        return self.base

    def _may_be_insecure(self) -> bool:
        return self.host in self.settings.insecure or is_loopback(self.host)

    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Content = None, timeout: float = TIMEOUT
    ) -> Answer:
        """One request, just as it is. OSError, http.client.HTTPException."""
        connection, target, more = self._connection(url)
        heads = {"Host": urlsplit(url).netloc, "User-Agent": "pybox", **more, **headers}
        streamed = not isinstance(content, bytes | None)
        if streamed:
            heads["Transfer-Encoding"] = "chunked"
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            connection.connect()
            connection.sock.settimeout(timeout)
            self.stop.on_stop(_waker(connection.sock))
            try:
                connection.request(method, target, content, heads, encode_chunked=streamed)
            except (BrokenPipeError, ConnectionResetError):
                if not streamed:
                    raise
                # A registry that refuses does not wait for the end of what is sent; its answer says why.
            response = connection.getresponse()
            undo.pop_all()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response, connection)

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


def host_of(domain: str) -> str:
    """Where the registry of a reference is."""
    return HUB if domain == DEFAULT_DOMAIN else domain


def is_loopback(netloc: str) -> bool:
    """Whether `host[:port]` is the user's own computer."""
    host = (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def words(error: Exception, host: str = "") -> str:
    """A failure of the network as Go's libraries word it."""
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
