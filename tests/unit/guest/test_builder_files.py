"""What COPY finds, hashes and writes, in plain folders; and the small languages around it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.accounts import owner_of
from pyboxd.image.builder.durations import format_duration, parse_duration
from pyboxd.image.builder.modes import parse_mode
from pyboxd.image.builder.places import open_plain
from pyboxd.image.builder.sources import SourceMissing, content_digest, find_sources
from pyboxd.image.builder.treecopy import CopyRules, TreeCopier
from pyboxd.image.builder.trees import RootTree
from pyboxd.image.workers import Stop

ME = (os.getuid(), os.getgid())


def tree(top: Path, *names: str) -> Path:
    """Folders (with a slash at the end) and files that hold their own names."""
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text(name)
    return top


@pytest.fixture
def root(tmp_path: Path) -> Iterator[RootTree]:
    tree(tmp_path / "root", "a.txt", "b.txt", "c.md", ".hidden", "dir/x.txt", "dir/sub/y.txt", "other/x.txt", "a[1].txt")
    (tmp_path / "root/link").symlink_to("dir")
    (tmp_path / "root/out").symlink_to(tmp_path)
    (tmp_path / "root/abs").symlink_to("/dir/x.txt")
    (tmp_path / "root/dangling").symlink_to("nowhere")
    with open_plain(str(tmp_path / "root")) as opened:
        yield RootTree(opened)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.txt"], ["a.txt"]),
        (["/a.txt", "./a.txt"], ["a.txt"]),
        (["*.txt"], ["a.txt", "a[1].txt", "b.txt"]),
        (["*/x.txt"], ["dir/x.txt", "link/x.txt", "other/x.txt"]),
        (["d*/s*/*"], ["dir/sub/y.txt"]),
        (["[ab].txt"], ["a.txt", "b.txt"]),
        (["a\\[1].txt"], ["a[1].txt"]),
        (["?.md", "dir/"], ["c.md", "dir"]),
        (["."], [""]),
        (["/"], [""]),
        (["link"], ["link"]),
        (["abs"], ["abs"]),
        (["dir/../a.txt"], ["a.txt"]),
    ],
)
def test_sources(root: RootTree, patterns: list[str], expected: list[str]) -> None:
    assert [source.path for source in find_sources(root, patterns, from_context=True)] == expected


def test_links_lead_inside(root: RootTree, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):  # the link's text means a path of the context
        find_sources(root, ["out"], from_context=True)
    with pytest.raises(SourceMissing, match="stat dangling: file does not exist"):
        find_sources(root, ["dangling"], from_context=True)


def test_paths_outside(root: RootTree) -> None:
    with pytest.raises(InvalidArgument, match="forbidden path outside the build context"):
        find_sources(root, ["../x"], from_context=True)
    assert find_sources(root, ["../../a.txt"], from_context=False)[0].path == "a.txt"


def digest(root: RootTree, path: str, *, excluded: str = "", owners: bool = False) -> str:
    (source,) = find_sources(root, [path], from_context=True)
    return content_digest(root, source, lambda name: name == excluded, Stop(), owners=owners)


def test_what_a_digest_sees(root: RootTree, tmp_path: Path) -> None:
    place = tmp_path / "root/dir"
    first = digest(root, "dir")
    os.utime(place / "x.txt", (1, 1))
    assert digest(root, "dir") == first
    for change in (
        lambda: (place / "x.txt").write_text("other"),
        lambda: (place / "x.txt").chmod(0o755),
        lambda: (place / "x.txt").rename(place / "z.txt"),
        lambda: (place / "l").symlink_to("1"),
        lambda: (place / "l").rename(place / "m"),
        lambda: (place / "empty").mkdir(),
    ):
        before = digest(root, "dir")
        change()
        assert digest(root, "dir") != before
    assert digest(root, "dir", excluded="sub") != digest(root, "dir")


def copy(source: RootTree, path: str, target: Path, folder: str, **rules: object) -> None:
    with open_plain(str(target)) as opened, source.item(path) as item:
        copier = TreeCopier(opened, CopyRules(**{"owner": ME, **rules}), Stop())  # type: ignore[arg-type]
        copier.contents(item, folder, take_over=True)


def test_a_tree_is_copied(root: RootTree, tmp_path: Path) -> None:
    place = tmp_path / "root/dir"
    os.link(place / "x.txt", place / "sub/hard")
    (place / "sub").chmod(0o2711)
    (place / "x.txt").chmod(0o4750)
    os.mkfifo(place / "fifo")
    (place / "l").symlink_to("/x")
    os.utime(place / "sub", (7, 7))
    (tmp_path / "target").mkdir()
    copy(root, "dir", tmp_path / "target", "/new/place")
    made = tmp_path / "target/new/place"
    assert sorted(os.listdir(made)) == ["fifo", "l", "sub", "x.txt"]
    assert (made / "x.txt").samefile(made / "sub/hard")
    assert stat.S_IMODE((made / "x.txt").stat().st_mode) == 0o4750
    assert (stat.S_IMODE((made / "sub").stat().st_mode), (made / "sub").stat().st_mtime) == (0o2711, 7)
    assert os.readlink(made / "l") == "/x"


def test_modes_and_exclusions(root: RootTree, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    copy(root, "dir", tmp_path / "target", "/", mode=parse_mode("u=rwX,go="), excluded=lambda name: name == "sub/y.txt")
    made = tmp_path / "target"
    assert os.listdir(made / "sub") == []
    assert stat.S_IMODE((made / "x.txt").stat().st_mode) == 0o600
    assert stat.S_IMODE((made / "sub").stat().st_mode) == 0o700


def test_links_of_the_target_stay_inside(root: RootTree, tmp_path: Path) -> None:
    target = tree(tmp_path / "target", "real/")
    (tmp_path / "escape").mkdir()
    (target / "sub").symlink_to("/real")  # a directory of the copy meets a link to a directory of the target
    (target / "x.txt").symlink_to(tmp_path / "escape/file")
    copy(root, "dir", target, "/")
    assert (target / "sub").is_symlink()
    assert (target / "real/y.txt").read_text() == "dir/sub/y.txt"
    assert not (target / "x.txt").is_symlink()
    (target / "far").symlink_to(f"{tmp_path}/escape")
    copy(root, "dir", target, "/far/x")
    assert os.listdir(tmp_path / "escape") == []
    assert (target / str(tmp_path / "escape").lstrip("/") / "x/x.txt").exists()


def test_conflicts(root: RootTree, tmp_path: Path) -> None:
    target = tree(tmp_path / "target", "file", "x.txt/")
    with pytest.raises(InvalidArgument, match="cannot copy to non-directory: /file"):
        copy(root, "dir", target, "/file")
    with pytest.raises(InvalidArgument, match="cannot copy to directory"):
        copy(root, "dir", target, "/")


def test_directories_are_made_along_links(tmp_path: Path) -> None:
    target = tree(tmp_path / "target", "real/")
    (target / "up").symlink_to("../../../../made")
    (target / "loop").symlink_to("loop")
    with open_plain(str(target)) as root:
        os.close(root.make_directories("/up/deep/../deeper", ME))
        with pytest.raises(OSError, match="symbolic links"):
            root.make_directories("/loop/x", ME)
    assert (target / "made/deeper").is_dir()
    assert stat.S_IMODE((target / "made").stat().st_mode) == 0o755


def test_owners(tmp_path: Path) -> None:
    etc = tree(tmp_path / "root/etc", "x")
    (etc / "passwd").write_text("root:x:0:0::/:\nweb:x:33:34::/:\n55:x:77:78::/:\n")
    (etc / "group").write_text("staff:x:50:\n")
    with open_plain(str(tmp_path / "root")) as root:
        assert owner_of("web", root) == (33, 34)
        assert owner_of("web:staff", root) == (33, 50)
        assert owner_of("55", root) == (55, 55)
        assert owner_of("1:2", root) == (1, 2)
        for wrong in ("nobody", "0:nogroup", "4294967296", "-1"):
            with pytest.raises(InvalidArgument):
                owner_of(wrong, root)
        (etc / "passwd").unlink()
        os.mkfifo(etc / "passwd")
        with pytest.raises(InvalidArgument):
            owner_of("web", root)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [("755", 0, 0o755), ("0644", 0o777, 0o644), ("4755", 0, 0o4755), ("u+x", 0o644, 0o744), ("a-w", 0o666, 0o444),
     ("+x", 0o644, 0o755), ("go=u", 0o700, 0o777), ("u=rw,g=r,o=", 0o777, 0o640), ("g+s", 0o755, 0o2755),
     ("+X", 0o644, 0o644), ("+X", 0o744, 0o755), ("u-x+w", 0o500, 0o600), ("+t", 0o755, 0o1755)],
)  # fmt: skip
def test_file_modes(text: str, before: int, after: int) -> None:
    assert parse_mode(text).apply(before, directory=False) == after


@pytest.mark.parametrize("text", ["", "9", "77777", "u", "u+y", "x+r", "755,u+x", "-1"])
def test_wrong_file_modes(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid chmod parameter"):
        parse_mode(text)


@pytest.mark.parametrize(
    ("text", "value", "printed"),
    [("1s", 10**9, "1s"), ("1.5h", 5400 * 10**9, "1h30m0s"), ("300ms", 3 * 10**8, "300ms"), ("0", 0, "0s"),
     ("2m", 120 * 10**9, "2m0s"), ("1h1m1.5s", 36615 * 10**8, "1h1m1.5s"), ("7us", 7000, "7us")],
)  # fmt: skip
def test_durations(text: str, value: int, printed: str) -> None:
    assert parse_duration(text) == value
    assert format_duration(value) == printed


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s2", "--1s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(InvalidArgument, match="time: "):
        parse_duration(text)
