"""Times as Docker writes and reads them: RFC 3339 with nanoseconds out, seconds or RFC 3339 in. Pure."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from pyboxd.errors import InvalidArgument

ZERO = "0001-01-01T00:00:00Z"  # Go's zero time: "never"
_GO_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.([0-9]{1,9})[0-9]*)?")
_LONGEST = (1 << 63) - 1  # nanoseconds, as Go keeps them
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9})\d*)?)?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)


def rfc3339(nanoseconds: int, fixed: bool = False) -> str:
    """`2026-01-02T03:04:05.6Z`; with `fixed` always nine digits, as log lines have them. 0 is Go's zero time."""
    if nanoseconds == 0:
        return ZERO
    seconds, rest = divmod(nanoseconds, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{rest:09d}"
    if not fixed:
        digits = digits.rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def parse(text: str) -> int:
    """Nanoseconds of `since`, `until` and their like: seconds with a fraction, RFC 3339, or a Go duration before
    now ("10m"). InvalidArgument."""
    number = _NUMBER.fullmatch(text)
    if number:
        return int(number[1]) * 10**9 + int((number[2] or "0").ljust(9, "0"))
    if _GO_DURATION.match(text):
        return time.time_ns() - duration(text)
    return parse_rfc3339(text)


def parse_rfc3339(text: str) -> int:
    """Nanoseconds of a date; without a zone it is taken as UTC. InvalidArgument."""
    found = _RFC3339.fullmatch(text)
    if not found:
        raise InvalidArgument(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it')
    date, clock, fraction, zone = found.groups()
    clock = clock or "00:00:00"
    clock += ":00" if clock.count(":") == 1 else ""
    zone = "+00:00" if not zone or zone.upper() == "Z" else zone
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone}").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f'parsing time "{text}": {error}') from None
    return int(moment.timestamp()) * 10**9 + int((fraction or "0").ljust(9, "0"))


def duration(text: str) -> int:
    """Nanoseconds of a Go duration ("1h30m"). InvalidArgument."""
    if not re.fullmatch(rf"(?:{_GO_DURATION.pattern})+", text):
        raise InvalidArgument(f'time: invalid duration "{text}"')
    total = sum(float(number) * _UNITS[unit] for number, unit in _GO_DURATION.findall(text))
    if total > _LONGEST:
        raise InvalidArgument(f'time: invalid duration "{text}"')
    return int(total)
