"""The FUSE protocol as the kernel speaks it on `/dev/fuse` (linux/fuse.h, version 7.36): layouts, no I/O.

Every message is little-endian here, because every guest is. A request is a header and an argument, a reply is a header
and an answer; both headers begin with the length of the whole message.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

MAJOR = 7
MINOR = 36  # the newest minor version whose structs this module knows

MAX_WRITE = 1 << 20  # bytes of data in one READ or WRITE
MAX_PAGES = MAX_WRITE // 4096
HEADROOM = 4096  # bytes around the data: header and arguments
MAX_REQUEST = MAX_WRITE + HEADROOM

ROOT_ID = 1  # the node that the kernel knows without asking

# The first message on every connection is the server's and for the relay: a secret, which the relay writes before the
# first request that comes next. What comes before it is the rest of what an earlier connection broke off, and that may
# be the content of a file: a mark that a container could know would let it make requests for all folders.
GREETING = 0x7079_626F  # in the place of the error, with the unique number 0
SECRET_LENGTH = 16


class Opcode(IntEnum):
    """`enum fuse_opcode`."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47


_LAST_OPCODE = 60  # of any kernel that may ask; those this module does not name are answered with ENOSYS

# Flags of INIT.
ASYNC_READ = 1 << 0
BIG_WRITES = 1 << 5
AUTO_INVAL_DATA = 1 << 12
DO_READDIRPLUS = 1 << 13
NO_OPEN_SUPPORT = 1 << 17
PARALLEL_DIROPS = 1 << 18
MAX_PAGES_FLAG = 1 << 22
# Locks are not among them and so stay in the guest's kernel; without WRITEBACK_CACHE a write is at the host when it
# returns; without READDIRPLUS_AUTO every listing brings the attributes. NO_OPENDIR_SUPPORT is left out: with it the
# kernel lists from its cache and then asks for the attributes of each name.
WANTED = ASYNC_READ | BIG_WRITES | AUTO_INVAL_DATA | DO_READDIRPLUS | NO_OPEN_SUPPORT | PARALLEL_DIROPS | MAX_PAGES_FLAG

# `valid` of SETATTR.
SET_MODE = 1 << 0
SET_UID = 1 << 1
SET_GID = 1 << 2
SET_SIZE = 1 << 3
SET_ATIME = 1 << 4
SET_MTIME = 1 << 5
SET_OPEN_FILE = 1 << 6  # through a descriptor of the program that asks
SET_ATIME_NOW = 1 << 7
SET_MTIME_NOW = 1 << 8

RENAME_NOREPLACE = 1 << 0
RENAME_EXCHANGE = 1 << 1
WRITE_CACHE = 1 << 0  # a write of the page cache, which has no program behind it
FSYNC_DATA_ONLY = 1 << 0

IN_HEADER = Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("<IiQ")  # len error unique

INIT_IN = Struct("<IIII")  # major minor max_readahead flags
INIT_OUT = Struct("<IIIIHHIIHHI7I")  # … flags max_background congestion max_write time_gran max_pages map_align flags2
ATTR = Struct("<QQQQQQIIIIIIIIII")
ATTR_OUT = Struct("<QII" + ATTR.format[1:])  # attr_valid attr_valid_nsec dummy attr
ENTRY_OUT = Struct("<QQQQII" + ATTR.format[1:])  # nodeid generation entry_valid attr_valid and their nanoseconds
OPEN_OUT = Struct("<QII")  # fh open_flags padding
SETATTR_IN = Struct("<IIQQQQQQIIIIIIII")
MKNOD_IN = Struct("<IIII")  # mode rdev umask padding
MKDIR_IN = Struct("<II")  # mode umask
CREATE_IN = Struct("<IIII")  # flags mode umask open_flags
RENAME_IN = Struct("<Q")  # newdir
RENAME2_IN = Struct("<QII")  # newdir flags padding
LINK_IN = Struct("<Q")  # oldnodeid
READ_IN = Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding
WRITE_IN = Struct("<QQIIQII")  # fh offset size write_flags lock_owner flags padding
WRITE_OUT = Struct("<II")  # size padding
FSYNC_IN = Struct("<QII")  # fh fsync_flags padding
FALLOCATE_IN = Struct("<QQQII")  # fh offset length mode padding
LSEEK_IN = Struct("<QQII")  # fh offset whence padding
LSEEK_OUT = Struct("<Q")
STATFS_OUT = Struct("<QQQQQIIII6I")  # blocks bfree bavail files ffree bsize namelen frsize padding spare
ACCESS_IN = Struct("<II")  # mask padding
COPY_IN = Struct("<QQQQQQQ")  # fh_in off_in nodeid_out fh_out off_out len flags
FORGET_IN = Struct("<Q")  # nlookup
BATCH_FORGET_IN = Struct("<II")  # count dummy
FORGET_ONE = Struct("<QQ")  # nodeid nlookup
DIRENT = Struct("<QQII")  # ino off namelen type

# The bytes that must follow the header of a request.
_ARGUMENT = {
    Opcode.INIT: INIT_IN.size,
    Opcode.SETATTR: SETATTR_IN.size,
    Opcode.MKNOD: MKNOD_IN.size,
    Opcode.MKDIR: MKDIR_IN.size,
    Opcode.CREATE: CREATE_IN.size,
    Opcode.RENAME: RENAME_IN.size,
    Opcode.RENAME2: RENAME2_IN.size,
    Opcode.LINK: LINK_IN.size,
    Opcode.READ: READ_IN.size,
    Opcode.READDIR: READ_IN.size,
    Opcode.READDIRPLUS: READ_IN.size,
    Opcode.WRITE: WRITE_IN.size,
    Opcode.FSYNC: FSYNC_IN.size,
    Opcode.FSYNCDIR: FSYNC_IN.size,
    Opcode.FALLOCATE: FALLOCATE_IN.size,
    Opcode.LSEEK: LSEEK_IN.size,
    Opcode.ACCESS: ACCESS_IN.size,
    Opcode.COPY_FILE_RANGE: COPY_IN.size,
    Opcode.FORGET: FORGET_IN.size,
    Opcode.BATCH_FORGET: BATCH_FORGET_IN.size,
}


# Linux's numbers of the errors that file systems give; other systems have other numbers.
# fmt: off
_LINUX_ERRORS = {
    "EPERM": 1, "ENOENT": 2, "EINTR": 4, "EIO": 5, "ENXIO": 6, "E2BIG": 7, "EBADF": 9, "EAGAIN": 11, "ENOMEM": 12,
    "EACCES": 13, "EFAULT": 14, "EBUSY": 16, "EEXIST": 17, "EXDEV": 18, "ENODEV": 19, "ENOTDIR": 20, "EISDIR": 21,
    "EINVAL": 22, "ENFILE": 23, "EMFILE": 24, "ENOTTY": 25, "ETXTBSY": 26, "EFBIG": 27, "ENOSPC": 28, "ESPIPE": 29,
    "EROFS": 30, "EMLINK": 31, "EPIPE": 32, "ERANGE": 34, "EDEADLK": 35, "ENAMETOOLONG": 36, "ENOLCK": 37, "ENOSYS": 38,
    "ENOTEMPTY": 39, "ELOOP": 40, "ENODATA": 61, "EOVERFLOW": 75, "EILSEQ": 84, "EOPNOTSUPP": 95, "ENOTSUP": 95,
    "ETIMEDOUT": 110, "ESTALE": 116, "EDQUOT": 122, "ECANCELED": 125,
}
# fmt: on
_LINUX_ERRNO = {getattr(errno, name): number for name, number in _LINUX_ERRORS.items() if hasattr(errno, name)}


class ProtocolError(Exception):
    """The other side does not speak this protocol, or the stream is out of step."""


class Request(NamedTuple):
    """One request of the kernel. `body` is valid until the next message is read."""

    opcode: int
    unique: int  # comes back in the reply
    node: int
    uid: int  # of the process that asks
    gid: int
    body: memoryview


def parse_request(message: memoryview) -> Request:
    """Read one whole message. Raises ProtocolError when it is none."""
    length, opcode, unique, node, uid, gid, _, _, _ = IN_HEADER.unpack_from(message)
    if length != len(message) or not is_plausible(length, opcode):
        raise ProtocolError(f"a request of {length} bytes with opcode {opcode}")
    return Request(opcode, unique, node, uid, gid, message[IN_HEADER.size :])


def is_plausible(length: int, opcode: int) -> bool:
    """Whether a message can begin with these two numbers."""
    argument = _ARGUMENT.get(opcode, 0)  # type: ignore[call-overload]
    return IN_HEADER.size + argument <= length <= MAX_REQUEST and 1 <= opcode <= _LAST_OPCODE


def names(body: memoryview, start: int, count: int) -> list[bytes]:
    """Read the `count` NUL-terminated names from `start` on. Raises ProtocolError."""
    found = bytes(body[start:]).split(b"\0")
    if len(found) <= count:
        raise ProtocolError("a name without its end")
    return found[:count]


def failure(unique: int, number: int) -> bytes:
    """A whole message that refuses a request; `number` is an errno of this system."""
    return OUT_HEADER.pack(OUT_HEADER.size, -_LINUX_ERRNO.get(number, _LINUX_ERRORS["EIO"]), unique)


def greeting(secret: bytes) -> bytes:
    """The whole message that begins a connection."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(secret), GREETING, 0) + secret


def init_answer(body: memoryview) -> bytes:
    """Answer INIT. Raises ProtocolError for a kernel that is too old."""
    major, minor, readahead, flags = INIT_IN.unpack_from(body)
    if major != MAJOR or minor < 28:
        raise ProtocolError(f"the kernel speaks version {major}.{minor} of the FUSE protocol")
    accepted = flags & WANTED
    return INIT_OUT.pack(
        *(MAJOR, min(minor, MINOR), max(readahead, MAX_WRITE), accepted),
        *(64, 48),  # requests in the background, and how many mean congestion
        *(MAX_WRITE, 1, MAX_PAGES, 0, 0),
        *(0,) * 7,
    )


def attributes(status: os.stat_result, inode: int, uid: int, gid: int, mode: int | None = None) -> tuple[int, ...]:
    """The fields of `struct fuse_attr`. Owner and permission bits are arguments because they may be remembered ones."""
    atime, mtime, ctime = status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns
    billion = 1_000_000_000
    return (
        inode,
        status.st_size,
        getattr(status, "st_blocks", -(-status.st_size // 512)),
        atime // billion & 0xFFFF_FFFF_FFFF_FFFF,
        mtime // billion & 0xFFFF_FFFF_FFFF_FFFF,
        ctime // billion & 0xFFFF_FFFF_FFFF_FFFF,
        atime % billion,
        mtime % billion,
        ctime % billion,
        status.st_mode if mode is None else stat.S_IFMT(status.st_mode) | mode,
        status.st_nlink,
        uid,
        gid,
        0,  # no device is ever shown
        getattr(status, "st_blksize", 4096),
        0,
    )


def entry(node: int, lifetime: int, attr: tuple[int, ...]) -> bytes:
    """`struct fuse_entry_out`; the name and the attributes are good for `lifetime` seconds."""
    return ENTRY_OUT.pack(node, 0, lifetime, lifetime, 0, 0, *attr)


def directory_entry(inode: int, offset: int, mode: int, name: bytes) -> bytes:
    """`struct fuse_dirent`, padded; `offset` is what asks for the entry after this one."""
    return DIRENT.pack(inode, offset, len(name), stat.S_IFMT(mode) >> 12) + name + bytes(-len(name) % 8)
