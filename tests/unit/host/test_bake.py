"""The boot for the image builder, over a program that behaves like QEMU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError
from pybox.hostos.interface import native_arch
from pybox.machine import bake
from pybox.machine.accelerators import VerdictBook
from pybox.machine.bake import boot_for_bake
from pybox.model import Accelerator
from pybox.paths import Paths
from pybox.qemu import probe
from pybox.settings import Settings

FAKE = Path(__file__).parents[2] / "support" / "fake_qemu.py"
needs_kvm = pytest.mark.skipif(
    Accelerator.KVM not in hostos.current().accelerators or bool(hostos.current().accelerator_problem(Accelerator.KVM)),
    reason="this host has no KVM to try",
)


@dataclass(frozen=True)
class Request:
    kernel: Path
    initrd: Path
    append: str
    disks: tuple[Path, ...]
    memory_mib: int
    timeout: float
    console_log: Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" qemu-system-x86_64 "$@"\n')
    program.chmod(0o755)
    return Settings(Paths.from_environment({"PYBOX_HOME": str(tmp_path / "home")}), qemu=str(program))


def request(folder: Path, timeout: float = 30.0) -> Request:
    return Request(
        folder / "vmlinuz", folder / "initrd", "console=ttyS0", (folder / "disk",), 1024, timeout, folder / "console.log"
    )


def test_it_returns_when_the_machine_is_off(settings: Settings, tmp_path: Path) -> None:
    boot_for_bake(settings.with_values({"accelerator": "tcg"}), native_arch())(request(tmp_path))
    assert "baked" in (tmp_path / "console.log").read_text()


def test_a_bake_that_takes_too_long(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_BAKE", "slow")
    boot = boot_for_bake(settings.with_values({"accelerator": "tcg"}), native_arch())
    with pytest.raises(MachineError, match="not finished within") as caught:
        boot(request(tmp_path, timeout=1.0))
    assert "the kernel boots" in caught.value.details


@needs_kvm
@pytest.mark.parametrize(("behaviour", "works"), [("ok", True), ("hang", False), ("crash", False)])
def test_accelerators(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, works: bool
) -> None:
    monkeypatch.setenv("FAKE_QEMU_KVM", behaviour)
    if behaviour == "hang":
        monkeypatch.setattr(bake, "_SIGN_OF_LIFE", 0.5)
    boot_for_bake(settings, native_arch())(request(tmp_path))
    book = VerdictBook(settings.paths.accelerators_file)
    verdict = book.verdicts(probe.find(native_arch(), settings.qemu), native_arch())[Accelerator.KVM]
    assert verdict.works is works


@needs_kvm
def test_a_failure_of_the_moment_is_not_held_against_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU_KVM", "fail")
    boot_for_bake(settings, native_arch())(request(tmp_path))
    book = VerdictBook(settings.paths.accelerators_file)
    assert Accelerator.KVM not in book.verdicts(probe.find(native_arch(), settings.qemu), native_arch())


@needs_kvm
def test_a_failure_of_qemu_itself(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_KVM", "fail")
    boot = boot_for_bake(settings.with_values({"accelerator": "kvm"}), native_arch())
    with pytest.raises(MachineError, match="exit status 1") as caught:
        boot(request(tmp_path))
    assert "could not access KVM" in caught.value.details
