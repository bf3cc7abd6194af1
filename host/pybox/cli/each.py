"""Commands that do one thing to each of several names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pybox.cli import output
from pybox.errors import EngineError


def each(names: Iterable[str], action: Callable[[str], Any], show: Callable[[Any], str | None] | None = None) -> int:
    """Do `action` to every name; 1 if any failed (each error is shown).

    Prints the name, or `show` of the result, unless that is None.
    """
    status = 0
    for name in names:
        try:
            result = action(name)
        except EngineError as error:
            output.show_error(error)
            status = 1
        else:
            text = name if show is None else show(result)
            if text is not None:
                output.say(text)
    return status
