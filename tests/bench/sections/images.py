"""A layer of 100 MB: pulled from a registry on this computer, loaded over the API, built from."""

from __future__ import annotations

import http.client
import json
import re
import tempfile
import zlib
from collections.abc import Callable
from typing import IO

from pybox.errors import MachineError
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import LARGE, Image, build_context, digest
from tests.bench.lines import PYBOX, STOCK
from tests.bench.machine import Machine
from tests.support.registry import Registry, running_registry

_TYPES = "application/vnd.docker."
_HOST = "10.0.2.2"  # this computer's loopback, seen from the guest


def measure(bench: Bench) -> None:
    image = bench.content.large
    _pull(bench, image)
    with tempfile.TemporaryFile(dir=bench.folder) as archive:
        image.write_archive(archive)
        _load(bench, archive)
    _build(bench)


def _load(bench: Bench, archive: IO[bytes]) -> None:
    loaded: set[str] = set()

    def once(machine: Machine) -> float:
        if machine.name in loaded:
            machine.api.call("DELETE", f"/images/{LARGE}:latest")
        with stopwatch() as taken:
            machine.api.call("POST", "/images/load?quiet=1", stream=archive)
        loaded.add(machine.name)
        return taken[0]

    bench.both("images.load", once, bench.repeats.transfers, warm=0)


def _pull(bench: Bench, image: Image) -> None:
    if bench.registry is None:
        for side in (PYBOX, STOCK):
            bench.book.skip("images.pull", side, "docker-registry is not on PATH (apt-get install -y docker-registry)")
        return
    with running_registry(bench.folder / "registry") as registry:
        _push(registry, image)
        port = registry.address.rpartition(":")[2]

        def pulled(machine: Machine) -> float:
            name = f"{'localhost' if machine.name == PYBOX else _HOST}:{port}/{LARGE}"
            with stopwatch() as taken:
                machine.api.call("POST", f"/images/create?fromImage={name}&tag=latest")
            machine.api.call("DELETE", f"/images/{name}:latest")
            return taken[0]

        bench.both("images.pull", pulled, bench.repeats.transfers, warm=0)


def _build(bench: Bench) -> None:
    context = build_context()

    def build(query: str) -> Callable[[Machine], float]:
        def once(machine: Machine) -> float:
            with stopwatch() as taken:
                answer = machine.api.call("POST", f"/build?version=1&t=bench-built{query}", stream=context)
            if b"Successfully built" not in bytes(answer):
                raise MachineError("the build did not end well", bytes(answer)[-300:].decode(errors="replace"))
            return taken[0]

        return once

    bench.both("images.build", build("&nocache=1"), bench.repeats.transfers, warm=0)
    bench.both("images.cached", build(""), bench.repeats.transfers, warm=1)


def _push(registry: Registry, image: Image) -> None:
    """Put an image into a registry, its layer compressed with gzip."""
    packer = zlib.compressobj(6, wbits=31)
    packed = packer.compress(image.layer) + packer.flush()
    connection = http.client.HTTPConnection(registry.address.replace("localhost", "127.0.0.1"))
    for blob in (packed, image.config):
        place = re.sub(r"^https?://[^/]*", "", _ask(connection, "POST", f"/v2/{image.name}/blobs/uploads/"))
        _ask(connection, "PUT", f"{place}{'&' if '?' in place else '?'}digest={digest(blob)}", blob)
    kinds = (f"{_TYPES}container.image.v1+json", f"{_TYPES}image.rootfs.diff.tar.gzip")
    config, layer = (
        {"mediaType": kind, "size": len(blob), "digest": digest(blob)}
        for kind, blob in zip(kinds, (image.config, packed), strict=True)
    )
    kind = f"{_TYPES}distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}
    _ask(connection, "PUT", f"/v2/{image.name}/manifests/latest", json.dumps(manifest).encode(), kind)
    connection.close()


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream"
) -> str:
    """One request to the registry; where it says to go on."""
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise MachineError(f"registry: {method} {path}: {answer.status}", text.decode(errors="replace"))
    return answer.headers.get("Location", "")
