"""Keys, disks, images, records and reports of a machine."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import paramiko
import pytest

from pybox.errors import MachineError, PyboxError
from pybox.machine import disks, keys, reports
from pybox.machine.files import MachineFiles, Processes, ProcessRecord, StartRequest, is_locked, locked
from pybox.machine.image import GuestImage
from pybox.machine.reports import Failed, Order, Ready, Report, StatusReport, Stopped
from pybox.machine.status import MachineStatus
from pybox.model import Accelerator, Arch, ForwardedPort, MachineState, Phase, Share, Verdict
from pybox.paths import Paths
from pybox.qemu.probe import Qemu
from pybox.settings import Settings

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
QEMU = Qemu(Path("/nowhere/qemu-system-x86_64"), (7, 2, 0), frozenset({"tcg"}))


@pytest.fixture
def files(tmp_path: Path) -> MachineFiles:
    return MachineFiles(Paths.from_environment({"PYBOX_HOME": str(tmp_path)}), "default")


# -- keys -------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    made = keys.ensure(tmp_path / "keys")
    assert keys.ensure(tmp_path / "keys") == made
    for path in (tmp_path / "keys").iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o644 if path.suffix == ".pub" else 0o600), path
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_missing_key_means_new_keys(tmp_path: Path) -> None:
    made = keys.ensure(tmp_path)
    made.ssh_user_file.unlink()
    assert keys.ensure(tmp_path).ssh_host_key != made.ssh_host_key


def test_ssh_keys_are_what_ssh_programs_read(tmp_path: Path) -> None:
    made = keys.ensure(tmp_path)
    user = paramiko.Ed25519Key.from_private_key_file(str(made.ssh_user_file))
    assert made.ssh_user_public.split()[:2] == ["ssh-ed25519", user.get_base64()]
    assert made.ssh_host_key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


# -- disks ------------------------------------------------------------------------------------------


@needs_qemu_img
def test_a_disk_is_made_and_grows_and_never_shrinks(tmp_path: Path) -> None:
    disk, size = tmp_path / "data.qcow2", 1 << 30
    for wanted, expected in ((size, size), (2 * size, 2 * size), (size, 2 * size)):
        disks.ensure(QEMU, disk, wanted)
        assert disks.virtual_size(disk) == expected
    assert disks.used_size(disk) < 1 << 20
    assert stat.S_IMODE(disk.stat().st_mode) == 0o600


def test_a_file_that_is_no_disk_is_left_alone(tmp_path: Path) -> None:
    disk = tmp_path / "data.qcow2"
    disk.write_bytes(b"precious" * 100)
    with pytest.raises(MachineError, match="damaged"):
        disks.ensure(QEMU, disk, 1 << 30)
    assert disk.read_bytes() == b"precious" * 100


def test_without_qemu_img(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="qemu-img was not found"):
        disks.ensure(QEMU, tmp_path / "data.qcow2", 1 << 30)


# -- images -----------------------------------------------------------------------------------------


def image(folder: Path, names: tuple[str, ...] = ("vmlinuz", "vmlinux", "initrd", "root.erofs"), **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    manifest = {
        "id": "abc",
        "architecture": "amd64",
        "files": {name: {"size": len(name), "sha256": ""} for name in names},
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_an_image(tmp_path: Path) -> None:
    found = GuestImage.open(image(tmp_path / "image"))
    assert (found.id, found.arch, found.kernel.name) == ("abc", Arch.AMD64, "vmlinux")
    assert GuestImage.open(image(tmp_path / "arm", architecture="arm64")).kernel.name == "vmlinuz"


def test_no_image(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="there is no guest image") as caught:
        GuestImage.open(tmp_path)
    assert caught.value.resolution


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    short = image(tmp_path / "short")
    (short / "root.erofs").write_bytes(b"x")
    gone = image(tmp_path / "gone")
    (gone / "initrd").unlink()
    damaged = image(tmp_path / "damaged")
    (damaged / "manifest.json").write_text("{")
    without_root = image(tmp_path / "without", ("vmlinuz", "initrd"))
    other = image(tmp_path / "other", architecture="riscv64")
    for folder in (short, gone, damaged, without_root, other):
        with pytest.raises(MachineError, match="cannot be used"):
            GuestImage.open(folder)


# -- records ----------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one(files: MachineFiles) -> None:
    assert not files.exists() and not is_locked(files)
    with locked(files):
        assert is_locked(files)
        with pytest.raises(MachineError, match="in use"), locked(files):
            pass
    assert files.exists() and not is_locked(files)


def test_processes_are_remembered(files: MachineFiles) -> None:
    assert Processes.read(files) is None
    record = ProcessRecord.of(1)
    known = Processes(12.5, record, None)
    known.write(files)
    assert Processes.read(files) == known
    files.processes.write_text("{")
    assert Processes.read(files) is None


def test_a_start_request(files: MachineFiles) -> None:
    with pytest.raises(MachineError):
        StartRequest.read(files)
    request = StartRequest(Settings(files.paths, cpus=3), Path("/images/amd64"))
    request.write(files)
    assert StartRequest.read(files) == request


STATUS = MachineStatus(
    name="default",
    state=MachineState.RUNNING,
    api_socket=Path("/run/docker.sock"),
    memory_mib=2048,
    arch=Arch.AMD64,
    accelerator=Accelerator.TCG,
    verdicts=(Verdict(Accelerator.KVM, False, "it hangs"),),
    ports=(ForwardedPort("tcp", "127.0.0.1", 8080, 40001),),
    shares=(Share("home", "/home/x", "/home/x", True),),
)


@pytest.mark.parametrize(
    "report",
    [Phase("qemu", 0.5), Ready(STATUS), StatusReport(STATUS), Failed(MachineError("b", "d", "r")), Stopped()],
)
def test_reports(report: Report) -> None:
    assert reports.decode_report(reports.encode_report(report)) == report


def test_orders() -> None:
    assert reports.decode_order(reports.encode_order(Order("stop", 3.0))) == Order("stop", 3.0)


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"{}", b'{"report": "dance"}', b'{"report": "ready", "status": {}}'])
def test_lines_of_another_version(line: bytes) -> None:
    with pytest.raises(MachineError, match="cannot be understood"):
        reports.decode_report(line)
    with pytest.raises(PyboxError):
        reports.decode_order(line)
