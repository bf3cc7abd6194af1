"""Docker's USER: a name or number of the container's own passwd and group files. Pure, but for `read_account_file`.

A number always means the number, never an account that is called so. The files are the container's, so they are
read with a bound, and only if they are ordinary files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.linux.inroot import open_in_root

MAX_ID = (1 << 31) - 1
MAX_FILE = 1 << 20  # bytes of passwd or group that are looked at


@frozen
class Identity:
    """Who a process is."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary
    home: str


ROOT = Identity(0, 0, (0,), "/")


@frozen
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
    by_number = not user or _is_number(user)
    wanted = b"%d" % int(user[:20] or 0) if by_number else os.fsencode(user)
    for line in _lines_with(passwd, wanted):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2 if by_number else 0] == wanted and fields[2].isdigit():
            home = os.fsdecode(fields[5]) or "/"
            return _Account(fields[0], _small(fields[2]), _small(fields[3]), home)
    return None


def _group_id(name: str, group: bytes, unable: str = "unable") -> int:
    if _is_number(name):
        return _in_range(int(name[:20]))
    wanted = os.fsencode(name)
    for line in _lines_with(group, wanted):
        fields = line.split(b":")
        if len(fields) >= 3 and fields[0] == wanted:
            return _small(fields[2])
    raise InvalidArgument(f"{unable} to find group {name}: no matching entries in group file")


def _memberships(name: bytes, group: bytes) -> tuple[int, ...]:
    found = []
    for line in _lines_with(group, name):
        fields = line.split(b":")
        if len(fields) >= 4 and name in fields[3].split(b","):
            found.append(_small(fields[2]))
    return tuple(found)


def _lines_with(data: bytes, text: bytes) -> Iterator[bytes]:
    """The lines that have `text` somewhere; all others cost nothing, however many an image has put there."""
    position = 0
    while text and (found := data.find(text, position)) >= 0:
        start = data.rfind(b"\n", 0, found) + 1
        end = data.find(b"\n", found)
        end = len(data) if end < 0 else end
        yield data[start:end]
        position = end


def _is_number(text: str) -> bool:
    return text.lstrip("+-").isdecimal() and text.isascii() and len(text) - len(text.lstrip("+-")) <= 1


def _number(text: str, what: str, file: str) -> int:
    if not text:
        return 0
    if not _is_number(text):
        raise InvalidArgument(f"unable to find {what} {text}: no matching entries in {file} file")
    return _in_range(int(text[:20]))


def _small(digits: bytes) -> int:
    """A number of the file; more digits than any id has are as good as out of range."""
    return _in_range(int(digits[:20])) if digits.isdigit() else 0


def _in_range(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{MAX_ID}")
    return number
