"""What a life of the machine needs to know, and the QEMU machines that come of it."""

from __future__ import annotations

from pybox.frozen import frozen, replace
from pybox.machine.accelerators import Candidate
from pybox.machine.files import MachineFiles
from pybox.machine.golden import GoldenState
from pybox.machine.image import GuestImage
from pybox.machine.keys import MachineKeys
from pybox.model import Share
from pybox.qemu.command import Board, Channels, EngineMachine, MemoryFile
from pybox.qemu.probe import Qemu
from pybox.settings import Settings


@frozen
class Plan:
    """Everything that a life of the machine needs to know, decided before it begins."""

    files: MachineFiles
    settings: Settings
    image: GuestImage
    keys: MachineKeys
    qemu: Qemu
    memory_mib: int
    cpus: int
    certificates: str
    shares: tuple[Share, ...]

    def machine(self, candidate: Candidate, channels: Channels) -> EngineMachine:
        """Return the machine as it is when it boots by itself."""
        board = Board(
            program=self.qemu.program,
            arch=self.image.arch,
            accelerator=candidate.accelerator,
            memory_mib=self.memory_mib,
            cpus=self.cpus,
            kernel=self.image.kernel,
            initrd=self.files.initrd,
            console_log=self.files.console_log,
        )
        return EngineMachine(board, self.files.name, self.image.root_disk, self.files.data_disk, channels)


def from_suspended(machine: EngineMachine) -> EngineMachine:
    """Return the same machine, which goes on from a stream with its RAM."""
    return replace(machine, incoming=True)


def from_state(machine: EngineMachine, state: GoldenState) -> EngineMachine:
    """Return the same machine, which does not boot but goes on from a state."""
    board = replace(machine.board, memory=MemoryFile(state.memory, private=True))
    return replace(machine, board=board, incoming=True)


def for_saving(machine: EngineMachine, state: GoldenState) -> EngineMachine:
    """Return the same machine as it boots to become a state: without a disk, its RAM in a file."""
    board = replace(machine.board, memory=MemoryFile(state.memory, private=False))
    return replace(machine, board=board, data_disk=None)
