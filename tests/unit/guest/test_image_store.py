"""The store of images: names, removal with Docker's conflicts, history, commits. Only mkfs.erofs is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pyboxd.engine.commit import import_tree
from pyboxd.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from pyboxd.image import config as codec
from pyboxd.image import diff
from pyboxd.image.layeruse import bury
from pyboxd.image.model import HelperResult, HistoryEntry, ImageDocument, ImageUse, Removed
from pyboxd.image.reference import parse
from pyboxd.image.workers import Stop, Stopped, run_blocking
from pyboxd.model import ImageConfig
from tests.support.image_lab import ImageLab, chunked, tar

DIGEST = "sha256:" + "d" * 64


def remove(lab: ImageLab, name: str, **options: bool) -> list[str]:
    """What is told of names and images; layers are left out."""
    found = asyncio.run(lab.images.remove(name, **options))
    return [item.untagged or item.deleted for item in found if item.image]


def use(lab: ImageLab, identity: str, *, running: bool) -> None:
    found = (ImageUse("c" * 64, running),)
    lab.images.users = lambda image: found if image == identity else ()


def test_a_tag_moves(lab: ImageLab) -> None:
    first, second = lab.add(b"1"), lab.add(b"2")
    lab.images.tag(first, "app")
    lab.images.tag(first, "localhost:5000/app:1")
    assert lab.images.get(first).references == ("app:latest", "localhost:5000/app:1")
    lab.images.tag(second, "docker.io/library/app:latest")
    assert lab.images.get("app").id == second
    assert lab.images.get(first).references == ("localhost:5000/app:1",)
    with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest reference"):
        lab.images.tag(first, f"app@{DIGEST}")


def test_images_are_found_by_names_ids_and_beginnings(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    lab.images.tag(identity, "me/app:1")
    lab.images.remember_digest(identity, parse(f"me/app@{DIGEST}"))
    digits = identity.removeprefix("sha256:")
    for name in ("me/app:1", "docker.io/me/app:1", identity, digits, digits[:12], f"sha256:{digits[:5]}",
                 f"me/app@{DIGEST}", f"me/app:other@{DIGEST}"):  # fmt: skip
        assert lab.images.get(name).id == identity, name
    for name, shown in (("me/app", "me/app:latest"), ("no", "no:latest"), ("UPPER", "UPPER"), ("x y", "x y"), ("%", "%"),
                        (f"a@{DIGEST}", f"a@{DIGEST}"), ("", "")):  # fmt: skip
        with pytest.raises(NotFound) as caught:
            lab.images.get(name)
        assert str(caught.value) == f"No such image: {shown}"


def test_an_ambiguous_beginning_is_refused(lab: ImageLab) -> None:
    found = [lab.add(str(number).encode()) for number in range(17)]
    first = next(digit for digit in "0123456789abcdef" if sum(i[7] == digit for i in found) > 1)
    with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix"):
        lab.images.get(first)


def test_removing_one_of_several_names_only_unties_it(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    for name in ("a:1", "a:2", "b:1"):
        lab.images.tag(identity, name)
    assert remove(lab, "a:1") == ["a:1"]
    digits = identity.removeprefix("sha256:")[:12]
    with pytest.raises(Conflict) as caught:
        remove(lab, digits)
    assert str(caught.value) == (
        f"conflict: unable to delete {digits} (must be forced) - image is referenced in multiple repositories"
    )
    assert remove(lab, "a:2") == ["a:2"]
    assert remove(lab, "b:1") == ["b:1", identity]
    lab.assert_empty()


def test_removing_by_id_with_force_takes_all_names(lab: ImageLab) -> None:
    identity = lab.add(b"1", b"2")
    for name in ("a:1", "b:1"):
        lab.images.tag(identity, name)
    assert remove(lab, identity, force=True)[-1] == identity
    lab.assert_empty()


def test_the_last_tag_takes_the_repositorys_digests_along(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    lab.images.tag(identity, "a:1")
    lab.images.remember_digest(identity, parse(f"a@{DIGEST}"))
    assert remove(lab, "a:1") == ["a:1", f"a@{DIGEST}", identity]
    lab.assert_empty()
    identity = lab.add(b"1")
    lab.images.tag(identity, "a:1")
    lab.images.remember_digest(identity, parse(f"a@{DIGEST}"))
    assert remove(lab, identity[:20]) == ["a:1", f"a@{DIGEST}", identity]
    lab.assert_empty()


def test_an_image_in_use_is_kept(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    lab.images.tag(identity, "a:1")
    short = identity.removeprefix("sha256:")[:12]
    container = "c" * 12
    use(lab, identity, running=True)
    for name, force, words in (
        ("a:1", False, f'conflict: unable to remove repository reference "a:1" (must force) - container {container} '
                       f"is using its referenced image {short}"),
        (short, False, f"conflict: unable to delete {short} (cannot be forced) - image is being used by running "
                       f"container {container}"),
        (short, True, f"conflict: unable to delete {short} (cannot be forced) - image is being used by running "
                      f"container {container}"),
    ):  # fmt: skip
        with pytest.raises(Conflict) as caught:
            remove(lab, name, force=force)
        assert str(caught.value) == words
    use(lab, identity, running=False)
    with pytest.raises(Conflict) as caught:
        remove(lab, short)
    assert str(caught.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
    )
    assert lab.images.get("a:1").id == identity
    use(lab, identity, running=True)
    assert remove(lab, "a:1", force=True) == ["a:1"], "the name goes, the image stays for its container"
    assert lab.images.get(identity).references == ()
    use(lab, identity, running=False)
    assert remove(lab, identity, force=True) == [identity]
    assert lab.images.list() == []


def test_an_image_removed_by_force_serves_its_stopped_container_to_the_end(lab: ImageLab) -> None:
    parent = lab.add(b"1")
    identity = lab.add(b"1", b"2", parent=parent)
    lab.images.tag(identity, "a:1")
    use(lab, identity, running=False)
    assert remove(lab, "a:1", force=True) == ["a:1", identity, parent]
    assert lab.images.list() == []
    for name in ("a:1", identity.removeprefix("sha256:")[:12]):
        with pytest.raises(NotFound):
            lab.images.get(name)
    with pytest.raises(NotFound):
        remove(lab, identity, force=True)
    left = lab.images.get(identity)
    assert len(left.layers) == 2 and all(lab.layers.has(diff_id) for diff_id in left.layers)
    lab.images.users = lambda _: ()
    asyncio.run(lab.images.collect())
    lab.assert_empty()


def test_an_image_removed_by_force_may_come_back(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    use(lab, identity, running=False)
    assert remove(lab, identity, force=True) == [identity] and lab.images.list() == []
    assert lab.add(b"1") == identity and [image.id for image in lab.images.list()] == [identity]
    lab.images.users = lambda _: ()
    asyncio.run(lab.images.collect())
    assert [image.id for image in lab.images.list()] == [identity]


def test_children_keep_their_parent(lab: ImageLab) -> None:
    parent = lab.add(b"1")
    child = lab.add(b"1", b"2", parent=parent)
    lab.images.tag(parent, "p")
    lab.images.tag(child, "c")
    short = parent.removeprefix("sha256:")[:12]
    with pytest.raises(Conflict) as caught:
        remove(lab, parent, force=True)
    assert str(caught.value) == f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images"
    assert remove(lab, "p") == ["p:latest"]
    assert remove(lab, "c", prune=False) == ["c:latest", child]
    lab.assert_tidy()
    assert remove(lab, parent) == [parent]
    child = lab.add(b"1", b"2", parent=lab.add(b"1"))
    assert remove(lab, child) == [child, parent], "a nameless parent goes with its last child"
    lab.assert_empty()


def test_layers_that_go_are_told_by_their_chain_ids(lab: ImageLab) -> None:
    first, second = lab.add(b"base", b"1", b"2"), lab.add(b"base")
    layers = lab.images.get(first).layers
    chains = codec.chain_ids(layers)
    assert chains[:2] == (layers[0], codec.digest_of(f"{layers[0]} {layers[1]}".encode()))
    told = asyncio.run(lab.images.remove(first))
    assert told == [Removed(deleted=first, image=first), Removed(deleted=chains[2]), Removed(deleted=chains[1])]
    assert asyncio.run(lab.images.remove(second))[1:] == [Removed(deleted=layers[0])]


def test_shared_layers_stay_for_the_others(lab: ImageLab) -> None:
    first, second = lab.add(b"base", b"1"), lab.add(b"base", b"2")
    remove(lab, first)
    lab.assert_tidy()
    assert all(lab.layers.has(diff_id) for diff_id in lab.images.get(second).layers)


def test_prune_takes_what_is_wanted_and_unused(lab: ImageLab) -> None:
    parent = lab.add(b"1")
    child = lab.add(b"1", b"2", parent=parent)
    used, tagged = lab.add(b"3"), lab.add(b"4")
    lab.images.tag(tagged, "t")
    use(lab, used, running=False)
    removed = asyncio.run(lab.images.prune(lambda image: not image.references))
    assert [item for item in removed if item.image] == [
        Removed(deleted=child, image=child), Removed(deleted=parent, image=parent)]  # fmt: skip
    assert {image.id for image in lab.images.list()} == {used, tagged}
    removed = asyncio.run(lab.images.prune(lambda image: True))
    assert [item for item in removed if item.image] == [
        Removed(untagged="t:latest", image=tagged), Removed(deleted=tagged, image=tagged)]  # fmt: skip
    lab.assert_tidy()


def test_history_has_sizes_and_the_parents_that_are_here(lab: ImageLab) -> None:
    layers = [lab.add_layer(tar({"f": b"x" * size})) for size in (10, 20)]
    entries = (HistoryEntry("", "ADD"), HistoryEntry("", "CMD", empty_layer=True), HistoryEntry("", "RUN"))
    base = ImageDocument("amd64", "linux", layers=(layers[0].diff_id,), history=entries[:2])
    full = ImageDocument("amd64", "linux", layers=tuple(layer.diff_id for layer in layers), history=entries)
    parent = lab.images.add(codec.encode(base), layers[:1])
    image = lab.images.add(codec.encode(full), layers, parent=parent.id)
    lab.images.tag(image.id, "app")
    found = lab.images.history(lab.images.get("app"))
    assert [(item.id, item.entry.created_by, item.size, item.references) for item in found] == [
        (image.id, "RUN", 20, ("app:latest",)), (parent.id, "CMD", 0, ()), ("<missing>", "ADD", 10, ())]  # fmt: skip
    assert image.size == 30


def test_an_image_must_have_the_layers_of_its_configuration(lab: ImageLab) -> None:
    with pytest.raises(InvalidArgument):
        lab.images.add(codec.encode(ImageDocument("amd64", "linux", layers=(DIGEST,))), [])
    lab.assert_empty()


def members(lab: ImageLab, diff_id: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(lab.layers.archive(diff_id)) as archive:
        return {member.name: member for member in archive}


def test_commit_packs_a_folder(lab: ImageLab, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "dir").mkdir(parents=True)
    (upper / "dir" / "file").write_bytes(b"hello")
    os.chmod(upper / "dir" / "file", 0o4755)
    os.link(upper / "dir" / "file", upper / "again")
    (upper / "link").symlink_to("/etc/passwd")
    os.mkfifo(upper / "pipe")
    odd = os.fsdecode(b"odd \xff " + b"n" * 150)
    (upper / odd).write_bytes(b"")
    os.utime(upper / "dir", (1, 1))
    parent = lab.images.get(lab.add(b"base"))
    config = ImageConfig(cmd=("/new",), labels={"half": "\ud800"})

    def commit() -> str:
        entry = HistoryEntry(created="2024-01-01T00:00:00Z", created_by="/bin/sh")
        return asyncio.run(lab.images.commit(parent, str(upper), config, entry, author="me")).id

    image = lab.images.get(commit())
    assert image.parent == parent.id and image.layers[0] == parent.layers[0] and image.config == config
    assert image.author == "me" and image.history[-1].created_by == "/bin/sh" and not image.history[-1].empty_layer
    found = members(lab, image.layers[1])
    assert set(found) == {"dir", "dir/file", "again", "link", "pipe", odd}
    assert found["again"].isreg() and found["dir/file"].islnk() and found["dir/file"].linkname == "again"
    assert found["again"].mode == 0o4755 and found["link"].linkname == "/etc/passwd" and found["dir"].mtime == 1
    assert found["pipe"].isfifo()
    assert commit() == image.id, "the same folder gives the same image"
    lab.assert_tidy()


def test_a_commit_reads_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    """The container goes on meanwhile, and puts links where folders and files were."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"SECRET")
    upper = tmp_path / "upper"
    for name in ("d", "e", "g"):
        (upper / name).mkdir(parents=True)
        (upper / name / "file").write_bytes(b"own")
    (upper / "a").write_bytes(b"own")
    (upper / "f").write_bytes(b"own")
    pieces = diff.Archive(str(upper)).pieces(Stop())
    data = next(pieces)
    for name in ("d", "f"):
        (upper / name).rename(tmp_path / name)
    (upper / "d").symlink_to(tmp_path / "outside")
    (upper / "f").symlink_to(tmp_path / "outside" / "file")
    (upper / "e").rename(tmp_path / "e")
    data += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a", "d", "f", "g", "g/file"]
    assert b"SECRET" not in data


@pytest.mark.parametrize(
    "info",
    [
        ("plain", tarfile.REGTYPE, 0o644, 1, 2, 3, 4, "", (0, 0)),
        ("d" * 99 + "/", tarfile.DIRTYPE, 0o7777, 0, 0, 0, 2**33 - 1, "", (0, 0)),
        ("big", tarfile.REGTYPE, 0, 0o7777777, 0o7777777, 0o77777777777, 0, "", (0, 0)),
        ("link", tarfile.SYMTYPE, 0o777, 0, 0, 0, 0, "t" * 100, (0, 0)),
        ("null", tarfile.CHRTYPE, 0o666, 0, 0, 0, 0, "", (1, 3)),
        ("disk", tarfile.BLKTYPE, 0o660, 0, 6, 0, 0, "", (259, 1048575)),
    ],
    ids=lambda info: info[0][:9],
)
def test_headers_are_those_of_the_standard_library(
    info: tuple[str, bytes, int, int, int, int, int, str, tuple[int, int]],
) -> None:
    name, kind, mode, uid, gid, size, mtime, link, device = info
    standard = tarfile.TarInfo(name)
    standard.type, standard.mode, standard.uid, standard.gid, standard.size, standard.mtime = (
        kind,
        mode,
        uid,
        gid,
        size,
        mtime,
    )
    standard.linkname = link
    standard.devmajor, standard.devminor = device
    made = diff._ustar(name.encode(), kind, (mode, uid, gid, size, mtime), link.encode(), device)
    assert made == standard.tobuf(tarfile.PAX_FORMAT)


def test_a_commit_of_folders_nested_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "MAX_DEPTH", 20)
    (tmp_path / "/".join("d" * 19)).mkdir(parents=True)
    assert b"".join(diff.Archive(str(tmp_path)).pieces(Stop()))
    (tmp_path / "/".join("d" * 20)).mkdir()
    opened = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        b"".join(diff.Archive(str(tmp_path)).pieces(Stop()))
    assert len(os.listdir("/proc/self/fd")) == opened


def test_commit_without_a_change_adds_no_layer(lab: ImageLab) -> None:
    parent = lab.images.get(lab.add(b"base"))
    image = asyncio.run(lab.images.commit(parent, None, ImageConfig(user="me"), HistoryEntry(created_by="USER me")))
    assert image.layers == parent.layers and image.history[-1].empty_layer and image.created
    scratch = asyncio.run(lab.images.commit(None, None, ImageConfig(), HistoryEntry()))
    assert scratch.layers == () and scratch.architecture == "amd64" and scratch.parent == ""


def test_a_commit_that_fails_leaves_nothing(lab: ImageLab, tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    lab.indexer.failure = b"<E> erofs: failed to write: [Error 28] No space left on device"
    with pytest.raises(SystemFailure, match="no space left on device"):
        asyncio.run(lab.images.commit(None, str(tmp_path / "upper"), ImageConfig(), HistoryEntry()))
    lab.indexer.failure = b"<E> erofs: bad tar"
    with pytest.raises(InvalidArgument, match="the layer cannot be indexed: <E> erofs: bad tar"):
        asyncio.run(lab.images.commit(None, str(tmp_path / "upper"), ImageConfig(), HistoryEntry()))
    lab.assert_empty()


@pytest.mark.parametrize("name", ["../x", "a/../../x", ".wh.", ".wh..", "a/.wh...", "a/.wh..", "x" * 5000])
def test_hostile_layers_leave_nothing(lab: ImageLab, name: str) -> None:
    with pytest.raises(InvalidArgument):
        asyncio.run(lab.layers.add(lambda _: iter((tar({"ok": b"1", name: b"2"}),))))
    lab.assert_empty()


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"more"])
def test_the_index_is_made_of_a_complete_archive(lab: ImageLab, end: bytes) -> None:
    """Folders that are only in names get an entry, and the archive an end; what is kept is what came."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("a/b/c", b"0"), ("a", b"5"), ("x/y", b"0"), ("x", b"2"), ("d/e", b"0")):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = kind, 0o700, "a" if kind == b"2" else ""
            archive.addfile(info)
        length = archive.offset
    data = out.getvalue()[:length] + end
    seen: list[tuple[str, bytes, int]] = []
    index = lab.indexer.run_helper

    async def look(args: Sequence[str], stdin: bytes | None = None, timeout: float = 0) -> HelperResult:
        with tarfile.open(args[-1]) as archive:
            seen.extend((member.name, member.type, member.mode) for member in archive)
        assert Path(args[-1]).read_bytes()[:length] == data[:length] and Path(args[-1]).stat().st_size % 512 == 0
        return await index(args, stdin, timeout)

    lab.indexer.run_helper = look  # type: ignore[method-assign]
    layer = lab.add_layer(data)
    assert seen[5:] == [(".", b"5", 0o755), ("a/b", b"5", 0o755), ("d", b"5", 0o755)]
    assert Path(lab.layers.archive(layer.diff_id)).read_bytes() == data and layer.diff_id == codec.digest_of(data)
    assert sorted(os.listdir(lab.layers.path(layer.diff_id))) == ["index.erofs", "layer.tar"]


def test_a_file_behind_a_link_of_its_layer_is_refused(lab: ImageLab) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("lib", tarfile.SYMTYPE), ("lib/file", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "usr/lib" if kind == tarfile.SYMTYPE else ""
            archive.addfile(info)
    with pytest.raises(InvalidArgument, match="'lib/file' lies behind the link 'lib'"):
        lab.add_layer(out.getvalue())
    lab.assert_empty()


def test_the_same_layer_may_be_added_at_the_same_time(lab: ImageLab) -> None:
    data = tar({"f": b"x"})

    async def both() -> None:
        first, second = await asyncio.gather(*(lab.layers.add(lambda _: iter((data,))) for _ in range(2)))
        assert first == second and lab.layers.has(first.diff_id)
        shutil.rmtree(lab.layers.detach(first.diff_id))
        shutil.rmtree(lab.layers.detach(first.diff_id))

    asyncio.run(both())
    lab.assert_empty()


def test_a_layer_that_a_job_needs_outlives_its_image(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    image = lab.images.get(identity)

    async def race() -> None:
        async with lab.images.keeping(image.layers):
            await lab.images.remove(identity)
            layer = lab.images.layer(image.layers[0])
            assert layer is not None
            lab.images.add(image.raw_config, [layer])
        assert lab.images.layer(image.layers[0]) == layer
        async with lab.images.keeping(image.layers):
            await lab.images.remove(identity)
        assert not lab.layers.has(image.layers[0])

    asyncio.run(race())
    lab.assert_empty()


def test_sweep_takes_layers_without_a_row(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    asyncio.run(lab.layers.add(lambda _: iter((tar({"left": b"over"}),))))
    asyncio.run(bury(lab.images.sweep()))
    lab.assert_tidy()
    assert lab.images.get(identity)


def test_sweep_takes_what_a_kill_left_half_removed(lab: ImageLab) -> None:
    """A removal has three steps: the image's row, the layers' rows, the layers' folders."""
    shared, first, second = lab.add(b"shared"), lab.add(b"shared", b"1"), lab.add(b"shared", b"2")
    gone = lab.images.get(first).layers[-1]
    lab.database.execute("DELETE FROM image WHERE id = ?", (first,))
    asyncio.run(bury(lab.images.sweep()))
    assert not lab.layers.has(gone)
    lab.assert_tidy()
    lab.database.execute("DELETE FROM image WHERE id = ?", (second,))
    lab.database.execute("DELETE FROM layer WHERE diff_id = ?", (lab.add_layer(tar({"file": b"2"})).diff_id,))
    asyncio.run(bury(lab.images.sweep()))
    lab.assert_tidy()
    assert [image.id for image in lab.images.list()] == [shared]


def test_sweep_takes_removed_images_whose_container_has_gone(lab: ImageLab) -> None:
    identity = lab.add(b"1")
    use(lab, identity, running=False)
    remove(lab, identity, force=True)
    assert lab.images.sweep() == [] and lab.images.get(identity)
    lab.images.users = lambda _: ()
    asyncio.run(bury(lab.images.sweep()))
    lab.assert_empty()


def test_a_removal_is_over_before_anything_else_happens(lab: ImageLab) -> None:
    """Who adds one of its layers meanwhile must not find one that is about to go."""
    identity = lab.add(b"1", b"2")
    layers = lab.images.get(identity).layers

    async def both() -> None:
        removal = asyncio.ensure_future(lab.images.remove(identity))
        collection = asyncio.ensure_future(lab.images.collect())
        await asyncio.sleep(0)
        assert not any(lab.layers.has(diff_id) for diff_id in layers)
        found = [await lab.layers.add_stream(chunked(tar({"file": data}))) for data in (b"1", b"2")]
        lab.images.add(codec.encode(ImageDocument("amd64", "linux", layers=layers)), found)
        await asyncio.gather(removal, collection)

    asyncio.run(both())
    assert all(lab.layers.has(diff_id) for diff_id in layers)
    lab.assert_tidy()


def test_an_import_that_fails_at_its_end_leaves_nothing(lab: ImageLab, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar({"file": b"1"})
    with monkeypatch.context() as patched:
        patched.setattr(codec, "encode", lambda _: b"{}")
        with pytest.raises(InvalidArgument):
            asyncio.run(import_tree(lab.images, chunked(data), []))
    lab.assert_empty()
    image = asyncio.run(import_tree(lab.images, chunked(data), ["CMD x"]))
    assert image.layers == (codec.digest_of(data),)
    remove(lab, image.id)
    lab.assert_empty()


def test_a_layer_that_two_jobs_add_stays_for_the_one_that_succeeds(lab: ImageLab) -> None:
    data = tar({"file": b"1"})

    async def race() -> None:
        async with lab.images.keeping() as keep:
            layer = keep(await lab.layers.add_stream(chunked(data)))
            with pytest.raises(RuntimeError):
                async with lab.images.keeping() as keep_too:
                    keep_too(await lab.layers.add_stream(chunked(data)))
                    raise RuntimeError
            assert lab.layers.has(layer.diff_id)
            lab.images.add(codec.encode(ImageDocument("amd64", "linux", layers=(layer.diff_id,))), [layer])

    asyncio.run(race())
    lab.assert_tidy()
    assert len(lab.images.list()) == 1


def test_nothing_is_committed_over_an_image_that_was_removed(lab: ImageLab, tmp_path: Path) -> None:
    parent = lab.images.get(lab.add(b"1"))
    remove(lab, parent.id)
    with pytest.raises(NotFound, match=f"No such image: {parent.id}"):
        asyncio.run(lab.images.commit(parent, str(tmp_path), ImageConfig(), HistoryEntry()))
    lab.assert_empty()


def test_a_bug_in_a_job_that_was_told_to_stop_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    started = threading.Event()

    def job(failure: Exception) -> Callable[[Stop], None]:
        def work(stop: Stop) -> None:
            started.set()
            with contextlib.suppress(Stopped):
                while True:
                    stop.wait(0.01)
            raise failure

        return work

    async def cancelled(failure: Exception) -> None:
        started.clear()
        task = asyncio.ensure_future(run_blocking(job(failure)))
        await asyncio.to_thread(started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for expected in (Stopped(), OSError(), NotFound("x")):
        asyncio.run(cancelled(expected))
    assert caplog.records == []
    asyncio.run(cancelled(ZeroDivisionError("bug")))
    assert "ended with a bug" in caplog.text and "ZeroDivisionError: bug" in caplog.text


def test_a_cancelled_layer_ends_its_thread(lab: ImageLab) -> None:
    def endless(stop: Stop) -> Iterator[bytes]:
        yield tar({"a": b"x" * 100_000})[:50_000]
        while True:
            stop.wait(0.01)

    async def run() -> None:
        task = asyncio.ensure_future(lab.layers.add(endless))
        while not any(lab.temporary.rglob("layer.tar")):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    lab.assert_empty()
    with pytest.raises(Stopped):
        stop = Stop()
        stop.set()
        stop.check()
