"""Docker's USER against passwd and group files that mean well, and ones that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.runtime import users
from pyboxd.runtime.users import Identity, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
bad line
user:x:1000:100:Some One:/home/user:/bin/sh
33:x:1033:1033::/:/bin/sh
user:x:5:5::/second:/bin/sh
huge:x:99999999999999999999:0::/:/bin/sh
nohome:x:7:8:::/bin/sh
"""
GROUP = b"""root:x:0:
users:x:100:
wheel:x:10:root,user
audio:x:29:someone,user
user2:x:30:user2
user:x:1000:
33:x:2033:
huge:x:4294967296:
last:x:50:user"""


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("", Identity(0, 0, (0, 10), "/root")),
        ("root", Identity(0, 0, (0, 10), "/root")),
        ("user", Identity(1000, 100, (100, 10, 29, 50), "/home/user")),
        ("1000", Identity(1000, 100, (100, 10, 29, 50), "/home/user")),
        ("user:wheel", Identity(1000, 10, (10,), "/home/user")),
        ("user:5", Identity(1000, 5, (5,), "/home/user")),
        ("33", Identity(33, 0, (0,), "/")),  # a number is the number, although somebody is called so
        ("1033", Identity(1033, 1033, (1033,), "/")),
        ("0:33", Identity(0, 33, (33,), "/root")),
        ("0:", Identity(0, 0, (0, 10), "/root")),
        (":33", Identity(0, 33, (33,), "/root")),
        ("nohome", Identity(7, 8, (8,), "/")),
        ("2147483647:2147483647", Identity(2147483647, 2147483647, (2147483647,), "/")),
    ],
)
def test_users(user: str, identity: Identity) -> None:
    assert resolve(user, (), PASSWD, GROUP) == identity


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("bad line", "unable to find user bad line"),
        ("us.r", "unable to find user us.r"),
        ("root:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("9" * 5000, "uids and gids must be in range 0-2147483647"),
        ("0:4294967295", "uids and gids must be in range 0-2147483647"),
        ("huge", "uids and gids must be in range 0-2147483647"),
        ("0:huge", "uids and gids must be in range 0-2147483647"),
        ("x:x:0:0", "unable to find user x"),
    ],
)
def test_users_that_are_refused(user: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        resolve(user, (), PASSWD, GROUP)


def test_groups_that_are_added() -> None:
    assert resolve("user", ("audio", "77"), PASSWD, GROUP).groups == (100, 10, 29, 50, 77)
    with pytest.raises(InvalidArgument, match="Unable to find group nosuch: no matching entries in group file"):
        resolve("user", ("nosuch",), PASSWD, GROUP)


def test_an_image_without_these_files_has_numbers_only() -> None:
    assert resolve("", (), b"", b"") == Identity(0, 0, (0,), "/")
    assert resolve("5:6", (), b"", b"") == Identity(5, 6, (6,), "/")


def test_files_are_read_inside_the_root_and_within_bounds(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret:x:1:1::/:\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    descriptor = os.open(root, os.O_PATH)
    try:
        assert users.read_account_file(descriptor, "/etc/passwd") == b""
        (root / "etc/passwd").symlink_to(outside)
        assert users.read_account_file(descriptor, "/etc/passwd") == b""
        (root / "etc/passwd").unlink()
        (root / "etc/passwd").symlink_to("../../../../../../../outside")
        assert users.read_account_file(descriptor, "/etc/passwd") == b""
        (root / "etc/passwd").unlink()
        os.mkfifo(root / "etc/passwd")
        assert users.read_account_file(descriptor, "/etc/passwd") == b""
        (root / "etc/passwd").unlink()
        (root / "etc/passwd").mkdir()
        assert users.read_account_file(descriptor, "/etc/passwd") == b""
        (root / "etc/group").write_bytes(b"name:x:1:\n" * 1_000_000)
        read = users.read_account_file(descriptor, "/etc/group")
        assert users.MAX_FILE - 10 < len(read) <= users.MAX_FILE and read.endswith(b":\n")
    finally:
        os.close(descriptor)
