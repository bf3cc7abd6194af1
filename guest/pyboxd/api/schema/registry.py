"""Docker's JSON of what registries are asked for, and of logins."""

from __future__ import annotations

from collections.abc import Iterable

from pyboxd.api.fields import JsonObject
from pyboxd.image.model import Platform, Pushed, RemoteImage, SearchResult
from pyboxd.model import RegistryAuth


def auth_of(value: object) -> RegistryAuth | None:
    """One login of a client's configuration; None when there is nothing in it."""
    auth = decode_login(value) if isinstance(value, dict) else RegistryAuth()
    return auth if auth.username or auth.password or auth.identity_token or auth.registry_token else None


def decode_login(value: JsonObject) -> RegistryAuth:
    """The body of POST /auth, which may name a registry and no user."""
    names = ("username", "password", "identitytoken", "serveraddress", "registrytoken")
    return RegistryAuth(*(str(value.get(name) or "") for name in names))


def login(identity_token: str) -> JsonObject:
    """The answer to a login that is right."""
    return {"Status": "Login Succeeded", "IdentityToken": identity_token}


def remote_image(image: RemoteImage) -> JsonObject:
    """GET /distribution/{name}/json."""
    return {
        "Descriptor": {"mediaType": image.media_type, "digest": image.digest, "size": image.size},
        "Platforms": [_platform(platform) for platform in image.platforms],
    }


def _platform(platform: Platform) -> JsonObject:
    value: JsonObject = {"architecture": platform.architecture, "os": platform.os}
    return value | {"variant": platform.variant} if platform.variant else value


def search_results(results: Iterable[SearchResult]) -> list[JsonObject]:
    """GET /images/search. Automated builds are no more."""
    return [
        {
            "star_count": result.stars,
            "is_official": result.official,
            "name": result.name,
            "is_automated": False,
            "description": result.description,
        }
        for result in results
    ]


def pushed(tag: Pushed) -> JsonObject:
    """The message of a push by which a client learns what the registry has now."""
    return {"progressDetail": {}, "aux": {"Tag": tag.tag, "Digest": tag.digest, "Size": tag.size}}
