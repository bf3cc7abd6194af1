"""Signal names as Docker's clients write them. Pure."""

from __future__ import annotations

import signal

from pyboxd.errors import InvalidArgument

_LAST = 64


def parse(text: str) -> int:
    """The number of "SIGTERM", "term", "15", "RTMIN+3". InvalidArgument."""
    if text.isdecimal():
        if text.isascii() and len(text) < 4 and 0 < int(text) <= _LAST:
            return int(text)
        raise InvalidArgument(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    if base in ("RTMIN", "RTMAX") and (not sign or (offset.isascii() and offset.isdigit() and len(offset) < 4)):
        start = int(signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX)
        number = start + int(offset or "0") * (-1 if sign == "-" else 1)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif f"SIG{name}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{name}"])
    raise InvalidArgument(f"invalid signal: {text}")
