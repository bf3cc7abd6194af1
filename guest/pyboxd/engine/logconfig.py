"""`--log-driver` and `--log-opt`: checked, and as the runtime takes them. Pure."""

from __future__ import annotations

import re

from pyboxd.engine import expressions
from pyboxd.engine.model import LogConfig, Record
from pyboxd.errors import InvalidArgument
from pyboxd.runtime.spec import LogSettings

_KNOWN = frozenset(
    {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
)
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_LOCAL = (20 * 1000**2, 5)  # the driver `local`: bytes of a file, files


def check(config: LogConfig) -> None:
    """InvalidArgument in Docker's words."""
    for name, value in config.config:
        if name not in _KNOWN:
            raise InvalidArgument(f"unknown log opt '{name}' for {config.type} log driver")
        if name.endswith("-regex"):
            expressions.check(value, f"log opt '{name}'")
    settings(config, "")


def settings(config: LogConfig, path: str) -> LogSettings:
    """The runtime's settings for a log at `path`. InvalidArgument."""
    options = dict(config.config)
    local = config.type == "local"
    size, files = _LOCAL if local else (-1, 1)
    if "max-size" in options:
        size = parse_size(options["max-size"])
    if "max-file" in options:
        count = options["max-file"]
        if not count.isascii() or not count.isdigit() or len(count) > 9 or int(count) < 1:
            raise InvalidArgument("max-file cannot be less than 1")
        files = int(count)
    return LogSettings(driver=config.type, path=path, max_size=size, max_file=files)


def parse_size(text: str) -> int:
    """Bytes of "10m" (decimal units, as Docker's logs have them); -1 is no limit. InvalidArgument."""
    if text == "-1":
        return -1
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * _UNITS[found[2]])


def details(record: Record) -> dict[str, str]:
    """What `docker logs --details` shows with each line: the labels and variables that the log options name."""
    options = dict(record.host.log_config.config)
    variables = dict(variable.partition("=")[::2] for variable in record.config.env)
    found: dict[str, str] = {}
    for values, names, pattern in (
        (dict(record.config.labels), options.get("labels", ""), options.get("labels-regex", "")),
        (variables, options.get("env", ""), options.get("env-regex", "")),
    ):
        chosen = {name for name in names.split(",") if name in values}
        if pattern:
            chosen |= {name for name in values if re.search(pattern, name)}
        found |= {name: values[name] for name in chosen}
    if "tag" in options:
        found["tag"] = options["tag"]
    return dict(sorted(found.items()))
