"""Docker's USER: a name or number of the container's own passwd and group files. Pure, but for `read_account_file`.

A number always means the number, never an account that is called so. The files are the container's, so they are
read with a bound, and only if they are ordinary files.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from pyboxd.errors import InvalidArgument

from .rootpath import open_in_root

MAX_ID = (1 << 31) - 1
MAX_FILE = 4 << 20  # bytes of passwd or group that are looked at
_NUMBER = re.compile(r"[+-]?[0-9]+\Z")


@dataclass(frozen=True)
class Identity:
    """Who a process is."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary
    home: str


ROOT = Identity(0, 0, (0,), "/")


@dataclass(frozen=True)
class _Account:
    name: bytes
    uid: int
    gid: int
    home: str


def read_account_file(root_fd: int, path: str) -> bytes:
    """The first MAX_FILE bytes of a file of the container, cut at a line; nothing if it is no ordinary file."""
    try:
        descriptor = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        data = os.read(descriptor, MAX_FILE)
    finally:
        os.close(descriptor)
    return data if len(data) < MAX_FILE else data[: data.rfind(b"\n") + 1]


def resolve(user: str, additional: Iterable[str], passwd: bytes, group: bytes) -> Identity:
    """The identity that `user` ("", "name", "uid", "name:group", "uid:gid") means.

    `additional` are the groups of `--group-add`. InvalidArgument in Docker's words.
    """
    user_name, _, group_name = user.partition(":")
    account = _find_account(user_name, passwd)
    uid = account.uid if account else _number(user_name, "user", "passwd")
    gid = account.gid if account else 0
    groups: tuple[int, ...] = ()
    if group_name:
        gid = _group_id(group_name, group)
    elif account:
        groups = _memberships(account.name, group)
    added = tuple(_group_id(name, group, "Unable") for name in additional)
    # The main group is among the others too: whoever drops it must not fall back on none (CVE-2022-36109).
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *groups, *added])), account.home if account else "/")


def _find_account(user: str, passwd: bytes) -> _Account | None:
    """The first line of passwd for a name or a number; "" is user 0."""
    if not user or _NUMBER.match(user):
        uid = int(user[:20] or 0)
        pattern = rb"^([^:\n]*):[^:\n]*:%d:(\d*):[^:\n]*:([^:\n]*)" % uid
        found = re.search(pattern, passwd, re.MULTILINE)
        if found is None:
            return None
        name, gid, home = found.groups()
        return _Account(name, _in_range(uid), _small(gid), os.fsdecode(home) or "/")
    pattern = rb"^%s:[^:\n]*:(\d+):(\d*):[^:\n]*:([^:\n]*)" % re.escape(os.fsencode(user))
    found = re.search(pattern, passwd, re.MULTILINE)
    if found is None:
        return None
    number, gid, home = found.groups()
    return _Account(os.fsencode(user), _small(number), _small(gid), os.fsdecode(home) or "/")


def _group_id(name: str, group: bytes, unable: str = "unable") -> int:
    if _NUMBER.match(name):
        return _in_range(int(name[:20]))
    found = re.search(rb"^%s:[^:\n]*:(\d+)" % re.escape(os.fsencode(name)), group, re.MULTILINE)
    if found is None:
        raise InvalidArgument(f"{unable} to find group {name}: no matching entries in group file")
    return _small(found.group(1))


def _memberships(name: bytes, group: bytes) -> tuple[int, ...]:
    pattern = rb"^[^:\n]*:[^:\n]*:(\d+):(?:[^:\n]*,)?%s(?:,[^:\n]*)?$" % re.escape(name)
    return tuple(_small(number) for number in re.findall(pattern, group, re.MULTILINE))


def _number(text: str, what: str, file: str) -> int:
    if not text:
        return 0
    if not _NUMBER.match(text):
        raise InvalidArgument(f"unable to find {what} {text}: no matching entries in {file} file")
    return _in_range(int(text[:20]))


def _small(digits: bytes) -> int:
    """A number of the file; more digits than any id has are as good as out of range."""
    return _in_range(int(digits[:20] or b"0"))


def _in_range(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{MAX_ID}")
    return number
