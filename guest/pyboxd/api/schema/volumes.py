"""Docker's JSON of volumes."""

from __future__ import annotations

from pyboxd.api.fields import PAIRS, TEXT, Field, JsonObject, Table
from pyboxd.engine.model import Pairs
from pyboxd.engine.store import Volume
from pyboxd.engine.timestamps import rfc3339
from pyboxd.frozen import frozen


@frozen
class VolumeRequest:
    """The body of POST /volumes/create."""

    name: str = ""
    driver: str = ""
    labels: Pairs = ()
    options: Pairs = ()


_REQUEST = Table(
    VolumeRequest,
    "VolumeCreateOptions",
    Field("Name", "name", TEXT),
    Field("Driver", "driver", TEXT),
    Field("DriverOpts", "options", PAIRS),
    Field("Labels", "labels", PAIRS),
)


def decode_create(value: object) -> VolumeRequest:
    """InvalidArgument."""
    return _REQUEST.decode(value if value is not None else {})


def volume(item: Volume, path: str) -> JsonObject:
    """One volume; `path` is its directory in the guest."""
    return {
        "CreatedAt": rfc3339(item.created // 10**9 * 10**9),
        "Driver": "local",
        "Labels": dict(item.labels) or None,
        "Mountpoint": path,
        "Name": item.name,
        "Options": dict(item.options) or None,
        "Scope": "local",
    }
