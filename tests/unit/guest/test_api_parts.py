"""Filters, host paths, job streams, logins, build queries: what handlers do before and after the engine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from pyboxd.api import build, events, filters, images, listing, progress, registry
from pyboxd.api.archive import encode_stat, in_thread
from pyboxd.api.paths import HostPaths
from pyboxd.database import Database
from pyboxd.engine.archive import PathStat
from pyboxd.engine.containers import Containers
from pyboxd.engine.events import Event
from pyboxd.engine.model import (
    ContainerConfig,
    EndpointConfig,
    HostConfig,
    MountPoint,
    NetworkView,
    Record,
    State,
    Status,
)
from pyboxd.engine.networking import Networking
from pyboxd.engine.store import Store
from pyboxd.errors import InvalidArgument, NotFound, NotImplementedHere, PyboxdError, SystemFailure
from pyboxd.frozen import replace
from pyboxd.image.builder.doors import BuildFailed, BuildOutput
from pyboxd.image.model import Image, ImageDocument, Progress
from pyboxd.model import PublishedPort, RegistryAuth, Share
from pyboxd.server.message import Query


class TestFilters:
    def test_both_forms(self) -> None:
        assert filters.parse('{"label": {"a": true, "b": false}}', ["label"]) == {"label": ("a",)}
        assert filters.parse('{"label": ["a", "b"]}', ["label"]) == {"label": ("a", "b")}
        assert filters.parse("", ["label"]) == {}

    @pytest.mark.parametrize("text", ["x", "[]", '{"x": ["a"]}', '{"label": "a"}', '{"label": [1]}'])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidArgument, match="invalid filter"):
            filters.parse(text, ["label"])

    def test_switches(self) -> None:
        assert filters.flag({}, "dangling") is None
        assert filters.flag({"dangling": ("1",)}, "dangling") is True
        assert filters.flag({"dangling": ("false",)}, "dangling") is False
        with pytest.raises(InvalidArgument):
            filters.flag({"dangling": ("maybe",)}, "dangling")

    def test_labels(self) -> None:
        labels = {"a": "1", "b": "2"}
        assert filters.labels_match({"label": ("a", "b=2")}, labels)
        assert not filters.labels_match({"label": ("a", "b=3")}, labels)
        assert not filters.labels_match({"label!": ("a=1",)}, labels)


class FakeImages:
    def get(self, reference: str) -> Image:
        layers = {"base": ("1",), "sha256:base": ("1",), "sha256:app": ("1", "2"), "app": ("1", "2")}
        if reference not in layers:
            raise NotFound(f"No such image: {reference}")
        name = reference.removeprefix("sha256:")
        return Image(f"sha256:{name}", (), (), ImageDocument("amd64", "linux", layers=layers[reference]), b"", 0, "", 0)


class FakeNetworking:
    def views(self, record: Record) -> tuple[NetworkView, ...]:
        port = PublishedPort(80, "tcp", "0.0.0.0", 8080, 1)
        return (NetworkView("bridge", EndpointConfig("bridge"), "abc123", ports=(port,) if record.name == "web" else ()),)


@pytest.fixture
def table() -> Containers:
    containers = Containers(Store(Database(":memory:")))
    web = Record(
        "a" * 64, "web", 10, "sha256:app", "app", "linux", ContainerConfig(labels=(("k", "v"),), exposed_ports=("80/tcp",)),
        HostConfig(), mounts=(MountPoint("volume", "/data", name="vol"),), state=State(Status.RUNNING, started_at=1),
    )  # fmt: skip
    job = replace(
        web, id="b" * 64, name="job", created=20, image_id="sha256:base", config=ContainerConfig(), mounts=(),
        state=State(Status.EXITED, exit_code=3, started_at=1),
    )  # fmt: skip
    new = replace(job, id="c" * 64, name="new", created=30, state=State())
    for record in (web, job, new):
        containers.reserve(record.name)
        containers.add(record)
    return containers


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["web"]),
        ({"status": ["exited"]}, ["job"]),
        ({"status": ["exited", "running"]}, ["web", "job"]),
        ({"exited": ["3"]}, ["job"]),
        ({"exited": ["0"]}, []),
        ({"name": ["we"]}, ["web"]),
        ({"name": ["^/web$"]}, ["web"]),
        ({"name": ["x"]}, []),
        ({"id": ["aaa"]}, ["web"]),
        ({"label": ["k=v"]}, ["web"]),
        ({"label": ["k=w"]}, []),
        ({"before": ["job"]}, ["web"]),
        ({"since": ["job"]}, ["new"]),
        ({"ancestor": ["app"]}, ["web"]),
        ({"ancestor": ["base"], "status": ["running", "exited", "created"]}, ["web", "job", "new"]),
        ({"ancestor": ["none"]}, []),
        ({"volume": ["vol"]}, ["web"]),
        ({"volume": ["/data"]}, ["web"]),
        ({"network": ["bridge"]}, ["web"]),
        ({"network": ["abc"]}, ["web"]),
        ({"network": ["other"]}, []),
        ({"publish": ["80"]}, ["web"]),
        ({"publish": ["81"]}, []),
        ({"expose": ["79-80/tcp"]}, ["web"]),
        ({"health": ["none"]}, ["web"]),
        ({"is-task": ["true"]}, []),
    ],
)
def test_lists(table: Containers, wanted: dict[str, list[str]], names: list[str]) -> None:
    found = listing.parse(json.dumps(wanted))
    chooser = listing.Chooser(table, cast(Networking, FakeNetworking()), FakeImages(), found)
    assert [container.name for container in table if chooser.wants(container, False)] == names


@pytest.mark.parametrize("wanted", [{"status": ["gone"]}, {"exited": ["x"]}, {"health": ["ill"]}, {"name": ["("]}])
def test_values_that_no_filter_has(wanted: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidArgument, match="invalid filter"):
        listing.parse(json.dumps(wanted))


def test_what_a_prune_takes() -> None:
    found = listing.parse_prune(json.dumps({"until": ["100"], "label!": ["keep"]}))
    assert listing.old_enough(found, 99 * 10**9, ())
    assert not listing.old_enough(found, 101 * 10**9, ())
    assert not listing.old_enough(found, 1, (("keep", ""),))


class TestHostPaths:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> HostPaths:
        (tmp_path / "home" / "project").mkdir(parents=True)
        return HostPaths([Share("home", "/home/me", "/home/me"), Share("deep", "/home/me/x", "/home/me/x")], str(tmp_path))

    def test_inside(self, paths: HostPaths, tmp_path: Path) -> None:
        assert paths.to_guest("/home/me") == f"{tmp_path}/home"
        assert paths.to_guest("/home/me/../me/project/a") == f"{tmp_path}/home/project/a"
        assert paths.to_guest("/home/me/x/y") == f"{tmp_path}/deep/y"

    @pytest.mark.parametrize("path", ["/", "/home", "/home/meow", "/etc/passwd", "/home/me/../you", r"C:\x"])
    def test_outside(self, paths: HostPaths, path: str) -> None:
        with pytest.raises(InvalidArgument, match="is not shared from the host") as caught:
            paths.to_guest(path)
        assert str(caught.value).endswith(f"pybox config set shares /home/me,/home/me/x,{path}")

    def test_the_engines_socket_under_any_name(self, paths: HostPaths) -> None:
        for path in ("/var/run/docker.sock", "/run/docker.sock", "/home/me/.pybox/docker.sock"):
            assert paths.to_guest(path) == "/run/docker.sock"

    def test_the_guests_own(self, paths: HostPaths) -> None:
        assert paths.to_guest("/dev/null") == "/dev/null"
        assert paths.to_guest("/lib/modules") == "/lib/modules"
        with pytest.raises(InvalidArgument):
            paths.to_guest("/device")

    def test_links_are_the_users(self, paths: HostPaths, tmp_path: Path) -> None:
        home = tmp_path / "home"
        (home / "relative").symlink_to("project")
        (home / "absolute").symlink_to("/home/me/project")
        (home / "away").symlink_to("/etc")
        (home / "loop").symlink_to("loop")
        assert paths.to_guest("/home/me/relative/f") == f"{home}/project/f"
        assert paths.to_guest("/home/me/absolute/f") == f"{home}/project/f"
        for path in ("/home/me/away/passwd", "/home/me/loop"):
            with pytest.raises(InvalidArgument, match="Mounts denied"):
                paths.to_guest(path)

    @pytest.mark.parametrize(
        "path", [r"C:\Users\me\a b", "C:/Users/me/a b", "/c/Users/me/a b", "//c/Users/me/a b", r"c:\users\ME\a b"]
    )
    def test_windows(self, tmp_path: Path, path: str) -> None:
        paths = HostPaths([Share("users", r"C:\Users", "/c/Users")], str(tmp_path))
        assert paths.to_guest(path).removeprefix(str(tmp_path)).lower() == "/users/me/a b"

    def test_another_table(self, paths: HostPaths, tmp_path: Path) -> None:
        paths.replace([])
        with pytest.raises(InvalidArgument):
            paths.to_guest("/home/me")


async def collected(chunks: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    data = b"".join([chunk async for chunk in chunks])
    assert not data or data.endswith(b"\r\n")
    return [json.loads(line) for line in data.splitlines()]


class TestJobs:
    def test_messages(self) -> None:
        assert progress.message(Progress("Pulling")) == {"status": "Pulling"}
        assert progress.message(Progress("Waiting", "id")) == {"status": "Waiting", "progressDetail": {}, "id": "id"}
        assert progress.message(Progress("Downloading", "id", 5, 10)) == {
            "status": "Downloading",
            "progressDetail": {"current": 5, "total": 10},
            "id": "id",
        }

    def run(self, *steps: Any, held: int = 0) -> list[dict[str, Any]]:
        async def job(say: progress.Say) -> None:
            for step in steps:
                await asyncio.sleep(0)
                if isinstance(step, Exception):
                    raise step
                say({"status": step})

        def code_of(error: PyboxdError) -> int:
            return error.code if isinstance(error, BuildFailed) else 0

        return asyncio.run(collected(progress.stream(job, code_of, held)))

    def test_a_job_that_works(self) -> None:
        assert self.run("a", "b") == [{"status": "a"}, {"status": "b"}]
        assert self.run("a", held=1) == [{"status": "a"}]
        assert self.run() == []

    def test_a_failure_before_the_first_word_is_a_status(self) -> None:
        with pytest.raises(NotFound):
            self.run(NotFound("gone"))
        with pytest.raises(NotFound):
            self.run("says nothing yet", NotFound("gone"), held=1)

    def test_a_failure_after_it_is_in_the_stream(self) -> None:
        assert self.run("a", NotFound("gone"))[-1] == {"errorDetail": {"message": "gone"}, "error": "gone"}
        assert self.run(NotFound("gone"), held=-1)[-1]["error"] == "gone"
        assert self.run("a", BuildFailed("no", 9))[-1]["errorDetail"] == {"code": 9, "message": "no"}

    def test_a_bug_has_an_id_and_no_details(self) -> None:
        assert "internal error" in self.run("a", ValueError("secret"))[-1]["error"]
        assert "secret" not in self.run("a", ValueError("secret"))[-1]["error"]

    def test_a_client_that_leaves_ends_the_job(self) -> None:
        ended = []

        async def job(say: progress.Say) -> None:
            try:
                say({"status": "a"})
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        async def scenario() -> None:
            stream = progress.stream(job)
            await anext(stream)
            await cast(Any, stream).aclose()

        asyncio.run(scenario())
        assert ended == [True]


class TestLogins:
    @pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
    @pytest.mark.parametrize("padding", [True, False])
    def test_every_way_to_write_it(self, encode: Any, padding: bool) -> None:
        text = encode(json.dumps({"username": "ü?>", "password": "p"}).encode()).decode()
        found = registry.decode_auth(text if padding else text.rstrip("="))
        assert found == RegistryAuth("ü?>", "p")

    @pytest.mark.parametrize("text", ["", "e30=", "!!!", "bnVsbA=="])
    def test_none(self, text: str) -> None:
        assert registry.decode_auth(text) is None

    def test_by_registry(self) -> None:
        config = {"https://index.docker.io/v1/": {"username": "a", "password": "b"}, "localhost:5000": {}}
        text = base64.b64encode(json.dumps(config).encode()).decode()
        auth = build.decode_request(Query(""), text).auth
        assert auth("docker.io") == RegistryAuth("a", "b")
        assert auth("localhost:5000") is None


class TestImageQueries:
    def test_platforms(self) -> None:
        assert images.parse_platform("") == ""
        assert images.parse_platform("linux") == ""
        assert images.parse_platform("arm64") == "linux/arm64"
        assert images.parse_platform("linux/arm64/v8") == "linux/arm64/v8"
        with pytest.raises(InvalidArgument):
            images.parse_platform("a/b/c/d")


class TestBuild:
    def test_a_query_of_the_cli(self) -> None:
        query = Query(
            "t=a&t=b&dockerfile=D&q=1&nocache=1&rm=0&target=x&networkmode=host&shmsize=5&memory=6"
            "&buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&labels=%7B%22l%22%3A%22v%22%7D"
            "&cachefrom=%5B%22c%22%5D&extrahosts=h%3A1.2.3.4&version=1"
        )
        request = build.decode_request(query, "")
        assert (request.tags, request.dockerfile, request.quiet, request.no_cache) == (("a", "b"), "D", True, True)
        assert (request.remove, request.target, request.network, request.shm_size, request.memory) == (
            False, "x", "host", 5, 6,
        )  # fmt: skip
        assert (dict(request.args), dict(request.labels)) == ({"A": "1", "B": None}, {"l": "v"})
        assert (request.cache_from, request.extra_hosts) == (("c",), ("h:1.2.3.4",))

    @pytest.mark.parametrize("text", ["version=2", "remote=http%3A%2F%2Fx", "squash=1"])
    def test_what_is_not_here(self, text: str) -> None:
        with pytest.raises(NotImplementedHere):
            build.decode_request(Query(text), "")

    @pytest.mark.parametrize("text", ["buildargs=x", "buildargs=%5B%5D", "labels=%7B%22a%22%3A1%7D", "cachefrom=%7B%7D"])
    def test_wrong_json(self, text: str) -> None:
        with pytest.raises(InvalidArgument, match="error reading"):
            build.decode_request(Query(text), "")

    def test_messages(self) -> None:
        assert build.encode_output(BuildOutput("Step 1\n")) == {"stream": "Step 1\n"}
        assert build.encode_output(BuildOutput(image_id="sha256:1")) == {"aux": {"ID": "sha256:1"}}
        assert build.encode_output(BuildOutput(progress=Progress("x"))) == {"status": "x"}


def test_events_have_old_clients_fields() -> None:
    value = events.encode(Event("container", "die", "id", {"image": "i", "name": "n"}, 5_000_000_001))
    assert value == {
        "status": "die",
        "id": "id",
        "from": "i",
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "id", "Attributes": {"image": "i", "name": "n"}},
        "scope": "local",
        "time": 5,
        "timeNano": 5_000_000_001,
    }
    assert "status" not in events.encode(Event("network", "create", "id"))


def test_the_header_of_a_path() -> None:
    header = encode_stat(PathStat("f", 4, 0o640, 10**9, "/x"))
    assert json.loads(base64.b64decode(header)) == {
        "name": "f",
        "size": 4,
        "mode": 416,
        "mtime": "1970-01-01T00:00:01Z",
        "linkTarget": "/x",
    }


def test_pieces_from_a_thread() -> None:
    async def run(failing: bool) -> bytes:
        def pieces() -> Any:
            yield b"a" * 300_000
            yield b"b"
            if failing:
                raise OSError(5, "broken")

        return b"".join([piece async for piece in in_thread(pieces)])

    assert len(asyncio.run(run(False))) == 300_001
    with pytest.raises(SystemFailure, match="broken"):
        asyncio.run(run(True))
