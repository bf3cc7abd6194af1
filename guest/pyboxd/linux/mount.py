"""Mounts: the classic calls by path, and the calls that work on descriptors.

The descriptor calls are what containers are made with: a file system is configured and mounted where no path
leads to it, and then attached to a place that was opened before, so no path is walked twice.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_uint64, c_ulong, c_void_p

from . import constants as k
from .libc import function, system_call

Option = tuple[str, str | None]  # a name with its value, or a flag


class _OpenHow(ctypes.Structure):  # struct open_how, linux/openat2.h
    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class _MountAttr(ctypes.Structure):  # struct mount_attr, linux/mount.h
    _fields_ = (
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    )


_mount = function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p, path=1)
_umount2 = function("umount2", c_char_p, c_int, path=0)
_pivot_root = system_call("pivot_root", c_char_p, c_char_p, path=0)
_open_tree = system_call("open_tree", c_int, c_char_p, c_uint, path=1)
_move_mount = system_call("move_mount", c_int, c_char_p, c_int, c_char_p, c_uint)
_fsopen = system_call("fsopen", c_char_p, c_uint, path=0)
_fsconfig = system_call("fsconfig", c_int, c_uint, c_char_p, c_char_p, c_int, path=3)
_fsmount = system_call("fsmount", c_int, c_uint, c_uint)
_mount_setattr = system_call("mount_setattr", c_int, c_char_p, c_uint, c_void_p, c_size_t)
_openat2 = system_call("openat2", c_int, c_char_p, c_void_p, c_size_t, path=1)
_fstatfs = function("fstatfs", c_int, c_void_p)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). An empty `fstype` or `data` is passed as NULL."""
    _mount(
        source.encode(),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        flags,
        data.encode() if data else None,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _umount2(os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2): both may be "." when the new root is the current directory."""
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old))


def make_filesystem(fstype: str, options: Iterable[Option] = (), attributes: int = 0) -> int:
    """Mount a new file system nowhere; the descriptor of its root. `attributes` are `MOUNT_ATTR_…`.

    Its source, which tables of mounts show, is the type's name, unless the options say another.
    OSError carries what the file system itself said about the failure, which errno alone does not tell.
    """
    context = _fsopen(fstype.encode(), k.FSOPEN_CLOEXEC)
    try:
        wanted = list(options)
        if all(name != "source" for name, _ in wanted):
            wanted.insert(0, ("source", fstype))
        for name, value in wanted:
            if value is None:
                _fsconfig(context, k.FSCONFIG_SET_FLAG, name.encode(), None, 0)
            else:
                _fsconfig(context, k.FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)
        _fsconfig(context, k.FSCONFIG_CMD_CREATE, None, None, 0)
        return _fsmount(context, k.FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        said = _read_messages(context)
        raise OSError(error.errno, f"{fstype}: {said or error}") from error
    finally:
        os.close(context)


def make_overlay(lower: Iterable[str], upper: str = "", work: str = "", *, volatile: bool = False) -> int:
    """Mount directories over one another nowhere, the top one first, under a writable `upper`; its root's descriptor.

    Whatever the kernel's defaults are: what a layer means must not depend on them, and an upper directory must be
    complete as a layer. Layers are strangers' work, so an attribute in one that sends a directory elsewhere is not
    followed; the kernel refuses to open such a directory. With `volatile` nothing that is written is made durable, even
    where a program asks for it: for what is thrown away, whole, after a crash. It can be mounted once.
    """
    options: list[Option] = [("lowerdir+", path) for path in lower]
    if upper:
        options += [("upperdir", upper), ("workdir", work)]
    if volatile:
        options.append(("volatile", None))
    options += [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")]
    return make_filesystem("overlay", options)


def _read_messages(context: int) -> str:
    """What the kernel logged to a file system context (`e overlay: lower layer …`), joined by semicolons."""
    messages: list[str] = []
    while len(messages) < 8:
        try:
            line = os.read(context, 1024)
        except OSError:
            break
        messages.append(line.decode(errors="replace").strip()[2:])
    return "; ".join(messages)


def clone_tree(path: str, directory: int = k.AT_FDCWD, recursive: bool = False) -> int:
    """Copy a mount (from `path` down) without attaching it; the copy's descriptor.

    With an empty `path` the thing copied is what `directory` itself refers to.
    """
    flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC
    flags |= k.AT_RECURSIVE if recursive else 0
    flags |= 0 if path else k.AT_EMPTY_PATH
    return _open_tree(directory, os.fsencode(path), flags)


def attach(mount_fd: int, target_fd: int) -> None:
    """Put a detached mount on the directory or file that `target_fd` refers to."""
    _move_mount(mount_fd, b"", target_fd, b"", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH)


def set_attributes(mount_fd: int, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) on the mount behind a descriptor; `propagation` is one of MS_PRIVATE, MS_SLAVE, …"""
    if add & k.MOUNT_ATTR__ATIME or remove & k.MOUNT_ATTR__ATIME:
        remove |= k.MOUNT_ATTR__ATIME  # the kernel wants the whole field cleared before it is set
    attributes = _MountAttr(add, remove, propagation, 0)
    flags = k.AT_EMPTY_PATH | (k.AT_RECURSIVE if recursive else 0)
    _mount_setattr(mount_fd, b"", flags, ctypes.byref(attributes), ctypes.sizeof(attributes))


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): open `path` below `directory` under the `RESOLVE_…` rules; always close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return _openat2(directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))


def filesystem_magic(descriptor: int) -> int:
    """`f_type` of the file system that a descriptor lives on (linux/magic.h)."""
    buffer = (c_ulong * 32)()  # struct statfs is 120 bytes on 64-bit machines; f_type is its first word
    _fstatfs(descriptor, ctypes.byref(buffer))
    return int(buffer[0])
