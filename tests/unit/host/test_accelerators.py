"""What is tried, in which order, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError
from pybox.hostos.interface import HostSystem
from pybox.machine.accelerators import Candidate, VerdictBook, choose
from pybox.model import Accelerator, Arch, Verdict
from pybox.qemu.probe import Qemu

QEMU = Qemu(Path("/usr/bin/qemu-system-x86_64"), (7, 2, 22), frozenset({"tcg", "kvm"}))
KVM, TCG = Accelerator.KVM, Accelerator.TCG


@pytest.fixture
def book(tmp_path: Path) -> VerdictBook:
    return VerdictBook(tmp_path / "accelerators.json")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> HostSystem:
    """This host, as if it had a KVM that can be opened."""
    system = hostos.current()
    monkeypatch.setattr(type(system), "accelerators", (KVM,))
    monkeypatch.setattr(type(system), "accelerator_problem", lambda _self, _accelerator: "")
    return system


def test_hardware_first_then_emulation(host: HostSystem, book: VerdictBook) -> None:
    found = choose(host, QEMU, Arch.AMD64, Arch.AMD64, None, book)
    assert found == [Candidate(KVM, proved=False), Candidate(TCG, proved=True)]


def test_verdicts_are_remembered_for_this_qemu(host: HostSystem, book: VerdictBook) -> None:
    book.remember(QEMU, Arch.AMD64, Verdict(KVM, False, "it hangs"))
    assert choose(host, QEMU, Arch.AMD64, Arch.AMD64, None, book) == [Candidate(TCG, proved=True)]
    newer = Qemu(QEMU.program, (10, 0, 0), QEMU.accelerators)
    assert choose(host, newer, Arch.AMD64, Arch.AMD64, None, book)[0] == Candidate(KVM, proved=False)
    book.remember(newer, Arch.AMD64, Verdict(KVM, True, ""))
    assert choose(host, newer, Arch.AMD64, Arch.AMD64, None, book)[0] == Candidate(KVM, proved=True)
    book.forget()
    assert book.verdicts(newer, Arch.AMD64) == {}


def test_another_architecture_is_emulated(host: HostSystem, book: VerdictBook) -> None:
    assert choose(host, QEMU, Arch.ARM64, Arch.AMD64, None, book) == [Candidate(TCG, proved=True)]


def test_a_qemu_without_it(host: HostSystem, book: VerdictBook) -> None:
    plain = Qemu(QEMU.program, QEMU.version, frozenset({"tcg"}))
    assert choose(host, plain, Arch.AMD64, Arch.AMD64, None, book) == [Candidate(TCG, proved=True)]


def test_the_setting_is_obeyed_or_refused(host: HostSystem, book: VerdictBook) -> None:
    book.remember(QEMU, Arch.AMD64, Verdict(KVM, False, "it hangs"))
    assert choose(host, QEMU, Arch.AMD64, Arch.AMD64, KVM, book) == [Candidate(KVM, proved=True)]
    assert choose(host, QEMU, Arch.AMD64, Arch.AMD64, TCG, book) == [Candidate(TCG, proved=True)]
    with pytest.raises(MachineError, match="hvf cannot be used"):
        choose(host, QEMU, Arch.AMD64, Arch.AMD64, Accelerator.HVF, book)


def test_emulation_that_crashes_is_not_a_way_out(host: HostSystem, book: VerdictBook) -> None:
    broken = Qemu(QEMU.program, (8, 2, 0), frozenset({"tcg", "kvm"}))
    assert choose(host, broken, Arch.ARM64, Arch.ARM64, None, book) == [Candidate(KVM, proved=False)]
    with pytest.raises(MachineError, match="cannot emulate"):
        choose(host, broken, Arch.ARM64, Arch.AMD64, None, book)


def test_a_damaged_book_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "book").write_text("[1,")
    assert VerdictBook(tmp_path / "book").verdicts(QEMU, Arch.AMD64) == {}
