"""Logins, searches, pushes, imports from addresses and lists of images: docker-py at the engine's own HTTP side."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import docker
import pytest
import requests

from pyboxd.api.images import ImagesApi
from pyboxd.api.registry import RegistryApi
from pyboxd.engine.containers import Containers
from pyboxd.engine.events import Events
from pyboxd.engine.store import Store
from pyboxd.image.model import RegistrySettings
from pyboxd.model import ImageConfig
from pyboxd.server.http import Application
from tests.support.http_server import Reply, Seen, serving
from tests.support.image_lab import ImageLab, Sample, tar
from tests.support.registry import Registry, free_port, running_registry

USERS = {"me": "secret"}
LAYER = tar({"f": b"1" * 5000})


class Engine:
    """The handlers of images and registries behind a socket, in a thread of their own."""

    def __init__(self, folder: Path) -> None:
        self.lab = ImageLab(folder)
        self.lab.images.registries = RegistrySettings(gateway="127.0.0.1")
        self.events = Events()
        containers = Containers(Store(self.lab.database))
        apis = (ImagesApi(self.lab.images, containers, self.events), RegistryApi(self.lab.images, self.events))
        self._application = Application([route for api in apis for route in api.routes()])
        self._loop = asyncio.new_event_loop()
        self._path = str(folder / "api.sock")
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()

    def __enter__(self) -> Engine:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._application.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.lab.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._application.serve_unix(self._path))
        self._ready.set()
        self._loop.run_forever()

    def client(self, version: str = "1.51") -> Any:
        return docker.APIClient(base_url=f"unix://{self._path}", version=version)

    def raw(self, client: Any, method: str, path: str, **options: Any) -> requests.Response:
        answer: requests.Response = client.request(method, f"{client.base_url}/v{client._version}{path}", **options)
        return answer

    def happened(self) -> list[tuple[str, str, str]]:
        return [(event.action, event.subject, event.attributes["name"]) for event in self.events._ring]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("private"), users=USERS) as found:
        yield found


def refused(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


# -- logins ------------------------------------------------------------------------------------------


def test_login(engine: Engine, private: Registry) -> None:
    client = engine.client()
    assert client.login("me", "secret", registry=private.address, reauth=True) == {
        "Status": "Login Succeeded", "IdentityToken": ""}  # fmt: skip
    wrong = {"username": "me", "password": "no", "serveraddress": f"http://{private.address}"}
    assert refused(engine.raw(client, "POST", "/auth", json=wrong)) == (
        401, f"login attempt to http://{private.address}/v2/ failed with status: 401 Unauthorized")  # fmt: skip
    nobody = {"serveraddress": private.address}
    assert refused(engine.raw(client, "POST", "/auth", json=nobody)) == (
        401, f'Get "http://{private.address}/v2/": no basic auth credentials')  # fmt: skip
    away = f"localhost:{free_port()}"
    status, words = refused(engine.raw(client, "POST", "/auth", json=wrong | {"serveraddress": away}))
    assert status == 500 and words.startswith(f'Get "http://{away}/v2/": dial tcp 127.0.0.1:')


def test_login_with_a_token_service(engine: Engine) -> None:
    def issue(seen: Seen) -> Reply:
        if seen.method == "POST":
            form = parse_qs(seen.body.decode())
            good = form["refresh_token"] == ["long"] and form["grant_type"] == ["refresh_token"]
            return Reply(200, b'{"access_token": "T"}') if good else Reply(401)
        if "authorization" not in seen.headers or seen.headers["authorization"] != "Basic bWU6c2VjcmV0":
            return Reply(401, b'{"details": "incorrect username or password"}')
        return Reply(200, b'{"token": "T", "refresh_token": "long"}')

    with serving(issue) as service:
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{service.address}/token",service="reg"'}
        good = {"authorization": "Bearer T"}

        def answer(seen: Seen) -> Reply:
            return Reply(200) if good.items() <= seen.headers.items() else Reply(401, b"", challenge)

        with serving(answer) as server:
            client = engine.client()
            login = {"username": "me", "password": "secret", "serveraddress": server.address}
            assert engine.raw(client, "POST", "/auth", json=login).json() == {
                "Status": "Login Succeeded", "IdentityToken": "long"}  # fmt: skip
            query = parse_qs(urlsplit(service.seen[-1].path).query)
            assert query == {
                "service": ["reg"], "account": ["me"], "offline_token": ["true"], "client_id": ["docker"]}  # fmt: skip
            assert refused(engine.raw(client, "POST", "/auth", json=login | {"password": "no"})) == (
                401, f'Get "http://{server.address}/v2/": unauthorized: incorrect username or password')  # fmt: skip
            token = {"identitytoken": "long", "serveraddress": server.address}
            assert engine.raw(client, "POST", "/auth", json=token).json()["IdentityToken"] == "long"
            assert refused(engine.raw(client, "POST", "/auth", json=token | {"identitytoken": "old"}))[0] == 401


# -- pushes and what is behind a name ----------------------------------------------------------------


def stored(engine: Engine, *names: str, layers: tuple[bytes, ...] = (LAYER,)) -> str:
    sample = Sample.of(*layers)
    image = engine.lab.images.add(sample.raw, [engine.lab.add_layer(data) for data in layers])
    for name in names:
        engine.lab.images.tag(image.id, name)
    return image.id


def test_push_and_ask_for_it(engine: Engine, private: Registry) -> None:
    name = f"{private.address}/team/app"
    stored(engine, f"{name}:1")
    client = engine.client()
    login = {"username": "me", "password": "secret"}
    said = list(client.push(name, "1", stream=True, decode=True, auth_config=login))
    assert said[0] == {"status": f"The push refers to repository [{name}]"}
    assert said[1]["status"] == "Preparing" and said[1]["progressDetail"] == {}
    last, aux = said[-2]["status"], said[-1]["aux"]
    assert last == f"1: digest: {aux['Digest']} size: {aux['Size']}" and aux["Tag"] == "1"
    assert said[-1]["progressDetail"] == {}
    assert client.inspect_image(f"{name}:1")["RepoDigests"] == [f"{name}@{aux['Digest']}"]
    assert engine.happened() == [("push", f"{name}:1", name)]
    for asked in (f"{name}:1", f"{name}@{aux['Digest']}"):
        found = client.inspect_distribution(asked, auth_config=login)
        assert found == {
            "Descriptor": {
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "digest": aux["Digest"],
                "size": aux["Size"],
            },
            "Platforms": [{"architecture": "amd64", "os": "linux"}],
        }


def test_a_push_that_fails_tells_it_in_the_stream(engine: Engine, private: Registry) -> None:
    name = f"{private.address}/team/none"
    client = engine.client()
    assert [line.get("error") for line in client.push(name, "1", stream=True, decode=True, auth_config={})] == [
        None, f"An image does not exist locally with the tag: {name}"]  # fmt: skip
    stored(engine, f"{name}:1")
    said = list(client.push(name, "1", stream=True, decode=True, auth_config={"username": "me", "password": "no"}))
    assert said[-1] == {
        "errorDetail": {"message": "unauthorized: authentication required"},
        "error": "unauthorized: authentication required",
    }
    assert engine.happened() == []


def test_a_push_that_makes_no_sense(engine: Engine) -> None:
    client = engine.client()
    image = stored(engine, "localhost:1/a:1")
    for path, words in (
        ("/images/UPPER/push?tag=1", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("/images/a/push?tag=-", "invalid tag format"),
        ("/images/a/push?tag=1&platform=linux/arm64", "failed to parse platform: "),
        ('/images/a/push?tag=1&platform={"os":"linux"}', "both OS and Architecture must be provided"),
    ):
        status, said = refused(engine.raw(client, "POST", path))
        assert status == 400 and said.startswith(words)
    other = json.dumps({"os": "linux", "architecture": "arm64"})
    answer = engine.raw(client, "POST", "/images/localhost:1/a/push", params={"tag": "1", "platform": other})
    assert answer.status_code == 404 and "does not match the specified platform" in answer.json()["message"]
    old = engine.raw(engine.client("1.45"), "POST", "/images/localhost:1/a/push", params={"tag": "1", "platform": other})
    assert old.status_code == 200 and "connection refused" in old.text, "it was not asked for in those days"
    assert engine.lab.images.get(image).repo_digests == ()


def test_what_is_behind_no_name(engine: Engine, private: Registry) -> None:
    client = engine.client()
    name = f"{private.address}/team/nothing:1"
    for login, status, words in (
        ({}, 401, f'Head "http://{private.address}/v2/team/nothing/manifests/1": no basic auth credentials'),
        ({"username": "me", "password": "no"}, 401, "unauthorized: authentication required"),
        ({"username": "me", "password": "secret"}, 404, "manifest unknown: manifest unknown"),
    ):
        with pytest.raises(docker.errors.APIError) as caught:
            client.inspect_distribution(name, auth_config=login)
        assert caught.value.response is not None
        assert (caught.value.response.status_code, caught.value.explanation) == (status, words)
    denied = b'{"errors": [{"code": "DENIED", "message": "no"}]}'
    with serving(lambda seen: Reply(200) if seen.path == "/v2/" else Reply(403, denied)) as server:
        assert refused(engine.raw(client, "GET", f"/distribution/{server.address}/a/json")) == (403, "denied: no")
    assert refused(engine.raw(client, "GET", "/distribution/scratch/json")) == (400, "'scratch' is a reserved name")
    assert refused(engine.raw(client, "GET", "/distribution/A/json"))[0] == 400


def test_the_platforms_of_an_index(engine: Engine) -> None:
    platforms = [{"os": "linux", "architecture": "arm64", "variant": "v8"}, {"os": "linux", "architecture": "amd64"}]
    kind = "application/vnd.oci.image.index.v1+json"
    manifests = [{"digest": f"sha256:{'0' * 64}", "size": 1, "platform": platform} for platform in platforms]
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
    with serving(lambda seen: Reply(200, index)) as server:
        found = engine.client().inspect_distribution(f"{server.address}/a", auth_config={})
    assert found["Platforms"] == platforms
    assert found["Descriptor"]["mediaType"] == kind and found["Descriptor"]["size"] == len(index)


# -- searches ----------------------------------------------------------------------------------------

RESULTS = [
    {"name": "alpine", "description": "small", "star_count": 90, "is_official": True, "is_automated": True},
    {"name": "me/alpine", "description": None, "star_count": 3, "is_official": False, "is_trusted": False},
]


def test_search(engine: Engine) -> None:
    client = engine.client()
    answer = Reply(200, json.dumps({"num_results": 2, "query": "x", "results": RESULTS}).encode())
    with serving(lambda seen: answer if seen.path.startswith("/v1/search?") else Reply(404)) as server:
        term = f"{server.address}/alp ine"
        found = client.search(term, limit=7)
        assert found == [
            {"name": "alpine", "description": "small", "star_count": 90, "is_official": True, "is_automated": False},
            {"name": "me/alpine", "description": "", "star_count": 3, "is_official": False, "is_automated": False},
        ]
        assert parse_qs(urlsplit(server.seen[-1].path).query) == {"q": ["alp ine"], "n": ["7"]}
        client.search(term)
        assert parse_qs(urlsplit(server.seen[-1].path).query)["n"] == ["25"]
        for chosen, names in (
            ({"is-official": ["true"]}, ["alpine"]),
            ({"is-official": ["false"]}, ["me/alpine"]),
            ({"stars": ["3", "10"]}, ["alpine"]),
            ({"is-automated": ["true"]}, []),
            ({"is-automated": ["false"]}, ["alpine", "me/alpine"]),
        ):
            answered = engine.raw(client, "GET", "/images/search", params={"term": term, "filters": json.dumps(chosen)})
            assert [item["name"] for item in answered.json()] == names


def test_search_with_a_login(engine: Engine) -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(200 if seen.headers.get("authorization") == "Basic bWU6c2VjcmV0" else 403, b'{"results": []}')

    client = engine.client()
    login = {"X-Registry-Auth": "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQifQ"}  # me, secret
    with serving(answer) as server:
        path = f"/images/search?term={server.address}/x"
        assert engine.raw(client, "GET", path, headers=login).json() == []
        assert refused(engine.raw(client, "GET", path)) == (500, "unexpected status code 403")


def test_searches_that_find_nothing_but_trouble(engine: Engine, private: Registry) -> None:
    client = engine.client()
    for query, status, words in (
        ("term=x&limit=101", 400, "limit 101 is outside the range of [1, 100]"),
        ("term=x&limit=-1", 400, "limit -1 is outside the range of [1, 100]"),
        ("term=http://x", 400, "invalid repository name: repository name (http://x) should not have a scheme"),
        ('term=x&filters={"stars":["many"]}', 400, "invalid filter 'stars=many'"),
        ('term=x&filters={"size":["1"]}', 400, "invalid filter 'size'"),
        (f"term={private.address}/x", 500, "unexpected status code 404"),
    ):
        assert refused(engine.raw(client, "GET", f"/images/search?{query}")) == (status, words)
    for body in (b"", b"[]", b'{"results": [5]}', b'{"results": [{"star_count": 1}]}'):
        with serving(lambda seen, body=body: Reply(200, body)) as server:  # type: ignore[misc]
            status, said = refused(engine.raw(client, "GET", f"/images/search?term={server.address}/x"))
            assert status == 500 and said.startswith("error decoding registry search results: ")


def test_the_hub_is_searched_at_its_index(engine: Engine) -> None:
    """Through a proxy, to see whom the engine wants to speak to."""
    with serving(lambda seen: Reply(502)) as proxy:
        address = f"http://127.0.0.1:{proxy.server.server_port}"
        engine.lab.images.registries = RegistrySettings(https_proxy=address)
        assert engine.raw(engine.client(), "GET", "/images/search?term=alpine").status_code == 500
        assert [(seen.method, seen.path) for seen in proxy.seen] == [("CONNECT", "index.docker.io:443")]


# -- imports from addresses --------------------------------------------------------------------------


def test_import_from_an_address(engine: Engine) -> None:
    tree = tar({"hello": b"x" * 1_000_000})
    with serving(lambda seen: Reply(200, tree) if seen.path == "/tree.tar" else Reply(404)) as server:
        address = f"http://{server.address}/tree.tar"
        client = engine.client()
        answer = engine.raw(client, "POST", "/images/create", params={"fromSrc": address, "repo": "tree", "tag": "1"})
        said = [json.loads(line) for line in answer.text.splitlines()]
        assert said[0] == {"status": f"Downloading from {address}"}
        assert said[-2]["progressDetail"] == {"current": len(tree), "total": len(tree)}
        image = client.inspect_image("tree:1")
        assert said[-1] == {"status": image["Id"]} and image["Comment"] == f"Imported from {address}"
        bare = engine.raw(client, "POST", "/images/create", params={"fromSrc": f"{server.address}/tree.tar"})
        assert json.loads(bare.text.splitlines()[0])["status"] == f"Downloading from {address}"
        missing = engine.raw(client, "POST", "/images/create", params={"fromSrc": f"http://{server.address}/x"})
        assert missing.status_code == 400 and f"failed to download http://{server.address}/x: " in missing.text
        scheme = engine.raw(client, "POST", "/images/create", params={"fromSrc": "ftp://a/x"})
        assert refused(scheme) == (400, 'Get "ftp://a/x": unsupported protocol scheme "ftp"')
    engine.lab.assert_tidy()


def test_an_address_with_something_else_behind_it(engine: Engine) -> None:
    with serving(lambda seen: Reply(200, b"no archive" * 100)) as server:
        params = {"fromSrc": f"http://{server.address}/x"}
        answer = engine.raw(engine.client(), "POST", "/images/create", params=params)
        assert answer.status_code == 200 and "error" in json.loads(answer.text.splitlines()[-1])
    engine.lab.assert_empty()


# -- lists and names ---------------------------------------------------------------------------------


def test_list_and_inspect_for_clients_of_all_ages(engine: Engine) -> None:
    shared, own = tar({"s": b"s" * 10}), tar({"o": b"o" * 5})
    image = stored(engine, "a:1", layers=(shared, own))
    bare = stored(engine, layers=(shared,))
    found = {item["Id"]: item for item in engine.client().images(all=True)}
    assert found[bare]["RepoTags"] == [] and found[bare]["RepoDigests"] == []
    assert found[image]["SharedSize"] == -1 and found[image]["Containers"] == 0 and "VirtualSize" not in found[image]
    sized = {item["Id"]: item for item in engine.raw(engine.client(), "GET", "/images/json?shared-size=1").json()}
    assert (sized[image]["SharedSize"], sized[image]["Size"]) == (10, 15)
    old = {item["Id"]: item for item in engine.client("1.42").images(all=True)}
    assert old[bare]["RepoTags"] == ["<none>:<none>"] and old[bare]["RepoDigests"] == ["<none>@<none>"]
    assert old[image]["VirtualSize"] == 15 and old[image]["Containers"] == -1
    new, older = engine.client().inspect_image("a:1"), engine.client("1.44").inspect_image("a:1")
    assert "Hostname" not in new["Config"] and "VirtualSize" not in new and "ContainerConfig" not in new
    assert older["Config"]["Hostname"] == "" and older["ContainerConfig"]["Cmd"] is None and older["Container"] == ""


def test_names_are_given_by_dockers_rules(engine: Engine) -> None:
    image = stored(engine, "a:1")
    client = engine.client()
    assert client.tag("a:1", "b:1", "2") is True, "the parameter counts more than what the name says"
    assert sorted(client.inspect_image(image)["RepoTags"]) == ["a:1", "b:2"]
    for query, words in (
        ("repo=sha256&tag=1", "refusing to create an ambiguous tag using digest algorithm as name"),
        (f"repo=a@{image}", "refusing to create a tag with a digest reference"),
        ("repo=a&tag=!", "invalid tag format"),
        ("", "invalid reference format"),
    ):
        assert refused(engine.raw(client, "POST", f"/images/nothing/tag?{query}")) == (400, words)
    reserved = engine.raw(client, "POST", "/images/create?fromImage=scratch")
    assert refused(reserved) == (403, "'scratch' is a reserved name")


def test_events_of_images_name_the_image(engine: Engine) -> None:
    engine.lab.add(b"1", config=ImageConfig(labels={"l": "v"}))
    image = engine.lab.images.list()[0].id
    client = engine.client()
    client.tag(image, "a")
    list(client.get_image("a"))
    client.remove_image("a")
    assert engine.happened() == [
        ("tag", image, "a:latest"), ("save", image, image), ("untag", image, image), ("delete", image, image)]  # fmt: skip
    assert engine.events._ring[0].attributes["l"] == "v"


def test_what_pruning_frees(engine: Engine) -> None:
    shared, own = tar({"s": b"s" * 10}), tar({"o": b"o" * 5})
    stored(engine, "a:1", layers=(shared,))
    gone = stored(engine, layers=(shared, own))
    answer = engine.client().prune_images()
    assert answer["SpaceReclaimed"] == 5, "what others have, too, stays"
    assert answer["ImagesDeleted"][0] == {"Deleted": gone} and len(answer["ImagesDeleted"]) == 2
