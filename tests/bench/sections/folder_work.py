"""The work on a shared folder, run in a container with the folder at /shared. Prints rates as JSON. No dependencies."""

import json
import os
import time
from collections.abc import Callable

TREE = "/shared/tree"
NEW = "/shared/new"
FILE = "/shared/large"
COUNT = 300
MIB = 1 << 20
SIZE = 64  # MiB


def drop_caches() -> None:
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as control:
        control.write("3\n")


def walk() -> int:
    count = 0
    for base, _folders, files in os.walk(TREE):
        for name in files:
            os.lstat(f"{base}/{name}")
            count += 1
    return count


def create() -> int:
    os.mkdir(NEW)
    data = bytes(1024)
    for number in range(COUNT):
        with open(f"{NEW}/{number}", "wb") as file:
            file.write(data)
    return COUNT


def read_small() -> int:
    for number in range(COUNT):
        with open(f"{NEW}/{number}", "rb") as file:
            if len(file.read()) != 1024:
                raise ValueError(f"file {number} is cut short")
    return COUNT


def unlink() -> int:
    for number in range(COUNT):
        os.unlink(f"{NEW}/{number}")
    return COUNT


def write_large() -> float:
    block = os.urandom(MIB)
    with open(FILE, "wb", buffering=0) as file:
        for _ in range(SIZE):
            file.write(block)
        os.fsync(file.fileno())
    return SIZE * MIB / 1e6


def read_large() -> float:
    buffer = bytearray(MIB)
    count = 0
    with open(FILE, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            count += got
    if count != SIZE * MIB:
        raise ValueError("the large file is cut short")
    return count / 1e6


def rate(work: Callable[[], float]) -> float:
    began = time.monotonic()
    amount = work()
    return amount / (time.monotonic() - began)


def main() -> None:
    found = {}
    drop_caches()
    found["walk"] = rate(walk)
    found["again"] = rate(walk)
    found["create"] = rate(create)
    drop_caches()
    found["small"] = rate(read_small)
    found["unlink"] = rate(unlink)
    os.rmdir(NEW)
    found["write"] = rate(write_large)
    drop_caches()
    found["read"] = rate(read_large)
    os.unlink(FILE)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
