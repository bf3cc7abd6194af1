"""Seccomp profiles: ours (`seccomp_default.json`) and those in Docker's JSON, made into a filter for one container.

What a filter depends on is the profile and the container's capabilities.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pyboxd.errors import InvalidArgument
from pyboxd.linux.seccomp import ACTIONS, COMPARISONS, Comparison, Filter, Rule
from pyboxd.linux.seccomp_compiler import compile_filter

from .spec import DEFAULT_CAPABILITIES

DEFAULT, UNCONFINED = "default", "unconfined"
_compiled: dict[tuple[str, frozenset[str]], bytes] = {}
_DEFAULT_FILE = "seccomp_default.json"
# the machine as uname says it: Docker's names for it, and the machines whose programs its kernel runs
_MACHINES = {
    "x86_64": (("amd64", "x32", "x86"), ("x86_64", "x86")),
    "aarch64": (("arm64", "arm"), ("aarch64", "arm")),
}


def program(profile: str, capabilities: frozenset[str]) -> bytes:
    """The compiled filter for a profile ("default" or Docker's JSON). InvalidArgument."""
    found = _compiled.get((profile, capabilities))
    return found or compile_filter(make_filter(profile, capabilities, os.uname().machine))


def prepare() -> None:
    """Compile what almost all containers use: in a process that forks, all its children have it then."""
    _compiled[DEFAULT, DEFAULT_CAPABILITIES] = program(DEFAULT, DEFAULT_CAPABILITIES)


def make_filter(profile: str, capabilities: frozenset[str], machine: str) -> Filter:
    """The filter that a profile means for these capabilities on this machine. InvalidArgument."""
    if profile == DEFAULT:
        with open(os.path.join(os.path.dirname(__file__), _DEFAULT_FILE), encoding="ascii") as file:
            return _ours(json.load(file), capabilities, machine)
    try:
        parsed = json.loads(profile)
        return _dockers(parsed, capabilities, machine)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error!r}") from error


def _arches(machine: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _MACHINES[machine]


def _ours(data: Mapping[str, Any], capabilities: frozenset[str], machine: str) -> Filter:
    names, machines = _arches(machine)
    rules = [Rule(tuple(data["allow"]))]
    for entry in data["rules"]:
        if not _applies(entry.get("arches"), entry.get("caps"), (), entry.get("without_caps"), capabilities, names):
            continue
        action, number = ("SCMP_ACT_ERRNO", entry["errno"]) if "errno" in entry else ("SCMP_ACT_ALLOW", 0)
        for comparisons in _our_comparisons(entry):
            rules.append(Rule(tuple(entry["names"]), action, number, comparisons))
    return Filter("SCMP_ACT_ERRNO", data["errno"], machines, tuple(rules))


def _our_comparisons(entry: Mapping[str, Any]) -> list[tuple[Comparison, ...]]:
    """One rule per way in which the argument may be right."""
    index = entry.get("argument", 0)
    if "below" in entry:
        return [(Comparison(index, "SCMP_CMP_LT", entry["below"]),)]
    if "above" in entry:
        return [(Comparison(index, "SCMP_CMP_GT", entry["above"]),)]
    if "masked_zero" in entry:
        return [(Comparison(index, "SCMP_CMP_MASKED_EQ", entry["masked_zero"]),)]
    return [(Comparison(index, "SCMP_CMP_EQ", value),) for value in entry["equal"]] if "equal" in entry else [()]


def _dockers(data: Mapping[str, Any], capabilities: frozenset[str], machine: str) -> Filter:
    names, machines = _arches(machine)
    rules = []
    for entry in data.get("syscalls") or []:
        includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
        applies = _applies(
            includes.get("arches"),
            includes.get("caps"),
            excludes.get("arches"),
            excludes.get("caps"),
            capabilities,
            names,
        )
        if applies:
            rules.append(_docker_rule(entry))
    default = data["defaultAction"]
    if default not in ACTIONS:
        raise ValueError(f"unknown action {default}")
    listed = data.get("architectures")
    if listed is not None:
        known = {name.removeprefix("SCMP_ARCH_").lower() for name in listed}
        machines = tuple(name for name in machines if name in known or name == machine)
    return Filter(default, _number(data.get("defaultErrnoRet")), machines, tuple(rules))


def _docker_rule(entry: Mapping[str, Any]) -> Rule:
    if entry["action"] not in ACTIONS:
        raise ValueError(f"unknown action {entry['action']}")
    comparisons = []
    for argument in entry.get("args") or []:
        if argument["op"] not in COMPARISONS:
            raise ValueError(f"unknown operator {argument['op']}")
        second = argument.get("valueTwo", 0)
        comparisons.append(Comparison(argument["index"], argument["op"], argument["value"], second))
    names = entry.get("names") or [entry["name"]]
    return Rule(tuple(names), entry["action"], _number(entry.get("errnoRet")), tuple(comparisons))


def _number(value: int | None) -> int:
    return 1 if value is None else value  # EPERM


def _applies(
    arches: Iterable[str] | None,
    caps: Iterable[str] | None,
    without_arches: Iterable[str] | None,
    without_caps: Iterable[str] | None,
    capabilities: frozenset[str],
    machine_names: tuple[str, ...],
) -> bool:
    """moby, profiles/seccomp: every condition that is stated must hold; of several arches one is enough."""
    if arches and not set(arches) & set(machine_names):
        return False
    if caps and not set(caps) <= capabilities:
        return False
    if without_arches and set(without_arches) & set(machine_names):
        return False
    return not (without_caps and set(without_caps) & capabilities)
