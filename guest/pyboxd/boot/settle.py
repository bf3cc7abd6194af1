"""What has to be done once per boot and takes a while: devices, kernel modules, the network card, kernel settings.

A process of its own does it while the engine is starting; the engine waits for it (`system.wait_until_settled`).
The interpreter's memory for it is gone when it ends.
"""

from __future__ import annotations

from pyboxd.boot import devices, modules
from pyboxd.boot.start import mark_phase
from pyboxd.linux import netlink
from pyboxd.locations import RUN

ADDRESS = "10.0.2.15"  # QEMU's user network has these numbers by itself
PREFIX = 24
GATEWAY = "10.0.2.2"
NAMESERVER = "10.0.2.3"

# Loaded at start, in this order. Everything else is loaded by the kernel when it is asked for (/usr/sbin/modprobe).
FIRST_MODULES = ("virtio_net", "virtio_rng")
MODULES = (
    *("ext4", "overlay", "erofs"),
    *("bridge", "veth"),
    *("nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_reject_inet"),
)

SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "fs/inotify/max_user_watches": "524288",
    "fs/inotify/max_user_instances": "1024",
    "vm/max_map_count": "262144",  # databases and search engines refuse to start with the kernel's default
    "kernel/keys/maxkeys": "20000",
    "kernel/keys/root_maxkeys": "20000",
}


def settle() -> None:
    """Do all of it. Raises OSError or KeyError (a module the image does not have)."""
    modules.load(FIRST_MODULES)
    devices.bind(devices.RANDOM_SLOT, "virtio_rng")
    devices.bind(devices.NETWORK_SLOT, "virtio_net")
    _configure_network()
    for name, value in SETTINGS.items():
        with open(f"/proc/sys/{name}", "w") as file:
            file.write(value)
    modules.load(MODULES)
    mark_phase("settled")


def _configure_network() -> None:
    with netlink.RouteSocket() as route:
        card = route.link("eth0")
        route.execute(
            netlink.set_up("lo"),
            netlink.add_address(card.index, ADDRESS, PREFIX),
            netlink.set_up("eth0"),
            netlink.default_route(GATEWAY, card.index),
        )
    with open(f"{RUN}/resolv.conf", "w") as file:
        file.write(f"nameserver {NAMESERVER}\n")
