"""Modes as `--chmod` takes them: octal, or symbolic as chmod(1) does. Pure."""

from __future__ import annotations

import re

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}


@frozen
class _Action:
    who: str  # of "ugo"
    operator: str
    permissions: str


@frozen
class ModeChange:
    """A parsed `--chmod`."""

    absolute: int | None
    actions: tuple[_Action, ...] = ()

    def apply(self, mode: int, *, directory: bool) -> int:
        """The new permission bits of a file that has `mode`."""
        if self.absolute is not None:
            return self.absolute
        for action in self.actions:
            mode = _applied(action, mode, directory=directory)
        return mode


def parse_mode(text: str) -> ModeChange:
    """InvalidArgument unless it is an octal or a symbolic mode."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        return ModeChange(int(text, 8))
    actions: list[_Action] = []
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise InvalidArgument(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        who = "ugo" if not found.group(1) or "a" in found.group(1) else found.group(1)
        actions += [_Action(who, operator, rights) for operator, rights in _ACTION.findall(found.group(2))]
    return ModeChange(None, tuple(actions))


def _applied(action: _Action, mode: int, *, directory: bool) -> int:
    bits = mask = 0
    for who in action.who:
        bits |= _bits(action.permissions, who, mode, directory=directory)
        mask |= 7 << _SHIFTS[who] | _SPECIAL[who]
    if "t" in action.permissions:
        bits |= 0o1000
        mask |= 0o1000
    if action.operator == "+":
        return mode | bits
    if action.operator == "-":
        return mode & ~bits
    return mode & ~mask | bits


def _bits(permissions: str, who: str, mode: int, *, directory: bool) -> int:
    shift = _SHIFTS[who]
    if permissions in _SHIFTS:
        return (mode >> _SHIFTS[permissions] & 7) << shift
    value = 0
    if "r" in permissions:
        value |= 4
    if "w" in permissions:
        value |= 2
    if "x" in permissions or ("X" in permissions and (directory or mode & 0o111)):
        value |= 1
    return value << shift | (_SPECIAL[who] if "s" in permissions else 0)
