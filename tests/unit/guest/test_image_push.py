"""Pushing to a real registry, and to servers that lose, refuse or break off what is sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pyboxd.errors import Forbidden, InvalidArgument, NotFound, PyboxdError, SystemFailure, Unauthorized
from pyboxd.image import distribution
from pyboxd.image.blobs import Blob, KnownBlobs, Place
from pyboxd.image.model import Image, Pushed, RegistrySettings
from pyboxd.image.pull import Puller
from pyboxd.image.push import Pusher
from pyboxd.model import RegistryAuth
from tests.support.http_server import Reply, Seen, Server, serving
from tests.support.image_lab import ImageLab, Sample, tar
from tests.support.registry import Registry, free_port, running_registry
from tests.support.wire import Wire

HOME = RegistrySettings(gateway="127.0.0.1")
BIG = tar({"big": random.Random(3).randbytes(1_500_000)})
SMALL = tar({"small": b"1"})
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyboxd.image import upload

    monkeypatch.setattr(distribution, "PAUSE", 0.01)
    monkeypatch.setattr(upload, "PAUSE", 0.01)


def make(lab: ImageLab, *names: str, layers: tuple[bytes, ...] = (BIG, SMALL)) -> Image:
    sample = Sample.of(*layers)
    image = lab.images.add(sample.raw, [lab.add_layer(data) for data in layers])
    for name in names:
        lab.images.tag(image.id, name)
    return lab.images.get(image.id)


def push(lab: ImageLab, name: str, *, platform: str = "", auth: RegistryAuth | None = None) -> list[Pushed]:
    lab.said.clear()
    pushed: list[Pushed] = []
    pusher = Pusher(lab.images, HOME, KnownBlobs(lab.database))
    job = pusher.push(name, platform=platform, auth=auth, progress=lab.said.append, pushed=pushed.append)
    asyncio.run(job)
    return pushed


def pull(lab: ImageLab, name: str) -> Image:
    return asyncio.run(Puller(lab.images, HOME, KnownBlobs(lab.database)).pull(name, progress=lab.said.append))


def refused(kind: type[PyboxdError], lab: ImageLab, name: str, **options: object) -> str:
    with pytest.raises(kind) as caught:
        push(lab, name, **options)  # type: ignore[arg-type]
    return str(caught.value)


def words(lab: ImageLab, *, of: str = "") -> list[str]:
    """What was said, without the steps of transfers; `of` one layer."""
    return [step.status for step in lab.said if step.status != "Pushing" and (not of or step.id == of)]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def known(lab: ImageLab, data: bytes) -> list[Place]:
    return KnownBlobs(lab.database).of(digest(data))


# -- a real registry ---------------------------------------------------------------------------------


def test_push_then_pull_elsewhere(lab: ImageLab, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/me/first:1"
    image = make(lab, name)
    (pushed,) = push(lab, name)
    assert words(lab)[0] == f"The push refers to repository [{registry.address}/me/first]"
    assert words(lab)[1:3] == ["Preparing", "Preparing"] and words(lab).count("Pushed") == 2
    assert words(lab)[-1] == f"1: digest: {pushed.digest} size: {pushed.size}"
    steps = [step for step in lab.said if step.status == "Pushing" and step.total == len(BIG)]
    assert steps and steps[-1].current == len(BIG)
    assert lab.images.get(image.id).repo_digests == (f"{registry.address}/me/first@{pushed.digest}",)
    (tmp_path / "other").mkdir()
    other = ImageLab(tmp_path / "other")
    assert pull(other, f"{registry.address}/me/first@{pushed.digest}").id == image.id
    assert Path(other.layers.archive(image.layers[0])).read_bytes() == BIG
    other.close()
    lab.assert_tidy()


def test_a_second_push_only_asks(lab: ImageLab, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{registry.address}/me/second:1"
    make(lab, name)
    first = push(lab, name)
    monkeypatch.setattr("pyboxd.image.push.gzipped", None)  # nobody compresses again
    assert push(lab, name) == first
    assert words(lab).count("Layer already exists") == 2 and "Pushed" not in words(lab)


def test_the_same_image_has_the_same_digest_everywhere(lab: ImageLab, registry: Registry) -> None:
    names = [f"{registry.address}/me/same{number}:1" for number in (1, 2)]
    make(lab, *names)
    (one,), (two,) = (push(lab, name) for name in names)
    assert one.digest == two.digest
    assert words(lab).count("Mounted from me/same1") == 2, "the second repository took the layers over"
    assert [place.repository for place in known(lab, BIG)] == [name[:-2] for name in reversed(names)]


def test_all_tags_of_a_repository(lab: ImageLab, registry: Registry) -> None:
    name = f"{registry.address}/me/tags"
    make(lab, f"{name}:a", f"{name}:b", "other:c")
    make(lab, f"{name}:d", layers=(SMALL,))
    assert [tag.tag for tag in push(lab, name)] == ["a", "b", "d"]
    assert words(lab).count("Pushed") == 2 and words(lab).count("Layer already exists") == 3


def test_a_pulled_layer_keeps_its_digest(lab: ImageLab, registry: Registry, tmp_path: Path) -> None:
    """It was compressed by somebody else, so that making it again would give another one."""
    (tmp_path / "a.tar").write_bytes(Sample.of(BIG, SMALL).saved("app:1"))
    registry.push(tmp_path / "a.tar", "them/app:1")
    image = pull(lab, f"{registry.address}/them/app:1")
    before = {data: known(lab, data)[0].blob for data in (BIG, SMALL)}
    mine = f"{registry.address}/me/app:1"
    lab.images.tag(image.id, mine)
    push(lab, mine)
    assert words(lab).count("Mounted from them/app") == 2
    assert {data: known(lab, data)[0].blob for data in (BIG, SMALL)} == before


def test_a_layer_that_the_registry_lost_is_sent_again(lab: ImageLab, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/me/lost:1"
    make(lab, name, layers=(SMALL,))
    place = KnownBlobs(lab.database)
    place.found(f"{registry.address}/me/lost", {digest(SMALL): Blob(digest(b"no"), 5, GZIP)}, [digest(SMALL)])
    push(lab, name)
    assert "Pushed" in words(lab) and [found.blob.digest for found in known(lab, SMALL)] != [digest(b"no")]
    assert len(known(lab, SMALL)) == 1


def test_nothing_to_push(lab: ImageLab, registry: Registry) -> None:
    make(lab, f"{registry.address}/me/some:1")
    name = f"{registry.address}/me/none"
    assert refused(SystemFailure, lab, name) == f"An image does not exist locally with the tag: {name}"
    assert words(lab) == [f"The push refers to repository [{name}]"]
    there = f"{registry.address}/me/some"
    assert refused(SystemFailure, lab, f"{there}:2") == f"tag does not exist: {there}:2"
    assert refused(InvalidArgument, lab, f"{there}@{digest(b'')}") == "cannot push a digest reference"
    words_ = refused(NotFound, lab, f"{there}:1", platform="linux/arm64")
    assert "does not match the specified platform" in words_ and lab.said == []


def test_passwords(lab: ImageLab, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", users={"me": "secret"}) as found:
        name = f"{found.address}/app:1"
        make(lab, name)
        assert refused(Unauthorized, lab, name) == "no basic auth credentials"
        assert refused(Unauthorized, lab, name, auth=RegistryAuth("me", "no")) == "unauthorized: authentication required"
        assert len(push(lab, name, auth=RegistryAuth("me", "secret"))) == 1


def test_many_layers_log_in_at_the_same_time(lab: ImageLab, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", users={"me": "secret"}) as found:
        name = f"{found.address}/app:1"
        make(lab, name, layers=tuple(tar({"f": bytes([number])}) for number in range(9)))
        for status in ("Pushed", "Layer already exists", "Layer already exists"):
            push(lab, name, auth=RegistryAuth("me", "secret"))
            assert words(lab).count(status) == 9


def test_nobody_listens(lab: ImageLab) -> None:
    name = f"localhost:{free_port()}/app:1"
    make(lab, name)
    assert "connect: connection refused" in refused(SystemFailure, lab, name)


@pytest.mark.usefixtures("quick")
def test_a_registry_that_dies_half_way(lab: ImageLab, registry: Registry) -> None:
    with Wire(int(registry.address.rpartition(":")[2]), 1500, cut=True) as wire:
        name = f"localhost:{wire.port}/me/dead:1"
        make(lab, name, layers=tuple(tar({"f": bytes([number])}) for number in range(12)))
        assert refused(SystemFailure, lab, name)
    lab.assert_tidy()


# -- servers of the test -----------------------------------------------------------------------------


@dataclass
class Store:
    """A registry in memory. It keeps what came of a broken transfer, if `keeps`; otherwise the upload is lost."""

    keeps: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)

    def answer(self, seen: Seen) -> Reply:
        parts = urlsplit(seen.path)
        place = parts.path
        if place == "/v2/":
            return Reply(200)
        if place.endswith("/blobs/uploads/"):
            place = f"{place}{len(self.uploads)}"
            self.uploads[place] = b""
            return Reply(202, b"", {"Location": f"{place}?state=a%2Fb"})
        if "/manifests/" in place:
            self.manifests[place] = seen.body
            return Reply(201)
        if seen.method == "HEAD":
            data = self.blobs.get(place.rpartition("/")[2])
            return Reply(404) if data is None else Reply(200, b"", {"Content-Length": str(len(data))})
        return self._upload(seen, place, parse_qs(parts.query))

    def _upload(self, seen: Seen, place: str, query: dict[str, list[str]]) -> Reply:
        if place not in self.uploads:
            return Reply(404, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "blob upload unknown"}]}')
        assert query["state"] == ["a/b"], "the place is used as it was given"
        self.uploads[place] += seen.body
        if seen.broken and not self.keeps:
            del self.uploads[place]
        if seen.method == "PUT":
            data = self.uploads.pop(place)
            if digest(data) != query["digest"][0]:
                return Reply(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "provided digest did not match"}]}')
            self.blobs[digest(data)] = data
            return Reply(201)
        length = len(self.uploads.get(place, b""))
        status = 204 if seen.method == "GET" else 202
        return Reply(status, b"", {"Location": seen.path, "Range": f"0-{max(0, length - 1)}"})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("keeps", [True, False])
def test_a_broken_transfer_is_taken_up_again(lab: ImageLab, keeps: bool) -> None:
    store = Store(keeps)

    def answer(seen: Seen) -> Reply:
        if seen.broken:
            server.patience = -1
        return store.answer(seen)

    with serving(answer) as server:
        server.patience = 400_000
        name = f"{server.address}/app:1"
        image = make(lab, name, layers=(BIG,))
        push(lab, name)
        sent = [len(seen.body) for seen in server.seen if seen.method == "PATCH"]
        asked = [seen for seen in server.seen if seen.method == "GET" and "uploads" in seen.path]
    (layer,) = json.loads(store.manifests["/v2/app/manifests/1"])["layers"]
    assert zlib.decompress(store.blobs[layer["digest"]], 31) == BIG and store.blobs[image.id] == image.raw_config
    whole = layer["size"]
    assert len(asked) == 1
    assert sent[1] == (whole - sent[0] if keeps else whole), "only the rest is sent when the registry has the start"


@pytest.mark.usefixtures("quick")
def test_a_transfer_that_stays_broken_is_given_up(lab: ImageLab) -> None:
    store = Store(keeps=False)
    with serving(store.answer) as server:
        server.patience = 100_000
        name = f"{server.address}/app:1"
        make(lab, name, layers=(BIG,))
        assert refused(SystemFailure, lab, name).startswith("upload failed: ")
        assert sum(seen.broken for seen in server.seen) == distribution.ATTEMPTS
    assert not store.manifests and not known(lab, BIG)
    lab.assert_tidy()


@pytest.mark.usefixtures("quick")
def test_a_busy_registry_is_asked_again(lab: ImageLab) -> None:
    store = Store()
    troubles = ["PATCH", "PUT"]

    def answer(seen: Seen) -> Reply:
        if seen.method in troubles and "uploads" in seen.path:
            troubles.remove(seen.method)
            return Reply(503, b"busy")
        return store.answer(seen)

    with serving(answer) as server:
        make(lab, f"{server.address}/app:1")
        assert len(push(lab, f"{server.address}/app:1")) == 1
    assert not troubles and len(store.blobs) == 3


def test_a_registry_that_never_ends_being_busy(lab: ImageLab, quick: None) -> None:
    store = Store()
    with serving(lambda seen: Reply(503) if seen.method == "PATCH" else store.answer(seen)) as server:
        name = f"{server.address}/app:1"
        make(lab, name)
        assert refused(SystemFailure, lab, name) == f"received unexpected HTTP status from {server.address}: 503"


def denied(seen: Seen) -> Reply:
    if seen.path == "/v2/":
        return Reply(200)
    error = {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}
    return Reply(403, json.dumps(error).encode())


def test_no_right_to_push(lab: ImageLab) -> None:
    with serving(denied) as server:
        name = f"{server.address}/app:1"
        make(lab, name)
        assert refused(Forbidden, lab, name) == "denied: requested access to the resource is denied"
        assert lab.images.get(name).repo_digests == ()


def test_a_mount_that_is_refused_ends_in_an_upload(lab: ImageLab) -> None:
    store = Store()

    def answer(seen: Seen) -> Reply:
        return denied(seen) if "mount=" in seen.path else store.answer(seen)

    with serving(answer) as server:
        name = f"{server.address}/app:1"
        make(lab, name, layers=(SMALL,))
        blob = Blob(digest(b"x"), 5, GZIP)
        KnownBlobs(lab.database).found(f"{server.address}/secret", {digest(SMALL): blob}, [digest(SMALL)])
        push(lab, name)
        asked = next(seen for seen in server.seen if "mount=" in seen.path)
        assert parse_qs(urlsplit(asked.path).query) == {"mount": [blob.digest], "from": ["secret"]}
        assert "Pushed" in words(lab)


def test_a_mount_that_the_registry_does_not_do_goes_on_as_an_upload(lab: ImageLab) -> None:
    store = Store()
    with serving(store.answer) as server:
        name = f"{server.address}/app:1"
        make(lab, name, layers=(SMALL,))
        for number in (1, 2):
            blob = Blob(digest(b"x"), 5, GZIP)
            KnownBlobs(lab.database).found(f"{server.address}/r{number}", {digest(SMALL): blob}, [digest(SMALL)])
        push(lab, name)
        begun = [seen.path for seen in server.seen if seen.method == "POST"]
        assert len(begun) == 3, "two for the layer, of which one was abandoned, and one for the configuration"
        assert [seen.path for seen in server.seen if seen.method == "DELETE"] == ["/v2/app/blobs/uploads/0?state=a%2Fb"]


def token_store(server: Callable[[], Server], service: Server, store: Store) -> Callable[[Seen], Reply]:
    """A registry whose tokens are the scopes that were asked for."""

    def answer(seen: Seen) -> Reply:
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        path = urlsplit(seen.path)
        source = parse_qs(path.query).get("from")
        needed = {"repository:app:pull,push"} | ({f"repository:{source[0]}:pull"} if source else set())
        if path.path != "/v2/" and not needed <= set(token.split()):
            return Reply(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{service.address}/token",service="reg"'})
        if source:
            store.blobs[parse_qs(path.query)["mount"][0]] = b""
            return Reply(201)
        return store.answer(seen)

    return answer


def test_the_scopes_of_tokens(lab: ImageLab) -> None:
    def issue(seen: Seen) -> Reply:
        scopes = parse_qs(urlsplit(seen.path).query).get("scope", [])
        return Reply(200, json.dumps({"token": " ".join(scopes)}).encode())

    with serving(issue) as service, serving(denied) as server:
        server.answer = token_store(lambda: server, service, Store())
        name = f"{server.address}/app:1"
        make(lab, name, layers=(SMALL,))
        blob = Blob(digest(b"x"), 5, GZIP)
        KnownBlobs(lab.database).found(f"{server.address}/other", {digest(SMALL): blob}, [digest(SMALL)])
        push(lab, name)
        assert "Mounted from other" in words(lab)
        asked = [parse_qs(urlsplit(seen.path).query)["scope"] for seen in service.seen]
    assert asked == [["repository:app:pull,push"], ["repository:app:pull,push", "repository:other:pull"]]


@pytest.mark.usefixtures("quick")
def test_a_token_that_is_good_for_pulling_only(lab: ImageLab) -> None:
    with serving(lambda seen: Reply(200, b'{"token": "T"}')) as service:
        realm = f'Bearer realm="http://{service.address}/token",service="reg",scope="repository:app:pull,push"'

        def answer(seen: Seen) -> Reply:
            if seen.path == "/v2/":
                return Reply(200)
            more = ',error="insufficient_scope"' if "authorization" in seen.headers else ""
            return Reply(401, b"", {"WWW-Authenticate": realm + more})

        with serving(answer) as server:
            name = f"{server.address}/app:1"
            make(lab, name)
            assert refused(Forbidden, lab, name) == "denied: requested access to the resource is denied"


def test_a_login_that_ends_during_a_transfer(lab: ImageLab, quick: None) -> None:
    store = Store()
    ended = ["PATCH"]

    with serving(lambda seen: Reply(200, b'{"token": "T", "expires_in": 300}')) as service:
        realm = f'Bearer realm="http://{service.address}/token",service="reg"'

        def answer(seen: Seen) -> Reply:
            if seen.path != "/v2/" and (seen.headers.get("authorization") != "Bearer T" or seen.method in ended):
                if seen.method in ended:
                    ended.remove(seen.method)
                return Reply(401, b"", {"WWW-Authenticate": realm})
            return store.answer(seen)

        with serving(answer) as server:
            make(lab, f"{server.address}/app:1", layers=(BIG,))
            assert len(push(lab, f"{server.address}/app:1")) == 1
    assert not ended


def test_a_cancelled_push_ends(lab: ImageLab) -> None:
    import threading

    hold, entered = threading.Event(), threading.Event()
    store = Store()

    def answer(seen: Seen) -> Reply:
        if seen.method == "PATCH":
            entered.set()
            hold.wait(30)
        return store.answer(seen)

    async def run(name: str) -> None:
        pusher = Pusher(lab.images, HOME, KnownBlobs(lab.database))
        task = asyncio.ensure_future(pusher.push(name, progress=lab.said.append, pushed=lambda _: None))
        await asyncio.to_thread(entered.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(answer) as server:
        make(lab, f"{server.address}/app:1")
        try:
            asyncio.run(run(f"{server.address}/app:1"))
            assert not hold.is_set()
        finally:
            hold.set()
    lab.assert_tidy()


# -- the memory --------------------------------------------------------------------------------------


def test_what_is_remembered_goes_with_the_layer(lab: ImageLab) -> None:
    blobs = KnownBlobs(lab.database)
    image = make(lab, "a:1", layers=(SMALL,))
    blob = Blob(digest(b"x"), 5, GZIP)
    blobs.found("docker.io/library/a", {digest(SMALL): blob}, [digest(SMALL)])
    asyncio.run(lab.images.remove(image.id))
    assert lab.database.rows("SELECT * FROM layer_blob") == []


def test_a_manifest_alone_is_not_believed(lab: ImageLab) -> None:
    blobs = KnownBlobs(lab.database)
    make(lab, "a:1", layers=(SMALL,))
    layer, blob = digest(SMALL), Blob(digest(b"x"), 5, GZIP)
    blobs.found("docker.io/evil", {layer: blob}, ())
    assert blobs.of(layer) == []
    blobs.found("docker.io/a", {layer: Blob(digest(b"x"), 5, "application/vnd.oci.image.layer.v1.tar+zstd")}, [layer])
    assert blobs.of(layer) == [], "a manifest of Docker's own form has no word for it"
    blobs.found("docker.io/a", {layer: blob}, [layer])
    blobs.found("docker.io/b", {layer: blob}, ())
    assert [place.repository for place in blobs.of(layer)] == ["docker.io/b", "docker.io/a"]
    blobs.lost(layer, blob.digest, "docker.io/b")
    assert [place.repository for place in blobs.of(layer)] == ["docker.io/a"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", blobs.of(layer)[0].blob.digest)
