"""What registries are asked without an image being moved: whether a login is right, what a name stands for, a search.

Blocking, for worker threads.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode

from pyboxd.errors import InvalidArgument, PyboxdError, SystemFailure, Unauthorized
from pyboxd.image.distribution import Document, Registry
from pyboxd.image.manifests import image_manifest, parse_document, verified_digest
from pyboxd.image.model import Platform, RegistrySettings, RemoteImage, SearchResult
from pyboxd.image.reference import DEFAULT_DOMAIN, parse
from pyboxd.image.refusal import NoCredentials, Refused
from pyboxd.image.registry import MAX_DOCUMENT, Answer, Client, host_of, words
from pyboxd.image.workers import Stop
from pyboxd.model import RegistryAuth

INDEX = "index.docker.io"  # the hub's name in logins, and where it is searched
_OK = 200


def sign_in(auth: RegistryAuth, settings: RegistrySettings, stop: Stop) -> str:
    """Try a login at its registry; an identity token to be used from now on, or "" where there are none.

    Unauthorized when it is wrong, SystemFailure when the registry cannot be asked.
    """
    address = auth.server_address.removeprefix("https://").removeprefix("http://").partition("/")[0] or INDEX
    host = host_of(DEFAULT_DOMAIN if address == INDEX else address)
    client = Client(host, settings, auth, offline=True, stop=stop)
    try:
        answer = _get(client, "/v2/", {})
    except NoCredentials as error:
        raise Unauthorized(f'Get "{error.url}": no basic auth credentials') from error
    except Refused as refused:
        raise type(refused.told())(f'Get "{client.base}/v2/": {refused}') from refused
    if answer.status != _OK:
        why = f"{answer.status} {http.client.responses.get(answer.status, '')}".strip()
        kind = Unauthorized if answer.status == 401 else SystemFailure
        raise kind(f"login attempt to {client.base}/v2/ failed with status: {why}")
    return client.login.identity_token or auth.identity_token


def describe(name: str, settings: RegistrySettings, auth: RegistryAuth | None, stop: Stop) -> RemoteImage:
    """What a registry has under a name. InvalidArgument; Unauthorized, Forbidden and NotFound in the registry's words."""
    reference = parse(name).with_default_tag()
    if reference.familiar_name == "scratch":
        raise InvalidArgument("'scratch' is a reserved name")
    registry = Registry.of(reference, settings, auth).with_stop(stop)
    try:
        document = registry.manifest(reference.digest or reference.tag)
        digest = verified_digest(document, reference.digest or document.digest)
        value = parse_document(document)
        platforms = _listed(value["manifests"]) if "manifests" in value else _single(registry, value, digest)
    except Refused as refused:
        raise refused.told() from refused
    return RemoteImage(_kind(document, value), digest, len(document.data), platforms)


def search(
    term: str, limit: int, settings: RegistrySettings, auth: RegistryAuth | None, stop: Stop
) -> tuple[SearchResult, ...]:
    """Repositories that a registry finds for a term; the hub, or the one that the term begins with.

    `limit` is 1 to 100. InvalidArgument; SystemFailure in Docker's words when the registry has no search.
    """
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    if not 1 <= limit <= 100:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, 100]")
    host, wanted = _split(term)
    client = Client(host, settings, auth, stop=stop, base=f"https://{INDEX}" if host == INDEX else "")
    if auth is not None and not auth.identity_token:
        client.login.assume_basic()
    try:
        answer = _get(client, f"/v1/search?{urlencode({'q': wanted, 'n': limit})}", {"X-Docker-Token": "true"})
    except Refused as refused:
        raise refused.told() from refused
    if answer.status != _OK:
        raise SystemFailure(f"unexpected status code {answer.status}")
    return _results(answer.body())


def _get(client: Client, path: str, headers: dict[str, str]) -> Answer:
    try:
        return client.request("GET", path, headers)
    except (OSError, http.client.HTTPException) as error:
        client.stop.check()
        raise SystemFailure(f'Get "{client.base}{path}": {words(error, client.host)}') from error


def _kind(document: Document, value: dict[str, Any]) -> str:
    """The media type: the document's own word counts more than the registry's."""
    return str(value.get("mediaType") or document.media_type)


def _listed(manifests: list[dict[str, Any]]) -> tuple[Platform, ...]:
    return tuple(_platform(item["platform"]) for item in manifests if isinstance(item.get("platform"), dict))


def _single(registry: Registry, value: dict[str, Any], digest: str) -> tuple[Platform, ...]:
    """The platform that an image's configuration names. That it cannot be read is no failure."""
    config = image_manifest(value, digest).config
    try:
        found = json.loads(registry.document(config.digest, config.size))
    except (PyboxdError, ValueError, RecursionError):
        registry.stop.check()
        return ()
    if not isinstance(found, dict) or not (found.get("os") or found.get("architecture")):
        return ()
    return (_platform(found),)


def _platform(value: dict[str, Any]) -> Platform:
    return Platform(*(str(value.get(name) or "") for name in ("os", "architecture", "variant")))


def _split(term: str) -> tuple[str, str]:
    """Registry and term; without a registry it is the hub's."""
    first, slash, rest = term.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost"):
        first, rest = INDEX, term
    if first in (INDEX, DEFAULT_DOMAIN):
        return INDEX, rest.removeprefix("library/")
    return first, rest


def _results(body: bytes) -> tuple[SearchResult, ...]:
    if len(body) > MAX_DOCUMENT:
        raise SystemFailure("error decoding registry search results: too long")
    try:
        return tuple(
            SearchResult(
                str(item["name"]),
                str(item.get("description") or ""),
                int(item.get("star_count") or 0),
                bool(item.get("is_official")),
            )
            for item in json.loads(body).get("results") or ()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SystemFailure(f"error decoding registry search results: {error}") from error
