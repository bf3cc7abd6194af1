"""Process 1: prepares the machine, keeps the engine running, ends the machine.

It forks the engine (`serve`) and, beside it, a process for the slow part of the boot (`settle.py`). Forks, and no
new interpreters: they start at once and share the memory of this one. Then it does what only process 1 can do: it
takes the exit status of every orphan, starts the engine again when it dies, and switches the power off when the
engine ends with status 0.
It imports little, because it stays in memory for as long as the machine runs.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from pyboxd.boot import filesystems
from pyboxd.boot.start import RELAY_NAME, SETTLED_VARIABLE, mark_phase, say
from pyboxd.linux import constants as k
from pyboxd.linux.process import reboot, set_name, sethostname
from pyboxd.locations import DATA, RUN

OPEN_FILES = 1024 * 1024
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGPWR)
STOP_TIMEOUT = 30.0  # seconds for the engine to end after a signal to process 1
KILL_TIMEOUT = 5.0  # seconds for killed processes to be gone
QUICK = 10.0  # seconds; an engine that lived longer had started well
FIRST_PAUSE = 0.1  # seconds before the engine is started again; doubled up to LAST_PAUSE
LAST_PAUSE = 5.0
OOM_SCORE = "-500"  # of the engine, as stock engines have it; containers get their own

# OpenSSL's configuration for the engine. Without hardware for AES, which is every emulated guest, ChaCha20 is two to
# four times as fast; Python cannot order the ciphers of TLS 1.3 itself.
_OPENSSL = """\
openssl_conf = start
[start]
ssl_conf = ssl
[ssl]
system_default = ciphers
[ciphers]
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384
"""

# OpenSSL's mask of processor features (OPENSSL_ia32cap(3)) without SSSE3, AVX2, SHA and whatever is newer: emulated
# vector instructions are slow, and the plain code is twice as fast for ChaCha20 and up to seven times for SHA-256.
_SCALAR = "~0x20000000000:~0"


def main(serve: Callable[[], int]) -> int:
    """Run as process 1; returns only if the machine cannot be switched off. `serve` is the engine."""
    try:
        os.environ.update(_environment())
        _prepare()
        Supervisor(serve).run()
    except Exception as error:  # noqa: BLE001 - an exception that left process 1 would be a kernel panic
        sys.excepthook(type(error), error, error.__traceback__)
        say("process 1 failed, see above")
    power_off()
    return 1


def _prepare() -> None:
    """All that the engine needs to exist before it starts, in a few dozen quick calls."""
    mark_phase("init")
    set_name("pyboxd-init")
    filesystems.mount_all()
    filesystems.enter_cgroup()
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
    sethostname("pybox")
    for name, text in (("hostname", "pybox\n"), ("openssl.cnf", _OPENSSL)):
        with open(f"{RUN}/{name}", "w") as file:
            file.write(text)


def _environment() -> dict[str, str]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",  # tracebacks go to a log, even where the console is a terminal
        "OPENSSL_CONF": f"{RUN}/openssl.cnf",
    }
    if _is_emulated():
        environment["OPENSSL_ia32cap"] = _SCALAR
    return environment


def _is_emulated() -> bool:
    """Whether this is an x86 guest without a clock that only hardware virtualisation offers."""
    with open("/sys/devices/system/clocksource/clocksource0/available_clocksource") as file:
        clocks = file.read()
    return os.uname().machine == "x86_64" and "kvm" not in clocks and "hyperv" not in clocks


class Program:
    """A process that shall always run: started again when it ends, after a pause that grows while it ends quickly."""

    def __init__(self, name: str, main: Callable[[], int]) -> None:
        self.name = name
        self.pid = 0  # 0 while it does not run
        self.restart_at: float | None = None  # on the monotonic clock
        self._main = main
        self._started = 0.0
        self._pause = FIRST_PAUSE

    def start(self) -> None:
        self.restart_at = None
        self._started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _run_child(self._main)

    def ended(self, code: int) -> None:
        """It ended by itself; negative codes are signals."""
        now = time.monotonic()
        if now - self._started > QUICK:
            self._pause = FIRST_PAUSE
        what = f"exit status {code}" if code >= 0 else f"signal {-code}"
        say(f"the {self.name} ended with {what}, starting it again in {self._pause:.1f} s")
        self.pid = 0
        self.restart_at = now + self._pause
        self._pause = min(self._pause * 2, LAST_PAUSE)


class Supervisor:
    """The programs of the machine and what becomes of them. The end of the engine with status 0 is the end of all."""

    def __init__(self, serve: Callable[[], int]) -> None:
        self._engine = Program("engine", lambda: _as_engine(serve))
        self._relay = Program("relay", _relay)
        self._programs = [self._engine, self._relay]
        self._stop_at: float | None = None  # when a stop was asked for by signal and patience ends

    def run(self) -> None:
        """Until the machine shall be switched off."""
        signals = {signal.SIGCHLD, *STOP_SIGNALS}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        gc.freeze()  # what exists now stays: the collector of a fork shall not touch, and so copy, these pages
        self._first_start()
        while True:
            received = self._wait(signals)
            if received in STOP_SIGNALS and self._stop_at is None:
                say(f"asked to stop by {signal.Signals(received).name}")
                self._stop_at = time.monotonic() + STOP_TIMEOUT
                if self._engine.pid:
                    os.kill(self._engine.pid, signal.SIGTERM)
            if self._reap():
                return
            now = time.monotonic()
            if self._stop_at is not None and (not self._engine.pid or now >= self._stop_at):
                return
            for program in self._programs:
                if program.restart_at is not None and now >= program.restart_at:
                    program.start()

    def _wait(self, signals: set[signal.Signals]) -> int:
        """The next signal, or 0 when something is due."""
        moments = (self._stop_at, *(program.restart_at for program in self._programs))
        due = [moment for moment in moments if moment is not None]
        if not due:
            return signal.sigwaitinfo(signals).si_signo
        info = signal.sigtimedwait(signals, max(0.0, min(due) - time.monotonic()))
        return info.si_signo if info else 0

    def _first_start(self) -> None:
        """Start everything. The engine's end of the pipe ends when the slow part of the boot does."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            _run_child(lambda: _settle(writing))
        os.close(writing)
        os.environ[SETTLED_VARIABLE] = str(reading)
        self._engine.start()
        del os.environ[SETTLED_VARIABLE]
        os.close(reading)
        self._relay.start()

    def _reap(self) -> bool:
        """Take the status of every ended process; whether the engine ended as it should."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return False
            code = os.waitstatus_to_exitcode(status)
            if pid == self._engine.pid and code == 0:
                return True
            for program in self._programs:
                if program.pid == pid:
                    program.ended(code)


def _run_child(program: Callable[[], int]) -> NoReturn:
    """Be a child for the rest of this process's life: `program` gives the exit status."""
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        status = program()
    except Exception as error:  # noqa: BLE001 - nothing may get back into the code of process 1
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(status)


def _as_engine(serve: Callable[[], int]) -> int:
    set_name("pyboxd-engine")
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_SCORE)
    return serve()


def _relay() -> int:
    from pyboxd.boot import relay  # process 1 shall not keep it

    set_name(RELAY_NAME)
    return relay.main([])


def _settle(writing: int) -> int:
    """Do the slow part of the boot and tell the engine on the pipe what went wrong."""
    try:
        from pyboxd.boot.settle import settle  # likewise

        settle()
    except Exception as error:
        os.write(writing, f"{type(error).__name__}: {error}".encode())
        raise
    return 0


def power_off() -> None:
    """Kill everything, leave a clean data disk, switch off."""
    say("switching off")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:  # noqa: SIM105 - contextlib is a large import for process 1
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _reap_all(time.monotonic() + KILL_TIMEOUT)
    for point in filesystems.unmount_below(DATA):
        say(f"could not unmount {point}")
    os.sync()
    reboot(k.LINUX_REBOOT_CMD_POWER_OFF)


def _reap_all(deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
