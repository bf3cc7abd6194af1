"""/build: Docker's classic builder, which understands today's Dockerfiles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from pyboxd import jsontext
from pyboxd.api import progress
from pyboxd.api.fields import JsonObject
from pyboxd.api.registry import read_header
from pyboxd.api.schema.registry import auth_of
from pyboxd.errors import InvalidArgument, NotImplementedHere, PyboxdError
from pyboxd.frozen import frozen
from pyboxd.image.builder.doors import BuildFailed, BuildOutput, BuildRequest, OutputSink
from pyboxd.image.model import Image
from pyboxd.model import RegistryAuth
from pyboxd.server.message import Json, Query, Request, Response, Stream
from pyboxd.server.routes import Route

_LIMIT = 1024 * 1024  # bytes of one argument that is JSON


class Builder(Protocol):
    """The image room's builder."""

    async def build(self, request: BuildRequest, context: AsyncIterator[bytes], output: OutputSink) -> Image: ...
    def forget_cache(self) -> None: ...


@frozen
class BuildApi:
    """The handlers of builds. The builder is made when it is needed first."""

    builder: Callable[[], Builder]

    def routes(self) -> list[Route]:
        return [Route("POST", "/build", self.build), Route("POST", "/build/prune", self.prune)]

    async def build(self, request: Request) -> Response:
        wanted = decode_request(request.query, request.headers.get("X-Registry-Config", ""))

        async def job(say: progress.Say) -> None:
            await self.builder().build(wanted, request.body, lambda output: say(encode_output(output)))

        return Stream(progress.stream(job, _code_of), eager=False)

    async def prune(self, request: Request) -> Response:
        """Forget the cache; the images it is made of go with `docker image prune`."""
        self.builder().forget_cache()
        return Json({"CachesDeleted": None, "SpaceReclaimed": 0})


def _code_of(error: PyboxdError) -> int:
    return error.code if isinstance(error, BuildFailed) else 0


def encode_output(output: BuildOutput) -> JsonObject:
    """One message of the stream."""
    if output.progress is not None:
        return progress.message(output.progress)
    if output.image_id:
        return {"aux": {"ID": output.image_id}}
    return {"stream": output.stream}


def decode_request(query: Query, registry_config: str) -> BuildRequest:
    """The query of POST /build. InvalidArgument; NotImplementedHere for what only BuildKit has."""
    if query.text("version") == "2":
        raise NotImplementedHere("this engine has no BuildKit; type `DOCKER_BUILDKIT=0 docker build …` or `pybox build`")
    if query.text("remote"):
        raise NotImplementedHere("builds from a URL are not supported; fetch the files and give their folder")
    if query.flag("squash"):
        raise NotImplementedHere("--squash is not supported")
    logins = _logins(registry_config)
    return BuildRequest(
        dockerfile=query.text("dockerfile") or "Dockerfile",
        tags=query.many("t"),
        args=_json_map(query, "buildargs"),
        labels={name: value or "" for name, value in _json_map(query, "labels").items()},
        target=query.text("target"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        remove=query.flag("rm", default=True),
        network=query.text("networkmode"),
        memory=query.integer("memory"),
        shm_size=query.integer("shmsize"),
        extra_hosts=tuple(host for text in query.many("extrahosts") for host in text.split(",") if host),
        platform=query.text("platform"),
        cache_from=_json_list(query, "cachefrom"),
        auth=logins.get,
    )


def _parsed(query: Query, name: str) -> object:
    text = query.text(name)
    if len(text) > _LIMIT:
        raise InvalidArgument(f"{name} is too long")
    try:
        return jsontext.loads(text) if text else None
    except ValueError as error:
        raise InvalidArgument(f"error reading {name}: {error}") from None


def _json_map(query: Query, name: str) -> Mapping[str, str | None]:
    value = _parsed(query, name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(item is None or isinstance(item, str) for item in value.values()):
        raise InvalidArgument(f"error reading {name}: an object of texts is expected")
    return value


def _json_list(query: Query, name: str) -> tuple[str, ...]:
    value = _parsed(query, name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"error reading {name}: a list of texts is expected")
    return tuple(value)


def _logins(text: str) -> Mapping[str, RegistryAuth | None]:
    """The header X-Registry-Config: logins by registry. What cannot be read counts as none."""
    value = read_header(text)
    if not isinstance(value, dict):
        return {}
    return {_registry(name): auth_of(login) for name, login in value.items()}


def _registry(name: str) -> str:
    """The key of Docker's login file as the name of a registry."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host
