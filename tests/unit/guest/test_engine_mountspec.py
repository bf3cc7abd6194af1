"""What the flags about mounts mean."""

from __future__ import annotations

import pytest

from pyboxd.engine import mountspec
from pyboxd.engine.model import MountRequest
from pyboxd.engine.mountspec import Wanted
from pyboxd.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "writable"),
    [
        ("/a:/b", "bind", "/a", "/b", True),
        ("/a/../c/:/b/", "bind", "/c", "/b", True),
        ("/a:/b:ro", "bind", "/a", "/b", False),
        ("/a:/b:ro,z,cached", "bind", "/a", "/b", False),
        (r"C:\x y:/b", "bind", r"C:\x y", "/b", True),
        ("C:/x:/b:ro", "bind", "C:/x", "/b", False),
        ("name:/b", "volume", "name", "/b", True),
        ("name:/b:ro", "volume", "name", "/b", False),
    ],
)
def test_binds(text: str, kind: str, source: str, target: str, writable: bool) -> None:
    point = mountspec.parse_bind(text).point
    assert (point.type, point.source or point.name, point.destination, point.writable) == (kind, source, target, writable)


def test_a_bind_of_v_makes_its_source() -> None:
    assert mountspec.parse_bind("/a:/b").point.create_source


def test_propagation_and_nocopy() -> None:
    assert mountspec.parse_bind("/a:/b:rshared").point.propagation == "rshared"
    assert mountspec.parse_bind("vol:/b").copy
    assert not mountspec.parse_bind("vol:/b:nocopy").copy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a", "invalid volume specification: '/a'"),
        ("/a:b", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/b:xx", "invalid mode: xx"),
        ("a/b:/c", "includes invalid characters for a local volume name"),
        ("a:/c", "invalid volume specification"),  # a drive's letter, and then no target
        ("/a:/b:ro:x", "invalid volume specification"),
    ],
)
def test_wrong_binds(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        mountspec.parse_bind(text)


def test_mount_requests() -> None:
    bind = mountspec.from_request(MountRequest("bind", "/a", "/b", read_only=True)).point
    assert (bind.type, bind.writable, bind.create_source) == ("bind", False, False)
    volume = mountspec.from_request(MountRequest("volume", "", "/b", labels=(("k", "v"),)))
    assert volume.anonymous
    assert volume.labels == (("k", "v"),)
    tmpfs = mountspec.from_request(MountRequest("tmpfs", "", "/b", tmpfs_size=1024, tmpfs_mode=0o700)).point
    assert tmpfs.options == ("noexec", "nosuid", "nodev", "size=1024", "mode=700")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (MountRequest("bind", "", "/b"), "field Source must not be empty"),
        (MountRequest("bind", "/a", ""), "field Target must not be empty"),
        (MountRequest("bind", "a", "/b"), "mount path must be absolute"),
        (MountRequest("tmpfs", "/a", "/b"), "field Source must not be specified"),
        (MountRequest("npipe", "/a", "/b"), "mount type unknown"),
        (MountRequest("volume", "vv", "/b", subpath="../x"), "relative path within the volume"),
    ],
)
def test_wrong_mount_requests(request_: MountRequest, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        mountspec.from_request(request_)


def test_tmpfs_options_replace_the_defaults() -> None:
    point = mountspec.from_tmpfs("/t", "rw,exec,size=1m").point
    assert point.options == ("nosuid", "nodev", "exec", "size=1m")
    assert not point.shown


def targets(wanted: list[Wanted]) -> dict[str, str]:
    return {item.point.destination: item.point.source or item.point.name or item.point.type for item in wanted}


def test_later_groups_win_and_anonymous_volumes_yield() -> None:
    inherited = [mountspec.parse_bind("old:/a"), mountspec.parse_bind("old:/b")]
    own = [mountspec.parse_bind("new:/a")]
    anonymous = [mountspec.from_image("/a"), mountspec.from_image("/c")]
    assert targets(mountspec.arrange([inherited, own], anonymous)) == {"/a": "new", "/b": "old", "/c": "volume"}


def test_two_mounts_for_one_place() -> None:
    twice = [mountspec.parse_bind("one:/a"), mountspec.parse_bind("two:/a")]
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /a"):
        mountspec.arrange([twice], [])


def test_volumes_from() -> None:
    assert mountspec.parse_volumes_from("other") == ("other", None)
    assert mountspec.parse_volumes_from("other:ro") == ("other", False)


def test_names_of_volumes() -> None:
    mountspec.check_volume_name("ok.1_-")
    with pytest.raises(InvalidArgument, match="volume name is too short"):
        mountspec.check_volume_name("a")
