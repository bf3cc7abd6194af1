"""Use cases of machines: start (with its guest image, built when it is missing), stop, look, change settings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from pybox import hostos, settings
from pybox.errors import ImageBuildError, MachineError
from pybox.frozen import frozen
from pybox.hostos.interface import native_arch
from pybox.machine import lifecycle
from pybox.machine.image import GuestImage
from pybox.model import Arch, MachineState
from pybox.model import Phase as MachinePhase
from pybox.paths import Paths
from pybox.settings_values import to_text

if TYPE_CHECKING:
    from pybox.app.ssh import SshEndpoint
    from pybox.machine.status import MachineStatus
    from pybox.qemu.probe import Qemu

DEFAULT_MACHINE = "default"


@frozen
class Phase:
    """A step of a start that has ended; `seconds` since the start's beginning, `remark` what a person should know."""

    name: str
    seconds: float
    remark: str = ""


class Report(Protocol):
    """What a start tells while it goes on."""

    def __call__(self, phase: Phase) -> None: ...

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        """Progress of work before the machine itself starts."""


@frozen
class Started:
    """A machine that answers."""

    was_running: bool
    seconds: float
    was_suspended: bool = False


@frozen
class Setting:
    """One row of `pybox config`."""

    key: str
    value: str
    source: str
    help: str


@frozen
class Status:
    """What `pybox status` shows."""

    found: MachineStatus

    @property
    def running(self) -> bool:
        return self.found.state is MachineState.RUNNING

    def fields(self) -> dict[str, Any]:
        return self.found.to_json()

    def lines(self) -> list[tuple[str, str]]:
        found = self.found
        waits = found.pid is not None and found.state in (MachineState.SUSPENDED, MachineState.ASLEEP)
        remark = ": it was idle, and starts for the next client of its socket" if waits else ""
        rows = [("Machine", found.name), ("State", found.state.value + remark)]
        if found.suspended_at:
            rows.append(("Suspended at", _moment(found.suspended_at)))
        if found.started_at:
            rows.append(("Up since", _moment(found.started_at)))
        if found.cpus:
            rows.append(("CPUs", str(found.cpus)))
        if found.memory_mib:
            used = f", {found.memory_used / 1e6:.0f} MB in use on this computer" if found.memory_used else ""
            rows.append(("Memory", f"{found.memory_mib} MiB{used}"))
        if found.disk_size:
            rows.append(("Disk", f"{found.disk_used / 1e9:.1f} of {found.disk_size / 1e9:.0f} GB on this computer"))
        if found.saved_size:
            rows.append(("Saved memory", f"{found.saved_size / 1e9:.1f} GB on this computer"))
        if found.accelerator:
            rows.append(("Accelerator", found.accelerator.value))
        rows += [("", f"{item.accelerator} does not work here: {item.reason}") for item in found.verdicts if not item.works]
        if found.qemu:
            rows.append(("QEMU", found.qemu))
        if self.running or waits:
            rows.append(("Socket", str(found.api_socket)))
        if found.idle:
            what, _, time_text = found.idle.partition(":")
            rows.append(("Idle", f"it will {what} after {time_text} without containers and clients"))
        rows += [("Port", f"{item.host_ip}:{item.host_port}/{item.protocol}") for item in found.ports]
        rows += [("Share", item.host_path + (" (read-only)" if item.readonly else "")) for item in found.shares]
        if found.last_error:
            rows.append(("Last error", found.last_error))
        return rows


def _guest_code() -> bytes:
    from pybox.app.compose import guest_code_folder
    from pybox_image import guestcode

    return guestcode.pack(guest_code_folder())


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class Machines:
    """All machines of this user."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def start(self, machine: str, report: Report, *, discard: bool = False) -> Started:
        """Start a machine, or resume it; builds the guest image first when there is none.

        With `discard` the memory of a suspended one is given up, and it boots.
        """
        began = time.monotonic()
        wanted = settings.load(self._paths, machine)
        if discard:
            lifecycle.discard(wanted, machine)
        before = lifecycle.status(wanted, machine)
        if before.state is MachineState.RUNNING:
            return Started(True, 0.0)
        image = self._image(wanted, report)

        def phase(item: MachinePhase) -> None:
            report(Phase(item.name, item.seconds))

        lifecycle.start(wanted, machine, image, _guest_code, phase)
        return Started(False, time.monotonic() - began, before.state is MachineState.SUSPENDED)

    def suspend(self, machine: str) -> float | None:
        """Suspend a running machine; the seconds that it took, None when it was suspended already."""
        began = time.monotonic()
        if not lifecycle.suspend(settings.load(self._paths, machine), machine):
            if self.status(machine).found.state is MachineState.SUSPENDED:
                return None
            self._running(machine)
        return time.monotonic() - began

    def resume(self, machine: str, report: Report) -> Started:
        """Resume a suspended machine; nothing happens to one that runs."""
        state = self.status(machine).found.state
        if state in (MachineState.STOPPED, MachineState.MISSING):
            raise MachineError(f'Machine "{machine}" is not suspended.', resolution="Start it with: pybox start")
        return self.start(machine, report)

    def stop(self, machine: str, timeout: float, report: Report, *, discard: bool = False) -> bool:
        """Stop a machine; False when it did not run.

        A suspended one is resumed first: its containers end, and what they wrote gets to the disk. With `discard` its
        memory is given up instead.
        """
        wanted = settings.load(self._paths, machine)
        if discard and lifecycle.discard(wanted, machine):
            return True
        if lifecycle.status(wanted, machine).state is MachineState.SUSPENDED:
            self.start(machine, report)
        did_run = lifecycle.stop(wanted, machine, timeout)
        if lifecycle.status(wanted, machine).state is MachineState.SUSPENDED:
            raise MachineError(f'Machine "{machine}" was suspended meanwhile.', resolution="Stop it again: pybox stop")
        return did_run

    def delete(self, machine: str) -> None:
        wanted = settings.load(self._paths, machine)
        lifecycle.stop(wanted, machine, 0)
        if not lifecycle.delete(wanted, machine):
            raise MachineError(f'There is no machine "{machine}".', resolution="List machines with: pybox machine ls")

    def status(self, machine: str) -> Status:
        return Status(lifecycle.status(settings.load(self._paths, machine), machine))

    def listing(self) -> list[dict[str, Any]]:
        """Rows of `pybox machine ls`."""
        rows = []
        for name in lifecycle.machines(settings.load(self._paths)):
            found = self.status(name).found
            rows.append(
                {
                    "Name": name,
                    "State": found.state.value,
                    "Cpus": str(found.cpus or "auto"),
                    "Memory": f"{found.memory_mib} MiB" if found.memory_mib else "auto",
                    "Disk": f"{found.disk_used / 1e9:.1f} GB",
                }
            )
        return rows

    def address(self, machine: str) -> str:
        """Where published ports answer."""
        self._running(machine)
        address = settings.load(self._paths, machine).default_host_ip
        return "127.0.0.1" if address == "0.0.0.0" else address

    def qemu(self, machine: str) -> Qemu:
        """The QEMU that would run the machine. Raises MachineError when there is none."""
        from pybox.qemu import probe

        wanted = settings.load(self._paths, machine)
        return probe.find(self._arch(wanted), wanted.qemu, self._paths.qemu_file)

    def docker_host(self, machine: str) -> str:
        """DOCKER_HOST for the machine."""
        address = hostos.api_address(self._paths, machine).as_posix()
        return f"npipe://{address}" if address.startswith("//./pipe/") else f"unix://{address}"

    def ssh_endpoint(self, machine: str) -> SshEndpoint:
        from pybox.app.ssh import SshEndpoint
        from pybox.machine.files import MachineFiles

        found = self._running(machine)
        keys = MachineFiles(self._paths, machine).keys
        if not found.ssh_port:
            raise MachineError(
                "The machine has no ssh server.",
                resolution="Switch it on with: pybox config set ssh true; pybox restart",
            )
        return SshEndpoint("127.0.0.1", found.ssh_port, "root", keys / "ssh", (keys / "ssh-host.pub").read_text().strip())

    # -- settings --------------------------------------------------------------------------------

    def all_settings(self, machine: str) -> list[Setting]:
        """All settings with where each value is from."""
        file = settings.SettingsFile(self._paths.settings_file)
        own, general = file.items(machine), file.items()
        defaults = settings.Settings(self._paths).as_json()
        rows = []
        for name, key in settings.KEYS.items():
            source = "machine" if name in own else "file" if name in general else "default"
            value = own.get(name, general.get(name))
            rows.append(Setting(name, to_text(defaults[name] or "") if value is None else value, source, key.help))
        return rows

    def setting(self, machine: str, key: str) -> str:
        settings.key_of(key)
        return next(row.value for row in self.all_settings(machine) if row.key == key)

    def set_setting(self, machine: str, key: str, value: str | None) -> str:
        """Change (or unset) a setting; what to do for it to take effect. Other machines than the default get their own."""
        file = settings.SettingsFile(self._paths.settings_file)
        scope = None if machine == DEFAULT_MACHINE else machine
        if value is None:
            file.unset(key, scope)
        else:
            file.set(key, value, scope)
        if self.status(machine).running:
            return "The machine takes it up at its next start: pybox restart"
        return ""

    # -- guest image -----------------------------------------------------------------------------

    def build_image(self, report: Report, *, arch: str = "") -> str:
        """Build the guest image anew; its id."""
        wanted = settings.load(self._paths)
        return self._build(wanted, self._arch(wanted, arch), report).id

    def _running(self, machine: str) -> MachineStatus:
        found = self.status(machine).found
        if found.state is MachineState.SUSPENDED:
            raise MachineError(f'Machine "{machine}" is suspended.', resolution="Resume it with: pybox resume")
        if found.state is not MachineState.RUNNING:
            raise MachineError(f'Machine "{machine}" is not running.', resolution="Start it with: pybox start")
        return found

    def _arch(self, wanted: settings.Settings, name: str = "") -> Arch:
        return Arch(name) if name else wanted.arch or native_arch()

    def _image(self, wanted: settings.Settings, report: Report) -> GuestImage:
        arch = self._arch(wanted)
        folder = self._paths.image_dir(arch)
        if not (folder / "manifest.json").exists():
            return self._build(wanted, arch, report)
        return GuestImage.open(folder)

    def _build(self, wanted: settings.Settings, arch: Arch, report: Report) -> GuestImage:
        from pybox.app.compose import guest_code_folder
        from pybox.machine.bake import boot_for_bake
        from pybox_image.build import BuildOptions, build
        from pybox_image.errors import ImageError
        from pybox_image.mirror import choose
        from pybox_image.progress import Progress

        texts = {"index": "Guest image: reading package lists", "download": "Guest image: downloading packages"}

        def show(state: Progress) -> None:
            report.step(texts.get(state.phase, f"Guest image: {state.phase}"), state.done, state.total)

        folder = self._paths.image_dir(arch)
        options = BuildOptions(arch.value, folder, self._paths.downloads, guest_code_folder(), choose(wanted.mirror))
        began = time.monotonic()
        try:
            build(options, boot_for_bake(wanted, arch), show)
        except ImageError as error:
            raise ImageBuildError(error.brief, error.details, error.resolution) from error
        report(Phase("image", time.monotonic() - began, "guest image built"))
        return GuestImage.open(folder)
