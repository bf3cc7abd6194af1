"""JSON that comes from outside, read as Go's decoder reads it where Python's own differs.

Bytes that are no UTF-8, and halves of surrogate pairs, become U+FFFD, so that every text can be written again; NaN and
the infinities, which are no JSON, are refused; and nothing but ValueError is raised.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError for what is none, and for what is nested too deeply."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_refuse)
        if "\\ud" in text.lower():  # pairs are characters by now, and halves are left
            whole = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            value = json.loads(whole.decode("utf-16-le", "replace"))
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
