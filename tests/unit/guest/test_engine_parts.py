"""Events, streams, the store, file trees, `docker cp` and links."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pyboxd.database import Database
from pyboxd.engine import archive, changes, commit, figures, links, mountpoints, streams, trees
from pyboxd.engine.binds import Binds
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Event, Events, matches
from pyboxd.engine.health import test_command as command_of
from pyboxd.engine.model import (
    ContainerConfig,
    EndpointConfig,
    Health,
    HealthResult,
    HostConfig,
    MountPoint,
    NetworkView,
    PortBinding,
    PortBindings,
    Record,
    State,
)
from pyboxd.engine.networking import Networking, dns_names, expand_port, parse_port, parse_range, write_files
from pyboxd.engine.store import Store, Volume
from pyboxd.engine.views import check_writable
from pyboxd.engine.volumes import Volumes
from pyboxd.errors import Conflict, InvalidArgument, NotFound, Unavailable
from pyboxd.frozen import replace
from pyboxd.image.builder.places import Root, open_plain
from pyboxd.image.tarread import TarError
from pyboxd.model import Healthcheck, ImageConfig
from pyboxd.network.model import Attachment as NetworkAttachment
from pyboxd.runtime.client import Attachment


def record(name: str = "box", **changes_: Any) -> Record:
    made = Record(name.ljust(64, "0"), name, 1, "sha256:1", "image", "linux", ContainerConfig(image="img"), HostConfig())
    return replace(made, **changes_)


class TestEvents:
    def test_past_then_new(self) -> None:
        async def scenario() -> None:
            now = iter(range(1, 100))
            events = Events(lambda: next(now))
            events.publish("container", "start", "a")
            events.publish("container", "die", "a")
            listener = events.listen({}, since=2)
            events.publish("image", "pull", "x")
            found = [(await anext(listener)).action for _ in range(2)]
            assert found == ["die", "pull"]
            assert events.listeners == 1
            await cast(Any, listener).aclose()

        asyncio.run(scenario())

    def test_until_in_the_past_ends(self) -> None:
        async def scenario() -> None:
            events = Events(lambda: 50)
            events.publish("container", "start", "a")
            assert [event.action async for event in events.listen({}, since=1, until=50)] == ["start"]
            assert [event async for event in events.listen({}, until=20)] == []

        asyncio.run(scenario())

    def test_only_the_latest_are_kept(self) -> None:
        events = Events()
        for number in range(300):
            events.publish("container", "start", str(number))

        async def first() -> Event:
            return await anext(events.listen({}, since=1))

        assert asyncio.run(first()).subject == "44"

    def test_attributes_of_containers(self) -> None:
        events = Events()
        events.container(record(config=ContainerConfig(image="img", labels=(("l", "v"),))), "die", exitCode="3")
        (event,) = events._ring
        assert event.attributes == {"l": "v", "image": "img", "name": "box", "exitCode": "3"}

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, True),
            ({"type": ("container",)}, True),
            ({"type": ("image", "network")}, False),
            ({"event": ("exec_create",)}, True),
            ({"event": ("exec_create: ls",)}, True),
            ({"event": ("exec",)}, False),
            ({"container": ("abc",)}, True),
            ({"container": ("web",)}, True),
            ({"container": ("we",)}, False),
            ({"image": ("busybox",)}, True),
            ({"image": ("busybox:latest",)}, True),
            ({"image": ("busy",)}, False),
            ({"label": ("a=1", "b")}, True),
            ({"label": ("a=1", "c")}, False),
            ({"network": ("abc",)}, False),
            ({"type": ("container",), "event": ("die",)}, False),
            ({"scope": ("local",)}, True),
        ],
    )
    def test_filters(self, filters: dict[str, tuple[str, ...]], expected: bool) -> None:
        attributes = {"name": "web", "image": "busybox:latest", "a": "1", "b": "2"}
        assert matches(Event("container", "exec_create: ls", "abcdef", attributes), filters) is expected


class FakeAttachment:
    def __init__(self, output: list[tuple[int, bytes]]) -> None:
        self.output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        for item in output:
            self.output.put_nowait(item)
        self.written = b""
        self.stdin_closed = False
        self.closed = False

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self.output.get()) is not None:
            yield item

    async def write(self, data: bytes) -> None:
        self.written += data
        if data.endswith(b"quit"):
            self.output.put_nowait(None)

    async def close_stdin(self) -> None:
        self.stdin_closed = True
        self.output.put_nowait(None)

    async def close(self) -> None:
        self.closed = True


class FakeClient:
    def __init__(self, *typed: bytes) -> None:
        self._typed = [*typed]
        self.seen: list[bytes] = []

    async def read(self) -> bytes:
        return self._typed.pop(0) if self._typed else b""

    async def write(self, data: bytes) -> None:
        self.seen.append(data)


def joined(client: FakeClient, attachment: FakeAttachment, stdin: bool, keys: bytes | None) -> bool:
    def encode(stream: int, data: bytes) -> bytes:
        return b"%d:%s" % (stream, data)

    return asyncio.run(streams.join(client, cast(Attachment, attachment), encode, stdin, keys))


class TestStreams:
    def test_both_ways_until_the_output_ends(self) -> None:
        client, attachment = FakeClient(b"in", b"put"), FakeAttachment([(1, b"out"), (2, b"err")])
        assert joined(client, attachment, True, None) is False
        assert client.seen == [b"1:out", b"2:err"]
        assert (attachment.written, attachment.stdin_closed, attachment.closed) == (b"input", True, True)

    def test_a_terminals_input_is_not_closed(self) -> None:
        client, attachment = FakeClient(b"quit"), FakeAttachment([])
        assert joined(client, attachment, True, b"\x10\x11") is False
        assert not attachment.stdin_closed

    def test_detach_keys(self) -> None:
        client, attachment = FakeClient(b"ls\x10", b"\x11more"), FakeAttachment([])
        assert joined(client, attachment, True, b"\x10\x11") is True
        assert (attachment.written, attachment.closed) == (b"ls", True)

    @pytest.mark.parametrize(
        ("typed", "passed", "detached"),
        [
            ([b"abc"], b"abc", False),
            ([b"\x10", b"\x11"], b"", True),
            ([b"\x10", b"x"], b"\x10x", False),
            ([b"\x10\x10\x11x"], b"\x10", True),
            ([b"\x10\x10\x10"], b"\x10\x10", False),
        ],
    )
    def test_the_filter(self, typed: list[bytes], passed: bytes, detached: bool) -> None:
        found = streams.DetachFilter(b"\x10\x11")
        assert b"".join(found.feed(part) for part in typed) == passed
        assert found.detached is detached

    def test_names_of_keys(self) -> None:
        assert streams.parse_detach_keys("") == b"\x10\x11"
        assert streams.parse_detach_keys("ctrl-A,q,ctrl-[") == b"\x01q\x1b"
        with pytest.raises(InvalidArgument, match="Invalid detach keys"):
            streams.parse_detach_keys("ctrl-5")


class TestStore:
    def test_a_container_comes_back_as_it_was(self) -> None:
        database = Database(":memory:")
        whole = record(
            config=ContainerConfig(
                image="i", cmd=("a",), entrypoint=None, labels=(("k", "v"),), healthcheck=Healthcheck(("CMD", "x"))
            ),
            host=HostConfig(port_bindings=(PortBindings("80/tcp", (PortBinding("", "8080"),)),), init=False),
            endpoints=(EndpointConfig("bridge", aliases=("x",)),),
            mounts=(MountPoint("volume", "/data", name="v"),),
            state=State("running", 5, health=Health("healthy", 0, (HealthResult(1, 2, 0, "ok"),))),
        )
        Store(database).save_container(whole)
        assert Store(database).containers() == [whole]

    def test_names_are_unique_on_the_disk_too(self) -> None:
        store = Store(Database(":memory:"))
        store.save_container(record())
        with pytest.raises(Exception, match="UNIQUE"):
            store.save_container(replace(record(), id="other"))

    def test_volumes(self) -> None:
        store = Store(Database(":memory:"))
        volume = Volume("v", 5, (("a", "b"),), (("type", "tmpfs"),), anonymous=True)
        store.add_volume(volume)
        assert store.volumes() == [volume]
        store.remove_volume("v")
        assert store.volumes() == []


class TestVolumes:
    def make(self, folder: Path, *users: str) -> Volumes:
        temporary = folder / "tmp"
        temporary.mkdir()
        store = Store(Database(":memory:"))
        return Volumes(store, Events(), lambda name: users, str(folder / "volumes"), str(temporary))

    def test_create_is_idempotent(self, tmp_path: Path) -> None:
        volumes = self.make(tmp_path)
        first = volumes.create("data", labels={"a": "b"})
        assert volumes.create("data") is first
        assert Path(volumes.path("data")).is_dir()
        assert volumes.create().anonymous
        assert len(volumes.list()) == 2

    def test_refusals(self, tmp_path: Path) -> None:
        volumes = self.make(tmp_path, "user")
        with pytest.raises(NotFound, match="get none: no such volume"):
            volumes.get("none")
        with pytest.raises(NotFound, match="volume plugin nfs"):
            volumes.create("a1", "nfs")
        with pytest.raises(InvalidArgument, match='invalid option: "x"'):
            volumes.create("a1", options={"x": "y"})
        volumes.create("used")
        with pytest.raises(Conflict, match=r"remove used: volume is in use - \[user\]"):
            asyncio.run(volumes.remove("used"))

    def test_remove_and_prune(self, tmp_path: Path) -> None:
        volumes = self.make(tmp_path)
        volumes.create("one")
        asyncio.run(volumes.remove("one"))
        asyncio.run(volumes.remove("one", force=True))
        assert not Path(tmp_path / "volumes" / "one").exists()
        assert list((tmp_path / "tmp").iterdir()) == []
        anonymous = volumes.create()
        volumes.create("named")
        Path(volumes.path(anonymous.name), "file").write_bytes(b"12345")
        assert asyncio.run(volumes.prune(lambda volume: volume.anonymous)) == ((anonymous.name,), 5)
        assert [volume.name for volume in volumes.list()] == ["named"]

    def test_a_removal_that_was_broken_off_is_no_volumes_content(self, tmp_path: Path) -> None:
        """The row is gone, some of the files are not: the next volume of that name is empty."""
        left = tmp_path / "volumes" / "data" / "_data"
        left.mkdir(parents=True)
        (left / "old").touch()
        volumes = self.make(tmp_path)
        volumes.create("data")
        assert os.listdir(volumes.path("data")) == []

    def test_a_new_volume_of_the_name_outlives_the_removal(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            volumes.create("data")
            removal = asyncio.create_task(volumes.remove("data"))
            await asyncio.sleep(0)
            volumes.create("data")
            await removal
            assert Path(volumes.path("data")).is_dir()

        volumes = self.make(tmp_path)
        asyncio.run(scenario())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "file").write_text("text")
    (top / "file").chmod(0o640)
    (top / "sub" / "deep" / "x").write_text("deep")
    os.link(top / "file", top / "sub" / "hard")
    (top / "link").symlink_to("sub/deep")
    (top / "outside").symlink_to("/etc/passwd")
    os.mkfifo(top / "pipe")
    return top


class TestTrees:
    def test_fill_an_empty_directory(self, tree: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.mkdir()
        descriptor = os.open(tree, os.O_RDONLY)
        trees.fill_empty(descriptor, str(target))
        assert (target / "sub/deep/x").read_text() == "deep"
        assert (target / "link").readlink() == Path("sub/deep")
        assert stat.S_IMODE((target / "file").stat().st_mode) == 0o640
        assert (target / "file").stat().st_ino == (target / "sub/hard").stat().st_ino
        assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
        (target / "file").unlink()
        trees.fill_empty(descriptor, str(target))
        assert not (target / "file").exists(), "a directory with something in it is left alone"
        os.close(descriptor)

    def test_size_counts_a_file_once(self, tree: Path) -> None:
        assert trees.tree_size(str(tree)) == 8
        assert trees.tree_size(str(tree / "none")) == 0

    def test_remove(self, tree: Path) -> None:
        trees.remove_tree(str(tree))
        assert not tree.exists()
        trees.remove_tree(str(tree))
        trees.remove_tree("/nowhere/at/all")

    def test_a_tree_deeper_than_a_stack(self, tmp_path: Path) -> None:
        os.mkdir(tmp_path / "top")
        here = os.open(tmp_path / "top", os.O_RDONLY)
        for _ in range(1050):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        assert trees.tree_size(str(tmp_path / "top")) == 0
        trees.remove_tree(str(tmp_path / "top"))
        assert not (tmp_path / "top").exists()


@contextmanager
def opened(path: Path) -> Any:
    with open_plain(str(path)) as root:
        yield root


def members(root: Root, path: str) -> dict[str, tarfile.TarInfo]:
    data = b"".join(archive.write(root, path, "c"))
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return {info.name: info for info in file.getmembers()}


def tar(*entries: tuple[str, bytes | None, str]) -> bytes:
    """(name, content, link): a file, or a directory (None), or a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content, link in entries:
            info = tarfile.TarInfo(name)
            info.uid, info.gid = os.getuid(), os.getgid()
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
                file.addfile(info)
            elif content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return out.getvalue()


class TestArchive:
    def test_status(self, tree: Path) -> None:
        with opened(tree) as root:
            found = archive.status(root, "/file", "c")
            assert (found.name, found.size, found.mode) == ("file", 4, 0o640)
            assert archive.status(root, "sub/", "c").mode & (1 << 31)
            link = archive.status(root, "/link", "c")
            assert (link.link_target, bool(link.mode & (1 << 27))) == ("/sub/deep", True)
            assert archive.status(root, "/", "c").name == "/"
            with pytest.raises(NotFound, match="Could not find the file /none in container c"):
                archive.status(root, "/none", "c")
            with pytest.raises(NotFound):
                archive.status(root, "/file/x", "c")

    def test_links_do_not_lead_out(self, tree: Path) -> None:
        (tree / "away").symlink_to("/")
        with opened(tree) as root:
            assert set(members(root, "/away/sub/deep")) == {"deep", "deep/x"}
            assert members(root, "/outside")["outside"].issym()

    def test_names_of_members(self, tree: Path) -> None:
        with opened(tree) as root:
            assert set(members(root, "/sub")) == {"sub", "sub/deep", "sub/deep/x", "sub/hard"}
            assert set(members(root, "/link/.")) == {".", "./x"}
            assert set(members(root, "/link")) == {"link"}
            assert set(members(root, "/file")) == {"file"}
            whole = members(root, "/.")
            assert whole["./sub/hard"].islnk() or whole["./file"].islnk()
            assert whole["./pipe"].isfifo()

    def test_unpack(self, tree: Path) -> None:
        data = tar(("new", None, ""), ("new/a", b"1", ""), ("link/b", b"2", ""))
        with opened(tree) as root:
            archive.unpack(root, "/", iter([data]), None, keep_kinds=True)
        assert (tree / "new/a").read_bytes() == b"1"
        assert (tree / "sub/deep/b").read_bytes() == b"2"

    def test_unpack_stays_inside(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "victim").mkdir()
        (tree / "out").symlink_to(tmp_path / "victim")
        with opened(tree) as root:
            archive.unpack(root, "/", iter([tar(("out/x", b"1", ""))]), None, keep_kinds=False)
            with pytest.raises(TarError):
                archive.unpack(root, "/", iter([tar(("../x", b"1", ""))]), None, keep_kinds=False)
        assert list((tmp_path / "victim").iterdir()) == []

    def test_kinds_are_kept(self, tree: Path) -> None:
        with opened(tree) as root:
            with pytest.raises(InvalidArgument, match="cannot overwrite directory"):
                archive.unpack(root, "/", iter([tar(("sub", b"1", ""))]), None, keep_kinds=True)
            with pytest.raises(InvalidArgument, match="cannot overwrite non-directory"):
                archive.unpack(root, "/", iter([tar(("file", None, ""))]), None, keep_kinds=True)

    def test_the_place_of_a_directory(self, tree: Path) -> None:
        with opened(tree) as root:
            assert archive.resolve_directory(root, "/link", "c") == "/sub/deep"
            with pytest.raises(InvalidArgument, match="extraction point is not a directory"):
                archive.resolve_directory(root, "/file", "c")
            with pytest.raises(NotFound):
                archive.resolve_directory(root, "/none", "c")

    def test_what_is_read_only(self) -> None:
        readonly = record(host=HostConfig(readonly_rootfs=True), mounts=(MountPoint("volume", "/data", writable=True),))
        check_writable(readonly, "/data/x")
        with pytest.raises(InvalidArgument, match="rootfs is marked read-only"):
            check_writable(readonly, "/database")
        with pytest.raises(InvalidArgument, match="volume is marked read-only"):
            check_writable(record(mounts=(MountPoint("bind", "/a", writable=False),)), "/a/b")


class TestBinds:
    """Where a bind's source is, and what happens when the server of shared folders does not answer."""

    class Paths:
        def __init__(self, work: Callable[[str], str]) -> None:
            self._work = work

        def to_guest(self, path: str) -> str:
            return self._work(path)

    def test_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        binds = Binds(self.Paths(lambda path: f"{tmp_path}{path}"))
        assert asyncio.run(binds.source(MountPoint("bind", "/x", "/"))) == (f"{tmp_path}/", True)
        assert asyncio.run(binds.source(MountPoint("bind", "/x", "/file"))) == (f"{tmp_path}/file", False)

    @pytest.mark.parametrize("create", [True, False])
    def test_what_is_not_there_is_made_in_shared_folders_only(self, tmp_path: Path, create: bool) -> None:
        binds = Binds(self.Paths(lambda path: f"{tmp_path}{path}"))
        with pytest.raises(InvalidArgument, match="bind source path does not exist: /none"):
            asyncio.run(binds.source(MountPoint("bind", "/x", "/none", create_source=create)))
        assert not (tmp_path / "none").exists()

    def test_a_folder_that_does_not_answer(self) -> None:
        released = threading.Event()

        def hang(path: str) -> str:
            released.wait(30)
            return path

        async def scenario() -> None:
            binds = Binds(self.Paths(hang), patience=0.05)
            for _ in range(20):
                with pytest.raises(Unavailable, match="the shared folder of /a does not answer"):
                    await binds.check(MountPoint("bind", "/x", "/a"))
            assert sum(thread.name == "folder" for thread in threading.enumerate()) == 16
            released.set()
            while any(thread.name == "folder" for thread in threading.enumerate()):
                await asyncio.sleep(0.01)

        asyncio.run(scenario())

    def test_what_comes_too_late_is_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        released = threading.Event()

        def fail(path: str) -> str:
            released.wait(30)
            raise ZeroDivisionError(path)

        async def scenario() -> None:
            with pytest.raises(Unavailable):
                await Binds(self.Paths(fail), patience=0.05).check(MountPoint("bind", "/x", "/a"))
            released.set()
            while not caplog.records:
                await asyncio.sleep(0.01)

        asyncio.run(scenario())
        assert "shared folder of /a answered too late" in caplog.text and "ZeroDivisionError: /a" in caplog.text


class TestMountPoints:
    def test_only_what_the_image_lacks(self, tmp_path: Path) -> None:
        image = tmp_path / "image"
        (image / "etc").mkdir(parents=True)
        (image / "etc").chmod(0o711)
        (image / "proc").mkdir()
        (image / "etc/hosts").symlink_to("elsewhere")
        assert mountpoints.make((str(image),), str(tmp_path / "places"))
        made = {str(path.relative_to(tmp_path / "places")) for path in (tmp_path / "places").rglob("*")}
        assert made == {"dev", "sys", "etc", "etc/hostname", "etc/resolv.conf", ".dockerenv"}
        assert stat.S_IMODE((tmp_path / "places/etc").stat().st_mode) == 0o711

    def test_an_image_that_has_everything(self, tmp_path: Path) -> None:
        for name in ("dev", "proc", "sys", "etc"):
            (tmp_path / "image" / name).mkdir(parents=True)
        for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"):
            (tmp_path / "image" / name).touch()
        assert not mountpoints.make((str(tmp_path / "image"),), str(tmp_path / "places"))

    def test_from_scratch(self, tmp_path: Path) -> None:
        assert mountpoints.make((), str(tmp_path / "places"))
        assert (tmp_path / "places/etc/resolv.conf").is_file()


def test_changes(tmp_path: Path, tree: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "sub").mkdir(parents=True)
    (upper / "sub" / "new").touch()
    (upper / "file").touch()
    with opened(tree) as root:
        found = changes.changes(str(upper), root)
    assert [(change.path, change.kind) for change in found] == [("/file", 0), ("/sub", 0), ("/sub/new", 1)]


class TestPorts:
    def test_texts(self) -> None:
        assert parse_port("80") == (80, "tcp")
        assert parse_port("53/UDP") == (53, "udp")
        assert parse_range("8000-8010") == (8000, 8010)
        assert parse_range("") == (0, 0)
        assert expand_port("7000-7001/udp") == [(7000, "udp"), (7001, "udp")]

    @pytest.mark.parametrize("text", ["0", "70000", "x", "80/icmp", ""])
    def test_wrong(self, text: str) -> None:
        with pytest.raises(InvalidArgument):
            parse_port(text)
        if text:
            with pytest.raises(InvalidArgument):
                parse_range("9-8")


def test_names_in_a_network() -> None:
    made = record(config=ContainerConfig(hostname="h"))
    assert dns_names(made, EndpointConfig("own", aliases=("a", "box")), "own") == ("box", "a", "box000000000", "h")
    assert dns_names(made, EndpointConfig("bridge"), "bridge") == ()


def test_the_hosts_file_has_a_line_for_each_address(tmp_path: Path) -> None:
    both = NetworkAttachment("c", "/n", "i", "own", "e", "172.18.0.2", 16, address6="fd00:6::2", prefix6=64)
    places = [
        both,
        NetworkAttachment("c", "/n", "i", "four", "e", "172.19.0.2", 16),
        NetworkAttachment("c", "/n", "i", "none", "e"),
    ]
    write_files(record(config=ContainerConfig(hostname="web")), str(tmp_path), places)
    lines = (tmp_path / "hosts").read_text().splitlines()
    assert lines[-3:] == ["172.18.0.2\tweb", "fd00:6::2\tweb", "172.19.0.2\tweb"]


class FakeNetworking:
    def views(self, of: Record) -> tuple[NetworkView, ...]:
        address = "172.17.0.9" if of.name == "db" else ""
        return (NetworkView("bridge", EndpointConfig("bridge"), address=address),)


class TestLinks:
    def containers(self) -> Containers:
        table = Containers(Store(Database(":memory:")))
        for name, ports in (("db", ("5432/tcp",)), ("dead", ())):
            table.reserve(name)
            table.add(record(name, config=ContainerConfig(exposed_ports=ports, env=("A=1", "PATH=/x"))))
        return table

    def linked(self, *texts: str) -> Record:
        return record(host=HostConfig(network_mode="bridge", links=texts), endpoints=(EndpointConfig("bridge"),))

    def test_hosts_and_variables(self) -> None:
        web = self.linked("/db:/box/my-db")
        found = links.resolve(web, self.containers(), cast(Networking, FakeNetworking()))
        assert links.host_lines(found) == [(name, "172.17.0.9") for name in ("my-db", "db0000000000", "db")]
        assert links.variables(web, found) == (
            "MY_DB_NAME=/box/my-db",
            "MY_DB_PORT=tcp://172.17.0.9:5432",
            "MY_DB_PORT_5432_TCP=tcp://172.17.0.9:5432",
            "MY_DB_PORT_5432_TCP_ADDR=172.17.0.9",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_ENV_A=1",
        )

    def test_one_that_does_not_run(self) -> None:
        with pytest.raises(InvalidArgument, match="Cannot link to a non running container: /dead AS /box/x"):
            links.resolve(self.linked("dead:x"), self.containers(), cast(Networking, FakeNetworking()))

    def test_removing_one(self) -> None:
        container = Container(self.linked("db:a", "db:b"))
        assert links.without(container, "a") == ("db:b",)
        with pytest.raises(NotFound):
            links.without(container, "c")


def test_commands_of_health_checks() -> None:
    assert command_of(None, None) is None
    assert command_of(Healthcheck(("NONE",)), None) is None
    assert command_of(Healthcheck(("CMD", "a", "b")), None) == ("a", "b")
    assert command_of(Healthcheck(("CMD-SHELL", "a b")), None) == ("/bin/sh", "-c", "a b")
    assert command_of(Healthcheck(("CMD-SHELL", "a b")), ("bash", "-c")) == ("bash", "-c", "a b")


def test_changes_of_a_commit() -> None:
    config = commit.with_changes(ImageConfig(env=("A=1",)), ["ENV B=$A", 'CMD ["x"]', "expose 80"])
    assert config.env == ("A=1", "B=1")
    assert config.cmd == ("x",)
    assert config.exposed_ports == ("80/tcp",)
    with pytest.raises(InvalidArgument, match="RUN is not a valid change command"):
        commit.with_changes(ImageConfig(), ["RUN x"])


class TestTop:
    def test_columns(self) -> None:
        assert figures.titles("")[1] == "PID"
        assert figures.titles("aux")[0] == "USER"
        assert list(figures.titles("-o pid,comm")) == ["PID", "COMMAND"]
        with pytest.raises(InvalidArgument, match="Couldn't find PID field"):
            figures.titles("-o comm")

    def test_this_process(self) -> None:
        row = figures.process_row(os.getpid())
        assert row is not None
        assert (row["PID"], row["PPID"]) == (str(os.getpid()), str(os.getppid()))
        assert "python" in row["CMD"] or "pytest" in row["CMD"]
