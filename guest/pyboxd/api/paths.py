"""Paths of the user's system -> paths in the guest, through the table of shared folders.

Paths are compared as text; Windows ones (`C:\\x`, `C:/x`, `/c/x`, `//c/x`) have one form here and ignore case. Links in
a shared folder are followed on the user's terms: where one leads is looked up in the table again, so that it never
names a place of the guest.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence

from pyboxd import locations
from pyboxd.errors import InvalidArgument
from pyboxd.model import Share

_DRIVE = re.compile(r"(?:/{0,2}([a-zA-Z])(?=/)|([a-zA-Z]):(?=/|$))(.*)", re.DOTALL)
# What containers that look after a machine ask for: the guest's own, which has no user's files.
_GUEST = ("/dev", "/proc", "/sys", "/lib/modules", "/usr/lib/modules", locations.VOLUMES)
_MOST_LINKS = 40


class HostPaths:
    """The table; `replace` puts another one in its place."""

    def __init__(self, shares: Sequence[Share] = (), root: str = locations.SHARES) -> None:
        self._root = root
        self._shares: tuple[Share, ...] = ()
        self._windows = False
        self.replace(shares)

    def replace(self, shares: Sequence[Share]) -> None:
        """The longest folder wins where one is inside another."""
        self._shares = tuple(sorted(shares, key=lambda share: len(share.guest_path), reverse=True))
        self._windows = any(re.match(r"[A-Za-z]:", share.host_path) for share in shares)

    def to_guest(self, path: str) -> str:
        """Where a path of the user's system is in the guest. InvalidArgument when it is not shared."""
        plain = self._plain(path)
        if posixpath.basename(plain) == "docker.sock":  # whatever way the user's side reaches this engine by
            return locations.API_SOCKET
        if plain in _GUEST or any(plain.startswith(f"{folder}/") for folder in _GUEST):
            return plain
        return self._resolve(plain, path)

    def _plain(self, path: str) -> str:
        """One form for every way to write a path."""
        if "\\" in path or re.match(r"[A-Za-z]:", path):
            path = path.replace("\\", "/")
        if self._windows and (found := _DRIVE.fullmatch(path)) is not None:
            drive = found[1] or found[2]
            path = f"/{drive.lower()}{found[3]}"
        return "/" + posixpath.normpath(path).lstrip("/")

    def _find(self, plain: str) -> tuple[Share, str] | None:
        """The share that a path lies in, and the rest of the path."""
        for share in self._shares:
            folder = self._plain(share.guest_path)
            compared, prefix = (plain.lower(), folder.lower()) if self._windows else (plain, folder)
            if compared == prefix or compared.startswith(prefix.rstrip("/") + "/"):
                return share, plain[len(prefix) :].strip("/")
        return None

    def _resolve(self, plain: str, asked: str) -> str:
        """Follow the links on the way, each through the table."""
        for _ in range(_MOST_LINKS):
            found = self._find(plain)
            if found is None:
                raise InvalidArgument(
                    f"Mounts denied: the path {asked} is not shared from the host. "
                    f"Add it with: pybox config set shares {self._suggestion(asked)}"
                )
            share, rest = found
            place = f"{self._root}/{share.name}"
            link, after = _first_link(place, rest)
            if link is None:
                return f"{place}/{rest}".rstrip("/")
            target = os.readlink(f"{place}/{link}")
            base = posixpath.join(self._plain(share.guest_path), posixpath.dirname(link))
            plain = self._plain(posixpath.join(base, target, after))
        raise InvalidArgument(f"Mounts denied: too many links in {asked}")

    def _suggestion(self, asked: str) -> str:
        return ",".join([*(share.host_path for share in reversed(self._shares)), asked])


def _first_link(place: str, rest: str) -> tuple[str | None, str]:
    """The first part of `rest` that is a symbolic link, and what comes after it."""
    parts = [part for part in rest.split("/") if part]
    for count in range(1, len(parts) + 1):
        part = "/".join(parts[:count])
        if os.path.islink(f"{place}/{part}"):
            return part, "/".join(parts[count:])
    return None, ""
