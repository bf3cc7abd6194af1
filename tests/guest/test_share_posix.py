"""A shared folder through the real relay, the real server and the kernel's FUSE client. Needs root and /dev/fuse."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyboxd.boot import relay
from pyboxd.linux import constants as k
from pyboxd.linux import namespaces
from pyboxd.linux.mount import mount, umount2

NOBODY = 65534
_hidden = False  # the mounts of this process are seen by nobody else

share_server = pytest.importorskip("pybox.share.server")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and the kernel's FUSE client"
)


@dataclass(frozen=True)
class Folder:
    """One shared folder, from both sides."""

    host: Path
    guest: Path
    readonly: Path  # the guest's view of the same folder, shared again as read-only
    server: int  # pid


def _hide_mounts() -> None:
    global _hidden
    if not _hidden:
        namespaces.unshare(k.CLONE_NEWNS)
        mount("none", "/", "", k.MS_REC | k.MS_PRIVATE)
        _hidden = True


def _as_user(uid: int, gid: int, work: Callable[[], object]) -> int:
    """Fork (a user may not reach this interpreter's files); the child's pid."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            work()
        except BaseException as error:  # noqa: BLE001 - nothing may get back into the tests
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(0)
    return child


def _serve(place: Path, user: int) -> Iterator[Folder]:
    _hide_mounts()
    host, point = place / "host", place / "guest"
    host.mkdir()
    place.chmod(0o755)
    os.chown(host, user, user)
    config = place / "shares.json"
    shares = [
        {"name": name, "host_path": str(host), "guest_path": str(host), "readonly": name == "ro"} for name in ("rw", "ro")
    ]
    config.write_text(json.dumps({"shares": shares}))
    address = str(place / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        os.chmod(address, 0o777)
        listener.listen()
        arguments = ["--socket", address, "--config", str(config)]
        server = _as_user(user, user, lambda: share_server.main(arguments))
        listener.settimeout(30)
        port, _ = listener.accept()
    port.setblocking(True)
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    relay.attach(fuse, str(point))
    carrier = _as_user(0, 0, lambda: relay.run(fuse, port.fileno()))
    os.close(fuse)
    port.close()
    try:
        yield Folder(host, point / "rw", point / "ro", server)
    finally:
        umount2(str(point), k.MNT_DETACH)
        for process in (server, carrier):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


@pytest.fixture(scope="module", params=[0, NOBODY], ids=["root", "user"])
def served(request: pytest.FixtureRequest) -> Iterator[Folder]:
    place = Path(f"/tmp/share-test-{os.getpid()}-{request.param}")
    place.mkdir()
    try:
        yield from _serve(place, request.param)
    finally:
        shutil.rmtree(place)


@pytest.fixture
def folder(served: Folder, request: pytest.FixtureRequest) -> Folder:
    """A new folder for every test."""
    name = request.node.name.replace("/", "_")
    (served.guest / name).mkdir()
    return Folder(served.host / name, served.guest / name, served.readonly / name, served.server)


def refused(number: int) -> AbstractContextManager[object]:
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_both_sides_see_each_others_files(folder: Folder) -> None:
    (folder.host / "from host").write_bytes(b"h" * 5000)
    (folder.guest / "from guest").write_bytes(b"g" * 5000)
    assert (folder.guest / "from host").read_bytes() == b"h" * 5000
    assert (folder.host / "from guest").read_bytes() == b"g" * 5000
    assert sorted(os.listdir(folder.guest)) == ["from guest", "from host"]


def test_the_top_shows_the_shares_and_takes_nothing(served: Folder) -> None:
    top = served.guest.parent
    assert sorted(os.listdir(top)) == ["ro", "rw"]
    with pytest.raises(PermissionError):
        (top / "new").mkdir()
    with pytest.raises(FileNotFoundError):
        (top / "other").stat()


def test_hosts_changes_are_seen_soon(folder: Folder) -> None:
    path = folder.guest / "file"
    (folder.host / "file").write_text("one")
    assert path.read_text() == "one"
    (folder.host / "file").write_text("two, longer")
    until(lambda: path.read_text() == "two, longer")
    (folder.host / "new").write_text("three")
    os.rename(folder.host / "new", folder.host / "file")  # as editors save
    until(lambda: path.read_text() == "three")
    os.unlink(folder.host / "file")
    until(lambda: not path.exists())
    (folder.host / "file").mkdir()
    until(path.is_dir)
    for target in ("one", "two"):
        os.symlink(target, folder.host / "new")
        os.rename(folder.host / "new", folder.host / "link")
        until(lambda target=target: os.path.islink(folder.guest / "link") and os.readlink(folder.guest / "link") == target)  # type: ignore[misc]
    for number in range(30):
        (folder.host / f"d{number}" / "a").mkdir(parents=True)
        assert os.listdir(folder.guest / f"d{number}") == ["a"]
        (folder.host / f"d{number}" / "b").mkdir()  # within the same tick of the host's clock
    until(lambda: all(len(os.listdir(folder.guest / f"d{number}")) == 2 for number in range(30)))


def test_open_file_stays_the_one_that_was_opened(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_text("old")
    with path.open() as opened:
        assert opened.read() == "old"
        (folder.host / "new").write_text("different")
        os.rename(folder.host / "new", folder.host / "file")
        until(lambda: path.read_text() == "different")
        assert os.fstat(opened.fileno()).st_size == 3


def test_rename(folder: Folder) -> None:
    one, two = folder.guest / "one", folder.guest / "two"
    one.write_text("1")
    two.write_text("22")
    with two.open() as replaced:
        os.rename(one, two)
        assert replaced.read() == "22" and two.read_text() == "1"
    assert os.listdir(folder.host) == ["two"]
    (folder.guest / "d" / "e").mkdir(parents=True)
    inside = folder.guest / "d" / "e" / "f"
    inside.write_text("x")
    with inside.open("a") as opened:
        os.rename(folder.guest / "d", folder.guest / "moved")
        opened.write("y")
    assert (folder.guest / "moved" / "e" / "f").read_text() == "xy"
    os.link(two, folder.guest / "three")
    os.rename(two, folder.guest / "three")  # names of one file: nothing happens
    assert sorted(os.listdir(folder.host)) == ["moved", "three", "two"]
    with refused(errno.ENOTEMPTY):
        os.rmdir(folder.guest / "moved")
    with refused(errno.EXDEV):
        os.rename(two, folder.readonly / "two")


def test_unlinked_file_lives_while_it_is_open(folder: Folder) -> None:
    path = folder.guest / "file"
    with path.open("w+") as opened:
        opened.write("before")
        opened.flush()
        path.unlink()
        assert os.listdir(folder.host) == []
        opened.write(" after")
        opened.flush()
        opened.seek(0)
        assert opened.read() == "before after"
        assert os.fstat(opened.fileno()).st_nlink == 0
        os.fchmod(opened.fileno(), 0o600)
        os.ftruncate(opened.fileno(), 3)
        assert os.fstat(opened.fileno()).st_size == 3


def test_read_only_file_can_be_filled_by_who_made_it(folder: Folder) -> None:
    descriptor = os.open(folder.guest / "object", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    os.write(descriptor, b"content")
    os.close(descriptor)
    assert (folder.host / "object").read_bytes() == b"content"
    assert (folder.host / "object").stat().st_mode & 0o777 == 0o444


def test_program_written_by_the_guest_runs_on_the_host(folder: Folder) -> None:
    shutil.copy("/bin/true", folder.guest / "true")

    def runs() -> bool:
        try:
            return subprocess.run([folder.host / "true"]).returncode == 0
        except OSError as error:
            assert error.errno == errno.ETXTBSY
            return False

    until(runs)
    assert subprocess.run([folder.guest / "true"]).returncode == 0


def test_links(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_text("x")
    os.link(path, folder.guest / "hard")
    os.symlink("file", folder.guest / "soft")
    os.symlink("nowhere", folder.guest / "dangling")
    assert path.stat().st_nlink == 2 and os.path.samefile(path, folder.guest / "hard")
    (folder.guest / "hard").write_text("both")
    assert path.read_text() == "both" == (folder.guest / "soft").read_text()
    path.unlink()
    assert (folder.guest / "hard").stat().st_nlink == 1
    assert os.readlink(folder.guest / "dangling") == "nowhere" == os.readlink(folder.host / "dangling")
    assert not (folder.guest / "dangling").exists()


def test_truncate_and_append(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_bytes(b"0123456789")
    os.truncate(path, 4)
    with path.open("ab") as file:
        file.write(b"end")
    assert path.read_bytes() == b"0123end" == (folder.host / "file").read_bytes()
    os.truncate(path, 10)
    assert path.read_bytes() == b"0123end\0\0\0"
    path.write_bytes(b"")
    assert path.stat().st_size == 0


def test_both_sides_append_to_one_file(folder: Folder) -> None:
    with (folder.guest / "log").open("ab", buffering=0) as guest, (folder.host / "log").open("ab", buffering=0) as host:
        for number in range(50):
            guest.write(b"g%02d\n" % number)
            host.write(b"h%02d\n" % number)
    lines = (folder.host / "log").read_bytes().split()
    assert lines == [line for number in range(50) for line in (b"g%02d" % number, b"h%02d" % number)]
    until(lambda: (folder.guest / "log").read_bytes().split() == lines)


def test_open_file_is_written_whatever_its_mode_has_become(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_text("x")
    made = [os.open(folder.guest / f"{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444) for number in range(400)]
    with path.open("r+b", buffering=0) as file:
        path.chmod(0o400)
        file.write(b"yy")
    for descriptor in made:
        os.write(descriptor, b"content")
        os.close(descriptor)
    assert path.read_bytes() == b"yy" and path.stat().st_mode & 0o777 == 0o400
    assert {(folder.host / str(number)).read_bytes() for number in range(400)} == {b"content"}
    program = os.open(folder.guest / "program", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o555)
    os.write(program, b"one")
    time.sleep(2.5)  # by now the server has closed it, for the host to be able to run it
    os.write(program, b"two")
    os.close(program)
    assert (folder.host / "program").read_bytes() == b"onetwo"
    assert (folder.host / "program").stat().st_mode & 0o777 == 0o555


def test_truncating_heeds_the_mode(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_text("x")
    path.chmod(0o444)
    if path.stat().st_uid == 0:
        path.write_text("root may")
        return
    for action in (lambda: path.write_text("y"), lambda: os.truncate(path, 0)):
        with refused(errno.EACCES):
            action()
    assert path.read_text() == "x"


def test_access(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_text("x")
    path.chmod(0o444)
    assert os.access(path, os.R_OK | os.W_OK)  # root's view: he may chmod it
    assert not os.access(path, os.X_OK)
    assert not os.access(folder.readonly / "file", os.W_OK) and os.access(folder.readonly / "file", os.R_OK)
    path.chmod(0o755)
    assert os.access(path, os.X_OK) and os.access(folder.guest, os.X_OK | os.W_OK)
    assert os.access(folder.guest.parent.parent, os.X_OK) and not os.access(folder.guest.parent.parent, os.W_OK)


def test_copy_on_the_host(folder: Folder) -> None:
    data = os.urandom(3 << 20)
    (folder.guest / "one").write_bytes(data)
    with (folder.guest / "one").open("rb") as one, (folder.guest / "two").open("w+b") as two:
        two.write(b"before")
        two.flush()
        copied = 0
        while copied < len(data):
            copied += os.copy_file_range(one.fileno(), two.fileno(), len(data), copied, 6 + copied)
        two.seek(0)
        assert two.read() == b"before" + data
    with (folder.guest / "one").open("rb") as one, (folder.readonly / "two").open("r+b") as two, refused(errno.EROFS):
        os.copy_file_range(one.fileno(), two.fileno(), 10, 0, 0)


def test_memory_maps(folder: Folder) -> None:
    path = folder.guest / "file"
    path.write_bytes(bytes(3 * 4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[4000:4200] = b"m" * 200
        memory.flush()
        assert (folder.host / "file").read_bytes()[4000:4200] == b"m" * 200
        assert memory[0:4] == bytes(4)


def test_locks_are_kept_in_the_guest(folder: Folder) -> None:
    path = folder.guest / "lock"
    path.touch()
    script = "import fcntl,sys; f=open(sys.argv[1],'r+'); {}(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    for call in ("flock", "lockf"):
        with path.open("r+") as file:
            getattr(fcntl, call)(file, fcntl.LOCK_EX)
            other = [sys.executable, "-c", script.format(f"fcntl.{call}"), str(path)]
            assert subprocess.run(other, stderr=subprocess.DEVNULL).returncode != 0
        assert subprocess.run(other).returncode == 0


def test_more_than_4_gib(folder: Folder) -> None:
    size = (5 << 30) + 12345
    path = folder.guest / "big"
    with path.open("w+b") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
        file.flush()
        assert path.stat().st_size == size
        file.seek(size - 5)
        assert file.read() == b"\0\0end"
        assert path.stat().st_blocks < 4096
        hole = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        assert 0 < hole <= size - 3
    assert (folder.host / "big").stat().st_size == size
    path.unlink()


def test_ten_thousand_entries(folder: Folder) -> None:
    for number in range(10_000):
        (folder.host / f"name {number}").touch()
    found = os.listdir(folder.guest)
    assert len(found) == len(set(found)) == 10_000
    with os.scandir(folder.guest) as entries:
        assert sum(entry.stat().st_size == 0 for entry in entries) == 10_000
    shutil.rmtree(folder.guest)
    assert not folder.host.exists()


def test_deletion_while_listing(folder: Folder) -> None:
    for number in range(500):
        (folder.host / str(number)).touch()
    with os.scandir(folder.guest) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(folder.host) == []


@pytest.mark.parametrize(
    "name", [b"\xff\xfe not utf-8", "ü".encode(), b'quote " and \\', b"new\nline", b"x" * 255, b"-", b"..."]
)
def test_odd_names(folder: Folder, name: bytes) -> None:
    path = os.path.join(os.fsencode(folder.guest), name)
    with open(path, "wb") as file:
        file.write(name)
    assert os.listdir(os.fsencode(folder.host)) == [name] == os.listdir(os.fsencode(folder.guest))
    os.rename(path, path[:-1] + b"y")
    os.unlink(path[:-1] + b"y")


def test_name_that_is_too_long(folder: Folder) -> None:
    with refused(errno.ENAMETOOLONG):
        (folder.guest / ("x" * 256)).touch()


def test_deep_folders(folder: Folder) -> None:
    before = os.open(".", os.O_RDONLY)
    os.chdir(folder.guest)
    try:
        for _ in range(700):
            os.mkdir("d")
            os.chdir("d")
        Path("bottom").write_text("deep")
        assert Path("bottom").read_text() == "deep"
    finally:
        os.fchdir(before)
        os.close(before)


def test_read_only_share(folder: Folder) -> None:
    (folder.guest / "file").write_text("content")
    (folder.guest / "d").mkdir()
    path = folder.readonly / "file"
    assert path.read_text() == "content"
    with refused(errno.EROFS):
        path.write_text("x")
    with refused(errno.EROFS), path.open("r+b", buffering=0) as file:
        file.write(b"x")
    changes: tuple[Callable[[], object], ...] = (
        lambda: os.unlink(path),
        lambda: os.mkdir(folder.readonly / "new"),
        lambda: os.rmdir(folder.readonly / "d"),
        lambda: os.rename(path, folder.readonly / "new"),
        lambda: os.symlink("x", folder.readonly / "new"),
        lambda: os.link(path, folder.readonly / "new"),
        lambda: os.chmod(path, 0o600),
        lambda: os.chown(path, 1, 1),
        lambda: os.utime(path),
        lambda: os.truncate(path, 0),
        lambda: os.mkfifo(folder.readonly / "new"),
        lambda: (folder.readonly / "new").touch(),
    )
    for action in changes:
        with refused(errno.EROFS):
            action()
    assert (folder.host / "file").read_text() == "content"


def test_modes_and_times(folder: Folder) -> None:
    path = folder.guest / "file"
    path.touch()
    before = os.umask(0o027)
    (folder.guest / "masked").mkdir()
    os.umask(before)
    assert (folder.host / "masked").stat().st_mode & 0o777 == 0o750
    path.chmod(0o641)
    assert (folder.host / "file").stat().st_mode & 0o7777 == 0o641
    os.utime(path, ns=(1_000_000_000_123_456_789, -1_500_000_000))
    status = path.stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_000_000_000_123_456_789, -1_500_000_000)
    os.utime(path)
    assert abs(path.stat().st_mtime - time.time()) < 1000
    os.utime(folder.guest, ns=(5, 6))
    assert folder.host.stat().st_mtime_ns == 6
    os.symlink("file", folder.guest / "link")
    os.utime(folder.guest / "link", ns=(7, 8), follow_symlinks=False)
    assert (folder.host / "link").lstat().st_mtime_ns == 8


def test_owner_is_remembered(folder: Folder) -> None:
    top = folder.guest / "kinds"
    top.mkdir()
    (top / "file").touch()
    (top / "d").mkdir()
    os.symlink("file", top / "link")
    os.mkfifo(top / "fifo")
    for path in tuple(top.iterdir()):
        os.lchown(path, 33, 44)
        assert (path.lstat().st_uid, path.lstat().st_gid) == (33, 44)
        os.lchown(path, -1, 55)
        os.rename(path, folder.guest / "moved")
        os.rename(folder.guest / "moved", path)
        time.sleep(1.2)
        assert (path.lstat().st_uid, path.lstat().st_gid) == (33, 55)
        os.lchown(path, 0, 0)
        assert (path.lstat().st_uid, path.lstat().st_gid) == (0, 0)


def test_new_files_belong_to_who_makes_them(folder: Folder) -> None:
    folder.guest.chmod(0o777)

    def make() -> None:
        (folder.guest / "f").touch()
        (folder.guest / "d").mkdir()

    os.waitpid(_as_user(1234, 1235, make), 0)
    for name in ("f", "d"):
        status = (folder.guest / name).stat()
        assert (status.st_uid, status.st_gid) == (1234, 1235)


def test_special_files(folder: Folder) -> None:
    os.mkfifo(folder.guest / "fifo")
    reader = threading.Thread(target=lambda: (folder.guest / "fifo").read_text())
    reader.start()
    (folder.guest / "fifo").write_text("through the guest's kernel")
    reader.join()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.guest / "socket"))
    with pytest.raises(PermissionError):
        os.mknod(folder.guest / "device", 0o600 | 0o020000, os.makedev(1, 3))
    assert sorted(os.listdir(folder.host)) == ["fifo", "socket"]


def test_space_and_allocation(folder: Folder) -> None:
    assert os.statvfs(folder.guest).f_blocks == os.statvfs(folder.host).f_blocks
    with (folder.guest / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
        os.fsync(file.fileno())
    assert (folder.host / "file").stat().st_size == 100_000
    descriptor = os.open(folder.guest, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_swapped_links_lead_nowhere(folder: Folder) -> None:
    """Somebody on the host, or another container, keeps exchanging a folder with a link out of the share."""
    outside = folder.host.parent.parent / f"outside-{folder.host.name}"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text("secret")
    real, link, name = folder.host / "real", folder.host / "link", folder.host / "x"
    real.mkdir()
    real.chmod(0o777)
    (real / "secret").write_text("harmless")
    os.symlink(outside, link)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for source in (real, link):
                os.rename(source, name)
                time.sleep(0.001)
                os.rename(name, source)

    swapper = threading.Thread(target=swap)
    swapper.start()
    made = 0
    try:
        beginning = time.monotonic()
        while made < 50 or time.monotonic() < beginning + 2:
            assert time.monotonic() < beginning + 60
            try:
                descriptor = os.open(folder.guest / "x", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue
            for _ in range(20):
                try:
                    with open(os.open("secret", os.O_RDONLY, dir_fd=descriptor)) as file:
                        assert file.read() == "harmless"
                    os.close(os.open(f"new{made}", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=descriptor))
                    made += 1
                except OSError:
                    continue
            os.close(descriptor)
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == ["secret"]


def test_random_work_is_as_on_a_plain_file(folder: Folder, tmp_path: Path) -> None:
    numbers = random.Random(20_240)
    shared, plain = (folder.guest / "file").open("w+b", buffering=0), (tmp_path / "file").open("w+b", buffering=0)
    with shared, plain:
        for _ in range(1500):
            position, size = numbers.randrange(3 << 20), int(numbers.paretovariate(0.4)) % (2 << 20)
            action = numbers.choice(("read", "write", "write", "truncate", "append", "map", "host"))
            data = numbers.randbytes(size)
            for file in (shared, plain):
                file.seek(position)
                if action == "write":
                    _write_all(file.fileno(), data)
                elif action == "truncate":
                    file.truncate(position)
                elif action == "append":
                    file.seek(0, os.SEEK_END)
                    _write_all(file.fileno(), data[: 1 << 16])
                elif action == "map" and data and os.fstat(file.fileno()).st_size > position + size:
                    with mmap.mmap(file.fileno(), 0) as memory:
                        memory[position : position + size] = data
                        memory.flush()
            assert os.fstat(shared.fileno()).st_size == os.fstat(plain.fileno()).st_size
            if action == "read":
                assert os.pread(shared.fileno(), size, position) == os.pread(plain.fileno(), size, position)
            elif action == "host":
                with (folder.host / "file").open("rb") as direct:
                    assert os.pread(direct.fileno(), size, position) == os.pread(plain.fileno(), size, position)
    assert (folder.guest / "file").read_bytes() == (tmp_path / "file").read_bytes() == (folder.host / "file").read_bytes()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def test_server_holds_no_more_descriptors_than_it_should(folder: Folder) -> None:
    for number in range(1500):
        path = folder.guest / f"d{number}"
        path.mkdir()
        (path / "file").write_text("x")
        (path / "file").read_text()
    assert len(os.listdir(f"/proc/{folder.server}/fd")) < 1000
    shutil.rmtree(folder.guest)
    until(lambda: len(os.listdir(f"/proc/{folder.server}/fd")) < 1000)
