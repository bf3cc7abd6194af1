"""Filters to classic BPF. Pure; the numbers of the calls are data beside this module (`syscall_numbers.json`).

Why not libseccomp: its program for the default profile has 1,300 instructions, one comparison per call, and the
kernel compiles and probes the program again for every process that loads it, which was a fifth of a container's
start. Allowed calls have neighbouring numbers, so a search over the borders of ranges needs a third of that.

A filter is first a graph of small nodes (`_Return`, `_Load`, `_And`, `_Test`), then written from its end to its
start, because jumps go forward only: whatever a jump leads to has its place already.
"""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Sequence

from .seccomp import Comparison, Filter, Rule, verdict

_NUMBERS_FILE = "syscall_numbers.json"
# linux/audit.h
_AUDIT_ARCH = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
_KILL = 0x00000000  # SECCOMP_RET_KILL_THREAD, for machines that the filter does not know

# linux/bpf_common.h
_LD_W_ABS, _ALU_AND_K, _JA, _RET_K = 0x20, 0x54, 0x05, 0x06
_JEQ, _JGT, _JGE, _JSET = 0x15, 0x25, 0x35, 0x45
_INSTRUCTION = struct.Struct("=HBBI")
_FARTHEST = 255  # instructions that a conditional jump can skip

# struct seccomp_data, linux/seccomp.h; both machines are little endian
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
_LOW, _HIGH = 0, 4


# Plain classes, compared by identity: a filter has hundreds of nodes, and a verdict is made only once.
class _Return:
    def __init__(self, value: int) -> None:
        self.value = value


class _Load:
    def __init__(self, offset: int, then: _Node) -> None:
        self.offset = offset
        self.then = then


class _And:
    def __init__(self, mask: int, then: _Node) -> None:
        self.mask = mask
        self.then = then


class _Test:
    def __init__(self, opcode: int, value: int, if_true: _Node, if_false: _Node) -> None:
        self.opcode = opcode
        self.value = value
        self.if_true = if_true
        self.if_false = if_false


_Node = _Return | _Load | _And | _Test
_returning = functools.cache(_Return)
_Ranges = list[tuple[int, _Node]]  # where each begins; it ends where the next one begins


def compile_filter(wanted: Filter) -> bytes:
    """The program for a filter. A call that no machine knows by its name is left out: nothing can call it so."""
    with open(os.path.join(os.path.dirname(__file__), _NUMBERS_FILE), encoding="ascii") as file:
        table = json.load(file)
    numbers: dict[str, list[int | None]] = table["numbers"]
    node: _Node = _returning(_KILL)
    for machine in reversed(wanted.machines):
        column = table["machines"].index(machine)
        calls = _by_number(wanted.rules, numbers, column)
        node = _Test(_JEQ, _AUDIT_ARCH[machine], _Load(_NR, _calls(calls, wanted)), node)
    return _Writer().write(_Load(_ARCH, node))


def _by_number(rules: Sequence[Rule], numbers: dict[str, list[int | None]], column: int) -> dict[int, list[Rule]]:
    found: dict[int, list[Rule]] = {}
    for rule in rules:
        for name in rule.names:
            row = numbers.get(name)
            number = row[column] if row else None
            if number is not None:
                found.setdefault(number, []).append(rule)
    return found


def _calls(calls: dict[int, list[Rule]], wanted: Filter) -> _Node:
    default = _returning(verdict(wanted.default_action, wanted.default_number))
    ranges: _Ranges = [(0, default)]
    for number in sorted(calls):
        if ranges[-1][0] == number:
            ranges.pop()
        ranges += [(number, _one_call(calls[number], default)), (number + 1, default)]
    return _search(_merged(ranges))


def _merged(ranges: _Ranges) -> _Ranges:
    """Without borders between equal neighbours."""
    merged = ranges[:1]
    for begin, node in ranges[1:]:
        if node != merged[-1][1]:
            merged.append((begin, node))
    return merged


def _search(ranges: _Ranges) -> _Node:
    """Which range the loaded value is in, by halving."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    return _Test(_JGE, ranges[middle][0], _search(ranges[middle:]), _search(ranges[:middle]))


def _one_call(rules: list[Rule], default: _Return) -> _Node:
    """The verdict on one call. A rule without a condition decides; of several with one, the first that holds."""
    for rule in rules:
        if not rule.comparisons:
            return _returning(verdict(rule.action, rule.number))
    simple = _small_values(rules, default)
    if simple:
        return simple
    node: _Node = default
    for rule in reversed(rules):
        action: _Node = _returning(verdict(rule.action, rule.number))
        for comparison in reversed(rule.comparisons):
            action = _compare(comparison, action, node)
        node = action
    return node


def _small_values(rules: list[Rule], default: _Return) -> _Node | None:
    """A search instead of a chain, if all rules ask one argument for small values and say the same of them."""
    first = rules[0]
    index = first.comparisons[0].index
    values: list[tuple[int, int]] = []
    for rule in rules:
        comparison = rule.comparisons[0]
        same = (rule.action, rule.number) == (first.action, first.number) and len(rule.comparisons) == 1
        if not same or comparison.index != index or comparison.value >> 32:
            return None
        if comparison.operator not in ("SCMP_CMP_EQ", "SCMP_CMP_LT"):
            return None
        is_equal = comparison.operator == "SCMP_CMP_EQ"
        values.append((comparison.value if is_equal else 0, comparison.value + is_equal))
    yes = _returning(verdict(first.action, first.number))
    ranges: _Ranges = [(0, default)]
    for begin, end in sorted(values):
        if begin <= ranges[-1][0]:  # goes on where the last one ended, or overlaps it
            last, _ = ranges.pop()
            begin, end = min(begin, last), max(end, last)
        ranges += [(begin, yes), (end, default)] if end > begin else [(begin, default)]
    if ranges[-1][0] >> 32:
        ranges.pop()
    offset = _ARGUMENTS + 8 * index
    search = _Load(offset + _LOW, _search(_merged(ranges)))
    return _Load(offset + _HIGH, _Test(_JEQ, 0, search, default))


def _compare(comparison: Comparison, yes: _Node, no: _Node) -> _Node:
    """A comparison of a 64-bit argument in halves of 32 bits, the high one first."""
    offset = _ARGUMENTS + 8 * comparison.index
    value = comparison.value
    if comparison.operator == "SCMP_CMP_MASKED_EQ":
        low = _And(value & 0xFFFFFFFF, _Test(_JEQ, comparison.second & value & 0xFFFFFFFF, yes, no))
        high = _And(value >> 32, _Test(_JEQ, (comparison.second & value) >> 32, _Load(offset + _LOW, low), no))
        return _Load(offset + _HIGH, high)
    if comparison.operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        opposite = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}
        return _compare(Comparison(comparison.index, opposite[comparison.operator], value), no, yes)
    opcode = {"SCMP_CMP_EQ": _JEQ, "SCMP_CMP_GE": _JGE, "SCMP_CMP_GT": _JGT}[comparison.operator]
    low_half = _Load(offset + _LOW, _Test(opcode, value & 0xFFFFFFFF, yes, no))
    equal = _Test(_JEQ, value >> 32, low_half, no)
    if opcode == _JEQ:
        return _Load(offset + _HIGH, equal)
    return _Load(offset + _HIGH, _Test(_JGT, value >> 32, yes, equal))


class _Writer:
    """Writes a graph of nodes from its end. Places are counted from the end too."""

    def __init__(self) -> None:
        self._code: list[bytes] = []  # last instruction first
        self._places: dict[_Node, int] = {}

    def write(self, node: _Node) -> bytes:
        self._place(node)
        return b"".join(reversed(self._code))

    def _place(self, node: _Node) -> int:
        """Where a node is; written now if it is not."""
        found = self._places.get(node)
        if found is None:
            found = self._places[node] = self._write(node)
        return found

    def _write(self, node: _Node) -> int:
        if isinstance(node, _Return):
            return self._add(_RET_K, 0, 0, node.value)
        if isinstance(node, _Test):
            when_false, when_true = self._place(node.if_false), self._place(node.if_true)
            # each bridge moves the other jump's start away by one, so the farther target is looked at first
            when_false = self._near(node.if_false, when_false, room=1)
            when_true = self._near(node.if_true, when_true, room=0)
            here = len(self._code)
            return self._add(node.opcode, here - when_true - 1, here - when_false - 1, node.value)
        then = self._place(node.then)
        if then != len(self._code) - 1:  # these two go on with the next instruction, wherever it leads
            self._add(_JA, 0, 0, len(self._code) - then - 1)
        if isinstance(node, _Load):
            return self._add(_LD_W_ABS, 0, 0, node.offset)
        return self._add(_ALU_AND_K, 0, 0, node.mask)

    def _near(self, node: _Node, place: int, room: int) -> int:
        """A place from which `node` goes on and that a conditional jump written next (or next but one) reaches."""
        distance = len(self._code) + room - place - 1
        if distance <= _FARTHEST:
            return place
        if isinstance(node, _Return):
            self._places[node] = self._add(_RET_K, 0, 0, node.value)
            return self._places[node]
        return self._add(_JA, 0, 0, len(self._code) - place - 1)

    def _add(self, opcode: int, when_true: int, when_false: int, value: int) -> int:
        self._code.append(_INSTRUCTION.pack(opcode, when_true, when_false, value))
        return len(self._code) - 1
