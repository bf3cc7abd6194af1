"""Takes the engine's place in the guest: prepares it as `pyboxd init` does, runs pytest, powers off.

Run by the initrd as process 1 of a machine that exists only for the tests in `tests/guest`.
"""

from __future__ import annotations

import os
import sys

CODE = "/run/pyboxd/code"
MARK = "GUEST-TESTS exit"


def plug_cable() -> None:
    """This machine has no network card; a cable of which nobody holds the other end is one for the engine's tests."""
    from pyboxd.boot import settle
    from pyboxd.linux import netlink

    with open("/proc/self/ns/net") as here, netlink.RouteSocket() as route:
        route.execute(netlink.new_veth("eth0", mtu=1500, peer="cable", peer_namespace=here.fileno()))
        card = route.link("eth0").index
        route.execute(
            netlink.set_up("lo"),
            netlink.set_up("cable"),
            netlink.add_address(card, settle.ADDRESS, settle.PREFIX),
            netlink.default_route(settle.GATEWAY, card),
        )


def run_tests() -> int:
    from pyboxd.boot import devices, modules, settle
    from pyboxd.linux.mount import mount

    modules.load(settle.MODULES)
    plug_cable()
    for name, value in settle.SETTINGS.items():
        with open(f"/proc/sys/{name}", "w") as file:
            file.write(value)
    devices.bind(devices.DATA_SLOT, "virtio_blk")
    os.system("/usr/sbin/mke2fs -q -t ext4 /dev/vdb")
    mount("/dev/vdb", "/var/lib/pyboxd", "ext4")
    os.chdir(CODE)
    import pytest

    with open(f"{CODE}/pytest-arguments") as file:
        arguments = file.read().split("\n")
    return int(pytest.main(["-p", "no:cacheprovider", "-p", "no:unittest", "--rootdir", CODE, "-q", "-ra", *arguments]))


def main() -> None:
    sys.path[:0] = [CODE, f"{CODE}/site"]
    sys.path.append("/usr/lib/python3/dist-packages")
    os.environ["PYTHONPATH"] = f"{CODE}/site"  # for programs that tests start
    from pyboxd.boot import init

    os.environ.update(init._environment())
    init._prepare()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = run_tests()
        except BaseException as error:  # noqa: BLE001 - the status must reach the console
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            sys.stdout.flush()
            os._exit(status)
    while True:
        pid, result = os.waitpid(-1, 0)
        if pid == child:
            break
    print(f"{MARK} {os.waitstatus_to_exitcode(result)}", flush=True)
    init.power_off()


if __name__ == "__main__":
    main()
