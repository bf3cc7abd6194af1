"""Image configurations: JSON of Docker and OCI <-> `ImageDocument`. Pure.

Field names are those of image-spec `config.md` and Docker's additions (Healthcheck, OnBuild, Shell). Unknown fields
are not kept: an image that came from outside keeps its original bytes, this module writes only new ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pyboxd.errors import InvalidArgument
from pyboxd.image.model import HistoryEntry, ImageDocument
from pyboxd.image.reference import is_digest
from pyboxd.model import Healthcheck, ImageConfig

_Object = dict[str, Any]
MAX_CONFIG = 8 * 1024 * 1024  # bytes; Docker's own bound on a manifest or configuration is 4 MiB


def digest_of(data: bytes) -> str:
    """`sha256:…` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_ids(layers: Sequence[str]) -> tuple[str, ...]:
    """The name of each layer over those below it (image-spec, config.md), lowest first."""
    found: list[str] = []
    for diff_id in layers:
        found.append(digest_of(f"{found[-1]} {diff_id}".encode()) if found else diff_id)
    return tuple(found)


def decode(raw: bytes) -> ImageDocument:
    """Read a configuration; InvalidArgument says what is wrong with it."""
    if len(raw) > MAX_CONFIG:
        raise InvalidArgument("invalid image configuration: larger than 8 MiB")
    value = _object(_parse(raw), "image configuration")
    root = _object(value.get("rootfs"), "rootfs")
    layers = _texts(root.get("diff_ids"), "rootfs.diff_ids")
    for layer in layers:
        if not is_digest(layer):
            raise InvalidArgument(f"invalid image configuration: diff id {layer!r}")
    history = value.get("history") or []
    if not isinstance(history, list):
        raise InvalidArgument("invalid image configuration: history is not a list")
    return ImageDocument(
        architecture=_text(value, "architecture"),
        os=_text(value, "os") or "linux",
        variant=_text(value, "variant"),
        config=decode_config(value.get("config")),
        layers=layers,
        history=tuple(_history(_object(item, "history entry")) for item in history),
        created=_text(value, "created"),
        author=_text(value, "author"),
        comment=_text(value, "comment"),
        docker_version=_text(value, "docker_version"),
    )


def encode(document: ImageDocument) -> bytes:
    """The bytes of a new configuration: compact, fields in a fixed order, empty ones left out."""
    value: _Object = {"architecture": document.architecture}
    _put(value, "variant", document.variant)
    value["config"] = encode_config(document.config)
    _put(value, "author", document.author)
    _put(value, "comment", document.comment)
    _put(value, "created", document.created)
    _put(value, "docker_version", document.docker_version)
    value["history"] = [_encode_history(entry) for entry in document.history]
    value["os"] = document.os
    value["rootfs"] = {"type": "layers", "diff_ids": list(document.layers)}
    return json.dumps(value, separators=(",", ":")).encode()  # ASCII: a label may hold half a surrogate pair


def decode_config(value: object) -> ImageConfig:
    """The `config` property: Docker's container configuration as far as images carry it."""
    if value is None:
        return ImageConfig()
    data = _object(value, "config")
    return ImageConfig(
        user=_text(data, "User"),
        exposed_ports=tuple(_keys(data.get("ExposedPorts"), "ExposedPorts")),
        env=_texts(data.get("Env"), "Env"),
        entrypoint=_command(data.get("Entrypoint"), "Entrypoint"),
        cmd=_command(data.get("Cmd"), "Cmd"),
        volumes=tuple(_keys(data.get("Volumes"), "Volumes")),
        working_dir=_text(data, "WorkingDir"),
        labels=_labels(data.get("Labels")),
        stop_signal=_text(data, "StopSignal"),
        shell=_command(data.get("Shell"), "Shell"),
        on_build=_texts(data.get("OnBuild"), "OnBuild"),
        healthcheck=_healthcheck(data.get("Healthcheck")),
    )


def encode_config(config: ImageConfig) -> _Object:
    """The JSON of `config`, without empty fields."""
    value: _Object = {}
    _put(value, "User", config.user)
    _put(value, "ExposedPorts", {port: {} for port in config.exposed_ports})
    _put(value, "Env", list(config.env))
    if config.entrypoint is not None:
        value["Entrypoint"] = list(config.entrypoint)
    if config.cmd is not None:
        value["Cmd"] = list(config.cmd)
    _put(value, "Volumes", {path: {} for path in config.volumes})
    _put(value, "WorkingDir", config.working_dir)
    _put(value, "Labels", dict(config.labels))
    _put(value, "StopSignal", config.stop_signal)
    if config.shell is not None:
        value["Shell"] = list(config.shell)
    _put(value, "OnBuild", list(config.on_build))
    if config.healthcheck is not None:
        value["Healthcheck"] = _encode_healthcheck(config.healthcheck)
    return value


def _parse(raw: bytes) -> object:
    try:
        value: object = json.loads(raw)
    except ValueError as error:
        raise InvalidArgument(f"invalid image configuration: {error}") from error
    except RecursionError as error:
        raise InvalidArgument("invalid image configuration: nested too deeply") from error
    return value


def _object(value: object, what: str) -> _Object:
    if not isinstance(value, dict):
        raise InvalidArgument(f"invalid image configuration: {what} is not an object")
    return value


def _text(value: Mapping[str, object], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise InvalidArgument(f"invalid image configuration: {key} is not a string")
    return found


def _texts(value: object, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"invalid image configuration: {what} is not a list of strings")
    return tuple(value)


def _command(value: object, what: str) -> tuple[str, ...] | None:
    """Old images write a command as one string; null and absent mean "not set"."""
    if value is None:
        return None
    if isinstance(value, str):
        return ("/bin/sh", "-c", value)
    return _texts(value, what)


def _keys(value: object, what: str) -> Sequence[str]:
    if value is None:
        return ()
    if isinstance(value, list):  # written so by some old tools
        return _texts(value, what)
    return list(_object(value, what))


def _labels(value: object) -> Mapping[str, str]:
    if value is None:
        return MappingProxyType({})
    labels = _object(value, "Labels")
    return MappingProxyType({key: str(text) for key, text in labels.items()})


def _history(value: _Object) -> HistoryEntry:
    return HistoryEntry(
        created=_text(value, "created"),
        created_by=_text(value, "created_by"),
        author=_text(value, "author"),
        comment=_text(value, "comment"),
        empty_layer=bool(value.get("empty_layer")),
    )


def _encode_history(entry: HistoryEntry) -> _Object:
    value: _Object = {}
    _put(value, "created", entry.created)
    _put(value, "created_by", entry.created_by)
    _put(value, "author", entry.author)
    _put(value, "comment", entry.comment)
    _put(value, "empty_layer", entry.empty_layer)
    return value


def _healthcheck(value: object) -> Healthcheck | None:
    if value is None:
        return None
    data = _object(value, "Healthcheck")

    def number(key: str) -> int:
        found = data.get(key) or 0
        if not isinstance(found, int) or isinstance(found, bool):
            raise InvalidArgument(f"invalid image configuration: Healthcheck.{key} is not a number")
        return found

    return Healthcheck(
        test=_texts(data.get("Test"), "Healthcheck.Test"),
        interval=number("Interval"),
        timeout=number("Timeout"),
        start_period=number("StartPeriod"),
        start_interval=number("StartInterval"),
        retries=number("Retries"),
    )


def _encode_healthcheck(check: Healthcheck) -> _Object:
    value: _Object = {}
    _put(value, "Test", list(check.test))
    _put(value, "Interval", check.interval)
    _put(value, "Timeout", check.timeout)
    _put(value, "StartPeriod", check.start_period)
    _put(value, "StartInterval", check.start_interval)
    _put(value, "Retries", check.retries)
    return value


def _put(value: _Object, key: str, item: object) -> None:
    if item:
        value[key] = item
