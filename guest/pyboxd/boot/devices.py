"""The machine's virtio devices: each at a fixed place on the PCI bus, each bound to its driver by hand.

The initrd has turned automatic binding off, so that the data disk has no driver, and the kernel holds no page of
it, until the machine is configured.
"""

from __future__ import annotations

import os

# Slots on the root bus; QEMU's command line has the same numbers.
NETWORK_SLOT = 0x4
DATA_SLOT = 0x6
RANDOM_SLOT = 0x7

_PORTS = "/sys/class/virtio-ports"


def _virtio_device(slot: int) -> str:
    """The sysfs folder of the virtio device in a slot. FileNotFoundError when the machine has none."""
    parent = f"/sys/bus/pci/devices/0000:00:{slot:02x}.0"
    for name in os.listdir(parent):
        if name.startswith("virtio"):
            return f"{parent}/{name}"
    raise FileNotFoundError(2, "no virtio device in this slot", parent)


def bind(slot: int, driver: str) -> str:
    """Give the device in a slot to its driver (no-op when it has one); the device's folder in sysfs. OSError."""
    device = _virtio_device(slot)
    if not os.path.exists(f"{device}/driver"):
        with open(f"/sys/bus/virtio/drivers/{driver}/bind", "w") as file:
            file.write(os.path.basename(device))
    return device


def block_device(device: str) -> str:
    """The node of the disk behind a bound virtio device: "/dev/vdb"."""
    (name,) = os.listdir(f"{device}/block")
    return f"/dev/{name}"


def port(name: str) -> str:
    """The node of the virtio serial port that QEMU calls `name`. FileNotFoundError when there is none."""
    for entry in os.listdir(_PORTS):
        with open(f"{_PORTS}/{entry}/name") as file:
            if file.read().strip() == name:
                return f"/dev/{entry}"
    raise FileNotFoundError(2, f"the machine has no port {name}", _PORTS)
