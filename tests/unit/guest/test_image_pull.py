"""Pulling from a real registry, and from servers that misbehave in one way each."""

from __future__ import annotations

import asyncio
import base64
import functools
import gzip
import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import zstandard

from pyboxd.errors import InvalidArgument, NotFound, PyboxdError, SystemFailure, Unauthorized
from pyboxd.image import distribution
from pyboxd.image.blobs import KnownBlobs
from pyboxd.image.model import Image, RegistrySettings
from pyboxd.image.pull import Puller
from pyboxd.image.registry import Client
from pyboxd.model import RegistryAuth
from tests.support.http_server import Reply, Seen, Server, serving
from tests.support.image_lab import ImageLab, Sample, tar
from tests.support.registry import Registry, free_port, running_registry

BASE, TOP = tar({"base": b"1" * 300_000}), tar({"top": b"2"})
SAMPLE = Sample.of(BASE, TOP)
HOME = RegistrySettings(gateway="127.0.0.1")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USERS = {"me": "secret"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder) as found:
        (folder / "a.tar").write_bytes(SAMPLE.saved("app:1"))
        found.push(folder / "a.tar", "me/app:1")
        yield found


def pull(lab: ImageLab, name: str, *, platform: str = "", auth: RegistryAuth | None = None) -> Image:
    puller = Puller(lab.images, HOME, KnownBlobs(lab.database))
    return asyncio.run(puller.pull(name, platform=platform, auth=auth, progress=lab.said.append))


def refused(kind: type[PyboxdError], lab: ImageLab, name: str, **options: object) -> str:
    """The words of the failure; nothing may be left of the attempt."""
    with pytest.raises(kind) as caught:
        pull(lab, name, **options)  # type: ignore[arg-type]
    lab.assert_empty()
    return str(caught.value)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def send(
    address: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    connection = http.client.HTTPConnection(address.replace("localhost", "127.0.0.1"))
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status < 300, said
    return {key.lower(): value for key, value in answer.getheaders()}


def put_blob(registry: Registry, name: str, data: bytes) -> dict[str, object]:
    location = send(registry.address, "POST", f"/v2/{name}/blobs/uploads/")["location"]
    parts = urlsplit(location)
    send(registry.address, "PUT", f"{parts.path}?{parts.query}&digest={digest(data)}", data)
    return {"mediaType": "application/octet-stream", "digest": digest(data), "size": len(data)}


def put_manifest(registry: Registry, name: str, tag: str, value: Mapping[str, object], kind: str) -> dict[str, object]:
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, **value}).encode()
    send(registry.address, "PUT", f"/v2/{name}/manifests/{tag or digest(data)}", data, {"Content-Type": kind})
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def put_image(
    registry: Registry, name: str, tag: str, sample: Sample, compress: Callable[[bytes], bytes] = gzip.compress
) -> dict[str, object]:
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    layers = [put_blob(registry, name, compress(layer)) | {"mediaType": kind} for layer in sample.layers]
    config = put_blob(registry, name, sample.raw) | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    return put_manifest(registry, name, tag, {"config": config, "layers": layers}, MANIFEST)


# -- a real registry ---------------------------------------------------------------------------------


def test_a_mirror_stands_in_for_the_hub(lab: ImageLab, registry: Registry) -> None:
    settings = RegistrySettings(gateway="127.0.0.1", mirror=registry.address)
    puller = Puller(lab.images, settings, KnownBlobs(lab.database))
    image = asyncio.run(puller.pull("me/app:1", platform="", auth=RegistryAuth("me", "wrong"), progress=lab.said.append))
    assert image.references == ("me/app:1",) and image.repo_digests[0].startswith("me/app@sha256:")


def test_pull_by_tag_and_again(lab: ImageLab, registry: Registry) -> None:
    name = f"{registry.address}/me/app:1"
    image = pull(lab, name)
    assert image.id == SAMPLE.id and image.references == (name,) and len(image.repo_digests) == 1
    assert [Path(lab.layers.archive(diff_id)).read_bytes() for diff_id in image.layers] == [BASE, TOP]
    said = [step.status for step in lab.said]
    assert said[0] == "Pulling from me/app" and lab.said[0].id == "1"
    assert said.count("Pull complete") == 2 and said.count("Download complete") == 2
    assert said[-2:] == [
        f"Digest: {image.repo_digests[0].partition('@')[2]}", f"Status: Downloaded newer image for {name}"]  # fmt: skip
    lab.said.clear()
    assert pull(lab, name).id == image.id
    assert [step.status for step in lab.said] == [
        "Pulling from me/app", "Already exists", "Already exists",
        f"Digest: {image.repo_digests[0].partition('@')[2]}", f"Status: Image is up to date for {name}"]  # fmt: skip
    lab.assert_tidy()


def test_all_tags(lab: ImageLab, registry: Registry) -> None:
    other = Sample.of(TOP, cmd=("other",))
    for tag, sample in (("b", SAMPLE), ("a", other)):
        put_image(registry, "me/tagged", tag, sample)
    name = f"{registry.address}/me/tagged"
    puller = Puller(lab.images, HOME, KnownBlobs(lab.database))
    for what in ("Downloaded newer image", "Image is up to date"):
        lab.said.clear()
        asyncio.run(puller.pull_all(name, progress=lab.said.append))
        assert lab.images.get(f"{name}:a").id == other.id and lab.images.get(f"{name}:b").id == SAMPLE.id
        said = [step.status for step in lab.said]
        assert sorted(step.id for step in lab.said if step.status == "Pulling from me/tagged") == ["a", "b"]
        assert [text for text in said if text.startswith("Status")] == [f"Status: {what} for {name}"]
    with pytest.raises(NotFound):
        asyncio.run(puller.pull_all(f"{registry.address}/me/nothing", progress=lab.said.append))
    lab.assert_tidy()


def test_tags_come_in_pages_and_as_lists(lab: ImageLab) -> None:
    pages = {"": (["1"], '</v2/app/tags/list?last=1&n=1>; rel="next"'), "last=1&n=1": (["1"], '<?last=1>; rel="next"')}
    found = files()
    seen: list[str] = []

    def answer(request: Seen) -> Reply:
        path, _, query = request.path.partition("?")
        if path != "/v2/app/tags/list":
            return plain(found)(request)
        seen.append(query)
        tags, link = pages[query]
        return Reply(200, json.dumps({"tags": tags}).encode(), {"Link": link})

    puller = Puller(lab.images, HOME, KnownBlobs(lab.database))
    with serving(answer) as server:
        asyncio.run(puller.pull_all(f"{server.address}/app", progress=lab.said.append))
        assert seen == ["", "last=1&n=1"] and lab.images.get(f"{server.address}/app:1").id == SAMPLE.id
        for bad in (b"{", b"[]", b'{"tags": {"a": 1}}', b'{"tags": [1]}'):
            server.answer = functools.partial(lambda data, _: Reply(200, data), bad)
            with pytest.raises(PyboxdError):
                asyncio.run(puller.pull_all(f"{server.address}/app", progress=lab.said.append))


def test_pull_by_digest(lab: ImageLab, registry: Registry) -> None:
    by_tag = pull(lab, f"{registry.address}/me/app:1")
    asyncio.run(lab.images.remove(by_tag.references[0]))
    lab.assert_empty()
    image = pull(lab, by_tag.repo_digests[0])
    assert image.id == SAMPLE.id and image.references == () and image.repo_digests == by_tag.repo_digests
    assert lab.images.get(by_tag.repo_digests[0]).id == image.id


def test_a_tag_that_moved_downloads_a_newer_image(lab: ImageLab, registry: Registry) -> None:
    name = f"{registry.address}/me/moving:latest"
    put_image(registry, "me/moving", "latest", Sample.of(BASE))
    old = pull(lab, name)
    put_image(registry, "me/moving", "latest", SAMPLE)
    lab.said.clear()
    new = pull(lab, name)
    assert new.id != old.id and lab.images.get(old.id).references == () and lab.images.get(name).id == new.id
    assert lab.said[-1].status == f"Status: Downloaded newer image for {name}"
    lab.assert_tidy()


def test_the_platform_is_chosen_from_a_list(lab: ImageLab, registry: Registry) -> None:
    name = "me/many"
    samples = {"amd64": Sample.of(TOP), "arm64": Sample.of(TOP, architecture="arm64")}
    listed = [{"platform": {"os": "unknown", "architecture": "unknown"}, **put_image(registry, name, "", Sample.of(BASE))}]
    for architecture, sample in samples.items():
        platform = {"os": "linux", "architecture": architecture}
        listed.append(put_image(registry, name, "", sample) | {"platform": platform})
    listed[-1]["platform"] = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    index = put_manifest(registry, name, "1", {"manifests": listed}, INDEX)
    address = f"{registry.address}/{name}:1"
    assert pull(lab, address).id == samples["amd64"].id
    assert lab.images.get(address).repo_digests == (f"{registry.address}/{name}@{index['digest']}",)
    for wanted in ("linux/arm64", "linux/arm64/v8"):
        assert pull(lab, address, platform=wanted).id == samples["arm64"].id
    with pytest.raises(NotFound) as caught:
        pull(lab, address, platform="linux/riscv64")
    assert str(caught.value) == "no matching manifest for linux/riscv64 in the manifest list entries"


def test_one_image_for_another_platform_is_told(lab: ImageLab, registry: Registry) -> None:
    name = f"{registry.address}/me/app:1"
    assert refused(NotFound, lab, name, platform="linux/arm64") == (
        f"image with reference {name} was found but does not match the specified platform: "
        "wanted linux/arm64, actual: linux/amd64"
    )


def test_zstd_and_plain_layers_and_doubles(lab: ImageLab, registry: Registry) -> None:
    put_image(registry, "me/zstd", "1", SAMPLE, zstandard.ZstdCompressor().compress)
    assert pull(lab, f"{registry.address}/me/zstd:1").id == SAMPLE.id
    twice = Sample.of(BASE, TOP, BASE)
    put_image(registry, "me/twice", "1", twice, bytes)
    assert pull(lab, f"{registry.address}/me/twice:1").layers == (digest(BASE), digest(TOP), digest(BASE))
    lab.assert_tidy()


def test_unknown_names(lab: ImageLab, registry: Registry) -> None:
    for name in ("me/app:nope", "me/nothing:1"):
        assert refused(NotFound, lab, f"{registry.address}/{name}") == (
            f"manifest for {registry.address}/{name} not found: manifest unknown: manifest unknown"
        )
    assert lab.said == [], "nothing was said before, so the client gets a proper status"


def test_a_layer_that_is_not_what_the_configuration_promises(lab: ImageLab, registry: Registry) -> None:
    put_image(registry, "me/wrong", "1", Sample((BASE, BASE), SAMPLE.raw))
    words = refused(InvalidArgument, lab, f"{registry.address}/me/wrong:1")
    assert words == f"layer verification failed: expected diff id {digest(TOP)}, got {digest(BASE)}"
    put_image(registry, "me/wrong", "2", Sample((BASE,), SAMPLE.raw))
    refused(InvalidArgument, lab, f"{registry.address}/me/wrong:2")
    hostile = Sample.of(TOP, tar({"../../x": b""}))
    put_image(registry, "me/wrong", "3", hostile)
    assert "leads out of its folder" in refused(InvalidArgument, lab, f"{registry.address}/me/wrong:3")


def test_passwords(lab: ImageLab, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", users=USERS) as found:
        (tmp_path / "a.tar").write_bytes(SAMPLE.saved("app:1"))
        found.push(tmp_path / "a.tar", "app:1", "me:secret")
        name = f"{found.address}/app:1"
        url = f"http://{found.address}/v2/app/manifests/1"
        assert refused(Unauthorized, lab, name) == f'Head "{url}": no basic auth credentials'
        wrong = RegistryAuth("me", "wrong")
        assert refused(Unauthorized, lab, name, auth=wrong) == "unauthorized: authentication required"
        assert pull(lab, name, auth=RegistryAuth("me", "secret")).id == SAMPLE.id


def test_nobody_listens(lab: ImageLab) -> None:
    port = free_port()
    assert refused(SystemFailure, lab, f"localhost:{port}/app") == (
        f'Get "http://localhost:{port}/v2/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )


# -- servers that misbehave --------------------------------------------------------------------------


def files(sample: Sample = SAMPLE, **changes: object) -> dict[str, bytes]:
    """What a registry with one image answers, by path."""
    layers = [gzip.compress(layer, mtime=0) for layer in sample.layers]
    value: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"digest": digest(sample.raw), "size": len(sample.raw)},
        "layers": [{"digest": digest(layer), "size": len(layer)} for layer in layers],
    }
    found = {f"/v2/app/blobs/{digest(data)}": data for data in (*layers, sample.raw)}
    return found | {"/v2/": b"{}", "/v2/app/manifests/1": json.dumps(value | changes).encode()}


def plain(found: Mapping[str, bytes]) -> Callable[[Seen], Reply]:
    return lambda seen: Reply(200, found[seen.path]) if seen.path in found else Reply(404)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "PAUSE", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_taken_up_again(lab: ImageLab, ranges: bool) -> None:
    sample = Sample.of(tar({"r": bytes(random_bytes(200_000))}))
    found = files(sample)

    def answer(seen: Seen) -> Reply:
        reply = plain(found)(seen)
        if len(reply.body) < 100_000:
            return reply
        start = int(seen.headers.get("range", "bytes=0-")[6:-1])
        if start and ranges:
            return Reply(206, reply.body[start:], {"Content-Range": f"bytes {start}-/*"}, 90_000)
        return Reply(200, reply.body, {}, 90_000 if not start else -1)

    with serving(answer) as server:
        assert pull(lab, f"{server.address}/app:1").id == sample.id
        asked = [seen.headers.get("range") for seen in server.seen if "blobs" in seen.path]
        assert "bytes=90000-" in asked
    lab.assert_tidy()


def random_bytes(count: int) -> bytes:
    import random

    return random.Random(5).randbytes(count)


@pytest.mark.usefixtures("quick")
def test_a_registry_that_stays_broken_is_given_up(lab: ImageLab) -> None:
    found = files()
    layer = next(path for path, data in found.items() if data[:2] == b"\x1f\x8b")

    def answer(seen: Seen) -> Reply:
        reply = plain(found)(seen)
        if seen.path == layer:
            reply.cut = 50
            if "range" in seen.headers:
                reply.cut = 0
        return reply

    with serving(answer) as server:
        words = refused(SystemFailure, lab, f"{server.address}/app:1")
    assert words == f"download of {layer.rpartition('/')[2]} failed: unexpected EOF"


def test_damaged_layers_and_documents(lab: ImageLab) -> None:
    found = files()
    for path, data in files().items():
        if "blobs" not in path:
            continue
        damaged = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        for changed in (damaged, damaged + b"more"):
            with serving(plain(found | {path: changed})) as server:
                refused(InvalidArgument, lab, f"{server.address}/app:1")
    with serving(plain(found)) as server:
        wrong = f"{server.address}/app@{digest(b'other')}"
        manifest = found["/v2/app/manifests/1"]
        server.answer = plain(found | {f"/v2/app/manifests/{digest(b'other')}": manifest})
        assert refused(InvalidArgument, lab, wrong) == f"manifest verification failed for digest {digest(b'other')}"
        server.answer = lambda seen: Reply(200, plain(found)(seen).body, {"Docker-Content-Digest": digest(b"other")})
        refused(InvalidArgument, lab, f"{server.address}/app:1")


def test_odd_manifests_are_refused(lab: ImageLab) -> None:
    good = json.loads(files()["/v2/app/manifests/1"])
    bad: list[object] = [
        b"", b"{", [], 5, {}, {"schemaVersion": 1}, good | {"manifests": []}, good | {"layers": 5}, good | {"layers": [1]},
        good | {"config": None}, good | {"config": {"digest": "sha256:../../x", "size": 1}},
        good | {"config": good["config"] | {"size": -1}}, good | {"config": good["config"] | {"size": 1 << 40}},
        {"schemaVersion": 2, "manifests": {"a": 1}}, {"schemaVersion": 2, "manifests": [1]},
        {"schemaVersion": 2, "manifests": [{"platform": 5}]},
        {"schemaVersion": 2, "manifests": [{"platform": {"os": "linux", "architecture": "amd64"}, "digest": "x"}]},
        good | {"layers": good["layers"][:1]},
    ]  # fmt: skip
    for value in bad:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        with serving(plain(files() | {"/v2/app/manifests/1": data})) as server:
            refused(PyboxdError, lab, f"{server.address}/app:1")


def test_errors_of_the_server(lab: ImageLab) -> None:
    said = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known to registry"}]}).encode()
    with serving(lambda seen: Reply(404, said)) as server:
        assert refused(NotFound, lab, f"{server.address}/app:1") == (
            f"repository {server.address}/app not found: name unknown: repository name not known to registry"
        )
        server.answer = lambda seen: Reply(503, b"busy")
        assert refused(SystemFailure, lab, f"{server.address}/app:1") == (
            f"received unexpected HTTP status from {server.address}: 503"
        )
        denied = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
        server.answer = lambda seen: Reply(403, json.dumps(denied).encode())
        assert refused(NotFound, lab, f"{server.address}/app:1") == (
            f"pull access denied for {server.address}/app, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied"
        )
        limit = {"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]}
        server.answer = lambda seen: Reply(429, json.dumps(limit).encode())
        assert refused(SystemFailure, lab, f"{server.address}/app:1") == (
            "toomanyrequests: You have reached your pull rate limit."
        )
        server.answer = lambda seen: Reply(307, b"", {"Location": seen.path})
        assert "too many redirects" in refused(SystemFailure, lab, f"{server.address}/app:1")
        server.answer = lambda seen: Reply(302, b"", {"Location": "ftp://localhost/x"})
        refused(SystemFailure, lab, f"{server.address}/app:1")


# -- logins ------------------------------------------------------------------------------------------


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@contextmanager
def token_registry(accept: Callable[[Seen], bool]) -> Iterator[tuple[Server, Server]]:
    """A registry that wants tokens, and the service on another port that `accept`s who may have one."""

    def issue(seen: Seen) -> Reply:
        return Reply(200, b'{"token": "T", "expires_in": 60}') if accept(seen) else Reply(401)

    with serving(issue) as service:
        challenge = f'Bearer realm="http://{service.address}/token",service="reg",scope="repository:app:pull"'

        def answer(seen: Seen) -> Reply:
            if seen.headers.get("authorization") == "Bearer T":
                return plain(files())(seen)
            return Reply(401, b"", {"WWW-Authenticate": challenge})

        with serving(answer) as server:
            yield server, service


def test_tokens_without_a_login(lab: ImageLab) -> None:
    with token_registry(lambda seen: True) as (server, service):
        assert pull(lab, f"{server.address}/app:1").id == SAMPLE.id
        assert len(service.seen) == 1, "one token serves the whole pull"
        assert parse_qs(urlsplit(service.seen[0].path).query) == {"service": ["reg"], "scope": ["repository:app:pull"]}
        assert "authorization" not in service.seen[0].headers


def test_tokens_with_a_login(lab: ImageLab) -> None:
    with token_registry(lambda seen: seen.headers.get("authorization") == basic("me:secret")) as (server, service):
        name = f"{server.address}/app:1"
        assert refused(NotFound, lab, name).startswith(f"pull access denied for {server.address}/app, repository does not")
        wrong = RegistryAuth("me", "wrong")
        assert refused(Unauthorized, lab, name, auth=wrong) == "unauthorized: incorrect username or password"
        assert pull(lab, name, auth=RegistryAuth("me", "secret")).id == SAMPLE.id
        assert "account=me" in service.seen[-1].path
        assert all(basic("me:secret") != seen.headers.get("authorization") for seen in server.seen)


def test_tokens_with_an_identity_token(lab: ImageLab) -> None:
    with token_registry(lambda seen: b"refresh_token=long" in seen.body) as (server, service):
        assert pull(lab, f"{server.address}/app:1", auth=RegistryAuth(identity_token="long")).id == SAMPLE.id
        assert service.seen[0].method == "POST" and parse_qs(service.seen[0].body.decode())["grant_type"] == [
            "refresh_token"
        ]


def test_a_password_is_not_sent_in_the_clear_to_another_host(lab: ImageLab) -> None:
    with serving(lambda seen: Reply(200, b'{"token": "T"}')) as service:
        realm = f"http://127.0.0.1:{service.server.server_port}/token"  # another name than "localhost"
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="reg"'}
        with serving(lambda seen: Reply(401, b"", challenge)) as server:
            refused(Unauthorized, lab, f"{server.address}/app:1", auth=RegistryAuth("me", "secret", "identity"))
        assert service.seen and all("authorization" not in seen.headers and not seen.body for seen in service.seen)


def test_odd_token_services(lab: ImageLab) -> None:
    def challenging(realm: str) -> Callable[[Seen], Reply]:
        return lambda _: Reply(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}"'})

    with serving(plain({})) as service, serving(plain({})) as server:
        for reply in (Reply(200, b"{"), Reply(200, b"[]"), Reply(200, b"{}"), Reply(500), Reply(302)):
            service.answer = functools.partial(lambda reply, _: reply, reply)
            for realm in (f"http://{service.address}/token", "file:///etc/passwd", "", "http://"):
                server.answer = challenging(realm)
                refused(PyboxdError, lab, f"{server.address}/app:1")


def test_a_login_does_not_follow_a_redirect(lab: ImageLab) -> None:
    found = files()
    with serving(lambda seen: Reply(200, found[seen.path[len("/cdn") :]])) as cdn:

        def answer(seen: Seen) -> Reply:
            if seen.headers.get("authorization") != basic("me:secret"):
                return Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            if "/blobs/" in seen.path:
                return Reply(307, b"", {"Location": f"http://{cdn.address}/cdn{seen.path}"})
            return plain(found)(seen)

        with serving(answer) as server:
            assert pull(lab, f"{server.address}/app:1", auth=RegistryAuth("me", "secret")).id == SAMPLE.id
        assert len(cdn.seen) == 3 and all("authorization" not in seen.headers for seen in cdn.seen)


def test_a_login_is_not_taken_up_again_behind_a_redirect(lab: ImageLab) -> None:
    found = files()

    def stranger(seen: Seen) -> Reply:
        if seen.path.startswith("/first"):
            return Reply(307, b"", {"Location": f"/second{seen.path[len('/first') :]}"})
        return Reply(200, found[seen.path[len("/second") :]])

    with serving(stranger) as cdn:

        def answer(seen: Seen) -> Reply:
            if seen.headers.get("authorization") != basic("me:secret"):
                return Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            if "/blobs/" in seen.path:
                return Reply(307, b"", {"Location": f"http://{cdn.address}/first{seen.path}"})
            return plain(found)(seen)

        with serving(answer) as server:
            assert pull(lab, f"{server.address}/app:1", auth=RegistryAuth("me", "secret")).id == SAMPLE.id
        assert len(cdn.seen) == 6 and all("authorization" not in seen.headers for seen in cdn.seen)


@pytest.mark.parametrize("address", ["localhost:631", "127.0.0.1", "[::1]:631", "10.0.2.2:631"])
def test_a_registry_cannot_send_the_engine_to_the_users_computer(address: str) -> None:
    client = Client("registry.example.com")
    with pytest.raises(SystemFailure, match="which is this computer"):
        client._connection(f"http://{address}/token")


def test_the_login_of_a_proxy() -> None:
    settings = RegistrySettings(http_proxy="http://us%40er:p%3Aw@proxy:3128", https_proxy="http://me@proxy:3128")
    client = Client("registry.example.com", settings)
    connection, target, heads = client._connection("http://registry.example.com/v2/")
    assert (connection.host, connection.port, target) == ("proxy", 3128, "http://registry.example.com/v2/")
    assert heads == {"Proxy-Authorization": basic("us@er:p:w")}
    connection, target, heads = client._connection("https://registry.example.com/v2/")
    assert (connection.host, connection.port, target, heads) == ("proxy", 3128, "/v2/", {})
    assert connection._tunnel_headers == {"Proxy-Authorization": basic("me:")}  # type: ignore[attr-defined]


# -- cancellation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["manifests", "blobs"])
def test_a_cancelled_pull_leaves_nothing(lab: ImageLab, where: str) -> None:
    found = files()
    hold, entered = threading.Event(), threading.Event()

    def answer(seen: Seen) -> Reply:
        if where in seen.path and found.get(seen.path) != SAMPLE.raw:
            entered.set()
            hold.wait(30)
        return plain(found)(seen)

    async def run(address: str) -> None:
        task = asyncio.ensure_future(
            Puller(lab.images, HOME, KnownBlobs(lab.database)).pull(f"{address}/app:1", progress=lab.said.append)
        )
        await asyncio.to_thread(entered.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(answer) as server:
        try:
            asyncio.run(run(server.address))
            assert not hold.is_set()
        finally:
            hold.set()
    lab.assert_empty()
