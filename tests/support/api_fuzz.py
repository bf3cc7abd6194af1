"""Requests that the API's own description allows, and ones that it does not, for a real engine.

    fuzzer = Fuzzer(socket, "fuzz:1")
    for operation in operations():
        fuzzer.run(operation, GenerationMode.POSITIVE, examples=10)

Schemathesis makes the requests from Docker's description of the API. Names of things that exist are put into most of
them, so that they get further than "no such container", and now and then a value that somebody may not have thought of.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import docker.transport
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok

from tests.support.image_lab import tar

DESCRIPTION = Path(__file__).with_name("docker-api-v1.51.yaml")
VERSION = "v1.51"
PATIENCE = 30.0  # seconds for one answer
SEED = 20260729
NOWHERE = "127.0.0.1:1"  # a registry that nobody runs: in the machine, no port 1 listens
_ELSEWHERE = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins", "/session")
# These speak to a registry, whose absence is a 500 with Docker too.
_REMOTE = ("/images/create", "/images/{name}/push", "/images/search", "/distribution/{name}/json", "/auth", "/build")
# The answer goes on for as long as a container runs, or the connection is not HTTP's any more.
_ENDLESS = ("/events", "/attach", "/attach/ws", "/stats", "/logs", "/wait", "/exec/{id}/start")
_PRUNES_ALL = ("/images/prune",)
_ODD_TEXTS = (
    "", "\0", "a\0b", "/", "..", "../../etc", "/" * 5000, "x" * 300, "x" * 70_000, "é", "\ud800", "²", "-", "*", "[",
    "0", "-1", "9" * 30, "1e9", "true", "null", "{}", "1h", "a=b", "ctrl-", ":", "@", "80/tcp", "0/udp", "70000", "1-0",
    "container:", "container:fuzz-on", "host", "sha256:" + "0" * 64, "2020-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
)  # fmt: skip
_ODD_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, 10**400, 0.5, 1e300, [], {}, [None], [[]], [{}], {"": None},
    {"": ""}, {"a": {}}, [""], ["\0"], {"\0": "\0"}, {"80/tcp": None}, {"80/tcp": [None]}, {"80/tcp": [{}]},
    {"x": [{"a": 1}]},
)  # fmt: skip
_FILTER_KEYS = (
    "ancestor", "before", "container", "dangling", "driver", "event", "exited", "expose", "health", "id", "image",
    "is-task", "label", "label!", "name", "network", "publish", "reference", "scope", "since", "status", "type", "until",
    "volume",
)  # fmt: skip

Operation = APIOperation[Any, Any, Any, Any]
odd_texts = st.sampled_from(_ODD_TEXTS)
odd_values = st.one_of(odd_texts, st.sampled_from(_ODD_VALUES))
_filter_values = st.one_of(
    st.lists(odd_texts, max_size=3), st.dictionaries(odd_texts, st.booleans(), max_size=3), odd_values
)
_filters = st.dictionaries(st.sampled_from(_FILTER_KEYS), _filter_values, max_size=2).map(json.dumps)
_archives = st.sampled_from(
    [
        b"",
        b"no archive",
        tar({"file": b"content"}),
        tar({"file": b"content"})[:600],
        tar({"../../file": b"content"}),
        tar({"Dockerfile": b"FROM fuzz:1\nLABEL a=b\n"}),
        tar({"Dockerfile": b"FROM scratch\nCOPY . /\n"}),
        tar({"Dockerfile": b"FROM"}),
        tar({"manifest.json": b"[{}]"}),
        tar({"manifest.json": b'[{"Config":"x","Layers":["../x"],"RepoTags":null}]'}),
    ]
)


@schemathesis.serializer("application/x-tar")
def _serialize_tar(context: schemathesis.SerializationContext, value: Any) -> Any:
    return {"data": value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")}


@lru_cache(1)
def operations() -> tuple[Operation, ...]:
    """What the engine has of the description; not swarm and plugins, which are one handler each."""
    description = yaml.load(DESCRIPTION.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    _allow_null(description)
    results = schemathesis.openapi.from_dict(description).get_all_operations()
    found = [result.ok() for result in results if isinstance(result, Ok)]
    return tuple(operation for operation in found if not operation.path.startswith(_ELSEWHERE))


def _allow_null(node: object) -> None:
    """Go writes null for a list or map that it does not have, whatever the description says."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str) and "in" not in node:
            node["x-nullable"] = True
        for value in node.values():
            _allow_null(value)
    elif isinstance(node, list):
        for value in node:
            _allow_null(value)


class Fuzzer:
    """Sends requests to the engine behind a socket, and fails at the first answer that no engine should give."""

    def __init__(self, socket: Path, image: str) -> None:
        self._image = image
        self._session = requests.Session()
        self._session.mount("http+docker://", docker.transport.UnixHTTPAdapter(f"http+unix://{socket}", int(PATIENCE)))
        self._exec = ""

    def close(self) -> None:
        self._session.close()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """An ordinary request."""
        return self._session.request(method, f"http+docker://engine/{VERSION}{path}", timeout=PATIENCE, **options)

    def prepare(self) -> None:
        """Make what the requests name, where an earlier one has removed it."""
        for name, running in (("fuzz-on", True), ("fuzz-off", False)):
            found = self.call("GET", f"/containers/{name}/json")
            if found.status_code == 404:
                body = {"Image": self._image, "Cmd": ["sleep", "1000"], "OpenStdin": True, "StopSignal": "KILL"}
                assert self.call("POST", f"/containers/create?name={name}", json=body).status_code == 201
            elif found.json()["State"]["Paused"]:
                self.call("POST", f"/containers/{name}/unpause")
            if running:
                assert self.call("POST", f"/containers/{name}/start").status_code in (204, 304)
        self.call("POST", "/volumes/create", json={"Name": "fuzz-volume"})
        self.call("POST", "/networks/create", json={"Name": "fuzz-network"})
        made = self.call("POST", "/containers/fuzz-on/exec", json={"Cmd": ["true"], "AttachStdout": True})
        self._exec = str(made.json()["Id"])

    def run(self, operation: Operation, mode: GenerationMode, examples: int) -> int:
        """How many requests were sent. A failed assertion names the request."""
        sent = 0
        cases = operation.as_strategy(mode)

        @seed(SEED)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def test(data: st.DataObject) -> None:
            nonlocal sent
            case = data.draw(cases)
            self._make_it_count(case, data.draw)
            self._check(case)
            sent += 1

        with contextlib.suppress(Unsatisfiable):  # nothing of it can be wrong
            test()
        return sent

    def _make_it_count(self, case: Case[Any], draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        """Put existing names and odd values in, and keep the request from doing what would end the test."""
        operation, path = case.operation, case.operation.path
        case.query = dict(case.query or {})
        names = {parameter.name for parameter in operation.query}
        if operation.path_parameters and draw(st.integers(0, 9)) and (known := self._known(path)):
            case.path_parameters[next(iter(case.path_parameters))] = draw(st.sampled_from(known))
        if "filters" in names and draw(st.booleans()):
            case.query["filters"] = draw(_filters)
        elif names and draw(st.booleans()):
            case.query[draw(st.sampled_from(sorted(names)))] = draw(odd_texts).replace("\ud800", "")
        if path == "/containers/create" and isinstance(case.body, dict):
            case.body = self._container(case.body, draw)
        elif isinstance(case.body, dict) and case.body and draw(st.booleans()):
            _spoil(case.body, draw)
        if path in ("/build", "/images/load", "/containers/{id}/archive") and operation.method in ("post", "put"):
            case.body = draw(_archives)
        self._keep_harmless(case)

    def _known(self, path: str) -> tuple[str, ...]:
        known = {
            "containers": ("fuzz-on", "fuzz-off"),
            "images": (self._image,),
            "exec": (self._exec,),
            "volumes": ("fuzz-volume",),
            "networks": ("fuzz-network", "bridge", "none"),
            "distribution": (f"{NOWHERE}/team/app:1",),
        }
        return known.get(path.split("/")[1], ())

    def _container(self, body: dict[str, Any], draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
        """A few of the many things that a body may say: one wrong one would hide all others."""
        host = body.get("HostConfig")
        kept = _some(body, draw)
        if isinstance(host, dict):
            kept["HostConfig"] = _some(host, draw)
        if draw(st.booleans()):
            _spoil(kept, draw)
        return {"Cmd": ["true"], **kept, "Image": self._image} if draw(st.integers(0, 9)) else body

    def _keep_harmless(self, case: Case[Any]) -> None:
        path, query = case.operation.path, case.query
        if path in _PRUNES_ALL:
            query["filters"] = '{"label":{"nobody":true}}'
        elif path == "/images/{name}" and case.path_parameters.get("name") == self._image:
            case.path_parameters["name"] = "nobody:1"
        elif path == "/images/create":
            query["fromImage"] = f"{NOWHERE}/team/app" if query.get("fromImage") else ""
            query.pop("fromSrc", None)
        elif path == "/images/search":
            query["term"] = f"{NOWHERE}/app"
        elif path == "/auth" and isinstance(case.body, dict):
            case.body["serveraddress"] = NOWHERE
        elif path == "/commit":
            query["container"] = "fuzz-off"
        elif path.endswith(("/stop", "/restart")) and str(query.get("t", "")).lstrip("-").isdigit():
            query["t"] = "0"

    def _check(self, case: Case[Any]) -> None:
        path = case.operation.path
        arguments = case.as_transport_kwargs(base_url=f"http://engine/{VERSION}")
        arguments["url"] = arguments["url"].replace("http://", "http+docker://", 1)
        response = self._session.request(**arguments, stream=True, timeout=PATIENCE)
        endless = response.status_code < 300 and path.endswith(_ENDLESS)
        if endless:
            response.close()
        content = b"" if endless else response.content  # all of it: an answer that breaks off raises
        said = f"{response.status_code} {content[:300]!r} to {arguments}"
        if response.status_code >= 400:
            self._check_refusal(case, response, said)
        elif not endless:
            case.operation.validate_response(response)
        if path == "/containers/create" and response.status_code == 201:
            self._live(str(response.json()["Id"]), said)

    def _check_refusal(self, case: Case[Any], response: requests.Response, said: str) -> None:
        if case.operation.method != "head":
            assert response.headers["Content-Type"] == "application/json", said
            body = response.json()
            assert list(body) == ["message"] and isinstance(body["message"], str) and body["message"], said
            assert "internal error" not in body["message"], said
        remote = case.operation.path in _REMOTE
        assert response.status_code < 500 or response.status_code in (501, 503) or remote, said

    def _live(self, container: str, said: str) -> None:
        """What could be created can be looked at, tried and removed."""
        inspected = self.call("GET", f"/containers/{container}/json")
        assert inspected.status_code == 200, f"{inspected.text} after {said}"
        started = self.call("POST", f"/containers/{container}/start")
        assert started.status_code < 500 and "internal error" not in started.text, f"{started.text} after {said}"
        removed = self.call("DELETE", f"/containers/{container}?force=1&v=1")
        assert removed.status_code == 204, f"{removed.text} after {said}"


def _some(value: dict[str, Any], draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    chosen = draw(st.lists(st.sampled_from(sorted(value)), max_size=3)) if value else []
    return {name: value[name] for name in chosen}


def _spoil(value: dict[str, Any], draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Put an odd value in one place of an object, at any depth."""
    places = list(_places(value))
    if places:
        holder, key = draw(st.sampled_from(places))
        holder[key] = copy.deepcopy(draw(odd_values))


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)
