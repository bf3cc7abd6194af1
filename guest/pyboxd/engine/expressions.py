"""Regular expressions that clients write, before they are used. Pure.

Docker's kind of expressions (RE2) takes no longer than the text is long. Python's may try one text in more ways than there
is time for, and nothing else could be answered meanwhile.
"""

from __future__ import annotations

import re

from pyboxd.errors import InvalidArgument

_REPEAT = re.compile(r"[*+?}]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_MOST_REPEATS = 5  # each may multiply the ways by the length of the text


def check(text: str, what: str) -> None:
    """InvalidArgument for what is no expression, and for one that could take too long; `what` names it."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"invalid {what}: {error}") from None
    if len(_REPEAT.findall(text)) > _MOST_REPEATS or _REPEATED_GROUP.search(text):
        raise InvalidArgument(f"invalid {what}: the expression repeats too much")
