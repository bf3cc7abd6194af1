"""Windows: the Hypervisor Platform, named pipes, job objects. `kernel32` is used where Python has no function."""

from __future__ import annotations

import ctypes
import getpass
import importlib
import os
import socket
import ssl
import struct
from collections.abc import Sequence
from ctypes import wintypes
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

from pybox.hostos.interface import Detachment, ProcessIdentity
from pybox.model import Accelerator, Share

_QUERY_LIMITED = 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION, winnt.h
_TERMINATE = 0x0001  # PROCESS_TERMINATE
_SET_QUOTA = 0x0100  # PROCESS_SET_QUOTA
_STILL_ACTIVE = 259  # STATUS_PENDING, minwinbase.h
_EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
_KILL_ON_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
# The module subprocess has these names on Windows alone.
_DETACHED = 0x00000008  # DETACHED_PROCESS
_NEW_GROUP = 0x00000200  # CREATE_NEW_PROCESS_GROUP


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX, sysinfoapi.h."""

    _fields_ = (
        ("dwLength", wintypes.DWORD),
        ("dwMemoryLoad", wintypes.DWORD),
        ("ullTotalPhys", ctypes.c_uint64),
        ("ullRest", ctypes.c_uint64 * 6),
    )


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION, winnt.h."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION, winnt.h."""

    _fields_ = (
        ("Basic", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("Memory", ctypes.c_size_t * 4),
    )


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS, psapi.h."""

    _fields_ = (
        ("cb", wintypes.DWORD),
        ("PageFaultCount", wintypes.DWORD),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("WorkingSetSize", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 6),
    )


class Windows:
    name = "windows"
    accelerators: tuple[Accelerator, ...] = (Accelerator.WHPX,)
    passes_sockets = False
    removes_open_files = False
    reuses_addresses = False
    reset_on_close = struct.pack("HH", 1, 0)
    detachment = Detachment(new_session=False, creation_flags=_DETACHED | _NEW_GROUP)

    def __init__(self) -> None:
        library: Any = ctypes  # WinDLL exists on Windows alone
        self._kernel: Any = library.WinDLL("kernel32", use_last_error=True)
        self._kernel.OpenProcess.restype = wintypes.HANDLE
        self._kernel.CreateJobObjectW.restype = wintypes.HANDLE
        self._job: Any = None

    def accelerator_problem(self, accelerator: Accelerator) -> str:
        if accelerator is not Accelerator.WHPX:
            return f"{accelerator} does not exist on Windows"
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "WinHvPlatform.dll"
        return "" if system.exists() else "the Windows feature 'Windows Hypervisor Platform' is switched off"

    def unread(self, connection: int) -> int:
        return 0

    def total_memory_mib(self) -> int:
        status = _MemoryStatus()
        status.dwLength = ctypes.sizeof(status)
        self._kernel.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.ullTotalPhys) // (1024 * 1024)

    def identify(self, pid: int) -> ProcessIdentity | None:
        handle = wintypes.HANDLE(self._kernel.OpenProcess(_QUERY_LIMITED, False, pid))
        if not handle:
            return None
        try:
            status = wintypes.DWORD()
            self._kernel.GetExitCodeProcess(handle, ctypes.byref(status))
            if status.value != _STILL_ACTIVE:
                return None
            times = [ctypes.c_uint64() for _ in range(4)]
            self._kernel.GetProcessTimes(handle, *(ctypes.byref(item) for item in times))
            path, size = ctypes.create_unicode_buffer(1024), wintypes.DWORD(1024)
            self._kernel.QueryFullProcessImageNameW(handle, 0, path, ctypes.byref(size))
            return ProcessIdentity(str(times[0].value), path.value)
        finally:
            self._kernel.CloseHandle(handle)

    def memory_of(self, pid: int) -> int:
        handle = wintypes.HANDLE(self._kernel.OpenProcess(_QUERY_LIMITED, False, pid))
        if not handle:
            return 0
        try:
            counters = _MemoryCounters()
            counters.cb = ctypes.sizeof(counters)
            found = self._kernel.K32GetProcessMemoryInfo(handle, ctypes.byref(counters), counters.cb)
            return int(counters.WorkingSetSize) if found else 0
        finally:
            self._kernel.CloseHandle(handle)

    def end_process(self, pid: int) -> None:
        handle = wintypes.HANDLE(self._kernel.OpenProcess(_TERMINATE, False, pid))
        if handle:
            self._kernel.TerminateProcess(handle, 1)
            self._kernel.CloseHandle(handle)

    def with_parent(self, command: Sequence[str | Path]) -> list[str | Path]:
        return list(command)

    def adopt(self, pid: int) -> None:
        """Put the child into a job that ends with the last handle to it, which is this process's."""
        if self._job is None:
            self._job = wintypes.HANDLE(self._kernel.CreateJobObjectW(None, None))
            limits = _ExtendedLimits()
            limits.Basic.LimitFlags = _KILL_ON_CLOSE
            size = ctypes.sizeof(limits)
            self._kernel.SetInformationJobObject(self._job, _EXTENDED_LIMITS, ctypes.byref(limits), size)
        handle = wintypes.HANDLE(self._kernel.OpenProcess(_TERMINATE | _SET_QUOTA, False, pid))
        if handle:
            self._kernel.AssignProcessToJobObject(self._job, handle)
            self._kernel.CloseHandle(handle)

    def try_lock(self, stream: IO[bytes]) -> bool:
        runtime: Any = importlib.import_module("msvcrt")  # exists on Windows alone
        stream.seek(0)
        try:
            runtime.locking(stream.fileno(), runtime.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def listen(self, address: Path) -> socket.socket:
        raise NotImplementedError("Python has no unix sockets on Windows")

    def dial(self, address: Path) -> socket.socket:
        raise NotImplementedError("Python has no unix sockets on Windows")

    def connect(self, address: Path) -> RawIOBase:
        return address.open("r+b", buffering=0)

    def home_shares(self) -> tuple[Share, ...]:
        home = os.path.realpath(Path.home())
        return (Share("home", home, self.guest_path(home)),)

    def guest_path(self, path: str) -> str:
        drive, *parts = Path(path).parts
        return "/" + "/".join([drive.rstrip(":\\").lower(), *parts])

    def local_certificates(self) -> str:
        tools: Any = ssl  # enum_certificates exists on Windows alone
        roots = [
            ssl.DER_cert_to_PEM_cert(der)
            for der, encoding, _trust in tools.enum_certificates("ROOT")
            if encoding == "x509_asn"
        ]
        return "".join(roots)


def pipe(name: str) -> Path:
    """Return the name of a pipe of this user."""
    return Path(rf"\\.\pipe\pybox-{getpass.getuser()}-{name}")
