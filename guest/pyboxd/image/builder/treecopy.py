"""Items of a tree copied into a root, as COPY does it. Blocking; everything is written through descriptors."""

from __future__ import annotations

import os
import stat

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.image.builder.modes import ModeChange
from pyboxd.image.builder.places import Root
from pyboxd.image.builder.trees import Excluded, Item, is_left_out
from pyboxd.image.extract import remove, set_attributes
from pyboxd.image.workers import Stop
from pyboxd.linux.inroot import Owner

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@frozen
class CopyRules:
    """How copies differ from their originals."""

    owner: Owner | None = None  # None keeps the original's
    mode: ModeChange | None = None  # None keeps the original's
    excluded: Excluded = lambda _: False


class TreeCopier:
    """Copies into `target`. Hard links among what one copier copies stay hard links."""

    def __init__(self, target: Root, rules: CopyRules, stop: Stop) -> None:
        self._target = target
        self._rules = rules
        self._stop = stop
        self._linked: dict[object, tuple[str, str]] = {}  # identity -> (directory, name) of its first copy

    def file(self, item: Item, folder: str, base: str) -> None:
        """Copy a regular file to `folder`/`base`; `folder` is made."""
        into = self._target.make_directories(folder, self._rules.owner or (0, 0))
        try:
            self._entry(item, "", into, folder, base)
        finally:
            os.close(into)

    def contents(self, item: Item, folder: str, *, take_over: bool) -> None:
        """Copy what is in a directory into `folder`.

        With `take_over` a directory that has to be made gets mode, owner and times of the source.
        """
        existed = self._target.status(folder)
        if existed is not None and not stat.S_ISDIR(existed.st_mode):
            raise InvalidArgument(f"cannot copy to non-directory: {folder}")
        into = self._target.make_directories(folder, self._rules.owner or (0, 0))
        try:
            self._children(item, "", into, folder)
            if take_over and existed is None:
                self._finish(item, into)
        finally:
            os.close(into)

    def _children(self, item: Item, path: str, into: int, folder: str) -> None:
        for child in item.children():
            inner = f"{path}/{child.name}" if path else child.name
            if not self._rules.excluded(inner):
                self._entry(child, inner, into, folder, child.name)

    def _entry(self, item: Item, path: str, into: int, folder: str, base: str) -> None:
        self._stop.check()
        if stat.S_ISDIR(item.mode):
            inner = self._inner_directory(into, f"{folder}/{base}", base)
            try:
                self._children(item, path, inner, f"{folder}/{base}")
                self._finish(item, inner)
            finally:
                os.close(inner)
        elif not is_left_out(item.mode, item.device) and not self._link(item, into, base):
            self._leaf(item, into, folder, base)

    def _inner_directory(self, into: int, folder: str, base: str) -> int:
        """The directory to copy into, made if it is missing; a link to a directory stands for it."""
        try:
            os.mkdir(base, 0o755, dir_fd=into)
        except FileExistsError:
            found = os.stat(base, dir_fd=into, follow_symlinks=False).st_mode
            if stat.S_ISLNK(found):
                there = self._target.status(folder)
                if there is not None and stat.S_ISDIR(there.st_mode):
                    return self._target.open_directory(folder)
            if not stat.S_ISDIR(found):
                raise InvalidArgument(f"cannot copy to non-directory: {folder}") from None
        return os.open(base, _DIRECTORY, dir_fd=into)

    def _leaf(self, item: Item, into: int, folder: str, base: str) -> None:
        """Anything but a directory."""
        for _ in range(2):
            try:
                if stat.S_ISREG(item.mode):
                    self._regular(item, into, base)
                else:
                    self._special(item, into, base)
                break
            except FileExistsError:
                if stat.S_ISDIR(os.stat(base, dir_fd=into, follow_symlinks=False).st_mode):
                    raise InvalidArgument(f"cannot copy to directory: {folder}/{base} is a directory") from None
                remove(into, base)
        if item.identity is not None:
            self._linked[item.identity] = (folder, base)

    def _link(self, item: Item, into: int, base: str) -> bool:
        first = self._linked.get(item.identity) if item.identity is not None else None
        if first is None:
            return False
        folder, name = first
        directory = self._target.open_directory(folder)
        try:
            remove(into, base)
            os.link(name, base, src_dir_fd=directory, dst_dir_fd=into, follow_symlinks=False)
        except FileNotFoundError:  # the first copy was overwritten since
            return False
        finally:
            os.close(directory)
        return True

    def _regular(self, item: Item, into: int, base: str) -> None:
        target = os.open(base, _NEW, 0o600, dir_fd=into)
        try:
            item.write_to(target, self._stop)
            self._finish(item, target)
        finally:
            os.close(target)

    def _special(self, item: Item, into: int, base: str) -> None:
        is_link = stat.S_ISLNK(item.mode)
        if is_link:
            os.symlink(item.link(), base, dir_fd=into)
        else:
            os.mknod(base, stat.S_IFMT(item.mode) | 0o600, item.device, dir_fd=into)
        uid, gid = self._rules.owner or item.owner
        os.chown(base, uid, gid, dir_fd=into, follow_symlinks=False)
        if not is_link:
            os.chmod(base, self._mode(item), dir_fd=into)
        os.utime(base, ns=item.times, dir_fd=into, follow_symlinks=False)

    def _finish(self, item: Item, target: int) -> None:
        uid, gid = self._rules.owner or item.owner
        os.fchown(target, uid, gid)
        os.fchmod(target, self._mode(item))  # behind chown, which takes set-user-id away
        set_attributes(target, item.attributes())
        os.utime(target, ns=item.times)

    def _mode(self, item: Item) -> int:
        mode = stat.S_IMODE(item.mode)
        return self._rules.mode.apply(mode, directory=stat.S_ISDIR(item.mode)) if self._rules.mode else mode
