"""Owners as `--chown` names them, looked up in the image's own account files. Pure."""

from __future__ import annotations

import re

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.places import Root
from pyboxd.linux.inroot import Owner

MAX_FILE = 4 * 1024 * 1024  # bytes of passwd or group that are looked at
_MAX_ID = (1 << 31) - 1


def owner_of(text: str, root: Root) -> Owner:
    """The numbers that `user`, `uid`, `user:group`, … mean. A number always means the number.

    Without a group the group has the user's number, or for a name the one in passwd. InvalidArgument.
    """
    user, colon, group = text.partition(":")
    uid, gid = _user(user, root)
    return uid, _group(group, root) if colon and group else gid


def _user(name: str, root: Root) -> Owner:
    number = _number(name or "0")
    if number is not None:
        return number, number
    passwd = root.read_file("etc/passwd", MAX_FILE)
    found = re.search(rb"^%s:[^:\n]*:(\d{1,10}):(\d{1,10})" % re.escape(name.encode()), passwd, re.MULTILINE)
    if found is None:
        raise InvalidArgument(f"unable to convert uid/gid chown string to host mapping: can't find uid for user {name}: "
                              f"no such user: {name}")  # fmt: skip
    return _checked(int(found.group(1))), _checked(int(found.group(2)))


def _group(name: str, root: Root) -> int:
    number = _number(name)
    if number is not None:
        return number
    data = root.read_file("etc/group", MAX_FILE)
    found = re.search(rb"^%s:[^:\n]*:(\d{1,10})" % re.escape(name.encode()), data, re.MULTILINE)
    if found is None:
        raise InvalidArgument(f"unable to convert uid/gid chown string to host mapping: can't find gid for group {name}: "
                              f"no such group: {name}")  # fmt: skip
    return _checked(int(found.group(1)))


def _number(text: str) -> int | None:
    return _checked(int(text[:20])) if re.fullmatch(r"\d+", text, re.ASCII) else None


def _checked(number: int) -> int:
    if number > _MAX_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{_MAX_ID}")
    return number
