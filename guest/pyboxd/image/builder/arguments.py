"""Build arguments: what ARG declares, what `--build-arg` gives, and what a stage sees of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyboxd.image.builder.doors import BuildArguments

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = frozenset(_PROXIES) | frozenset(name.lower() for name in _PROXIES)
"""Usable in RUN without an ARG; not part of the cache key or the history unless an ARG names them."""


def platform_arguments(target: str, build: str) -> dict[str, str]:
    """TARGETPLATFORM and its relatives for two platforms `os/architecture[/variant]`."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        system, architecture, variant = [*platform.split("/"), "", ""][:3]
        found |= {
            f"{prefix}PLATFORM": platform,
            f"{prefix}OS": system,
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant,
        }
    return found


@dataclass
class GlobalArguments:
    """Those of the whole build: given ones, the machine's, and ARGs before the first FROM."""

    given: BuildArguments
    platform: Mapping[str, str]
    declared: dict[str, str] = field(default_factory=dict)
    consumed: set[str] = field(default_factory=set)

    def declare(self, name: str, default: str | None) -> None:
        """An ARG before the first FROM."""
        value = self._given(name)
        if value is None:
            value = default if default is not None else self.platform.get(name)
        if value is not None:
            self.declared[name] = value

    def for_bases(self) -> Mapping[str, str]:
        """What variables in FROM lines mean."""
        return {**self.platform, **self.declared}

    def value(self, name: str, default: str | None) -> str | None:
        """The value of an ARG in a stage, None if it has none."""
        value = self._given(name)
        if value is None:
            value = default
        if value is None:
            value = self.declared.get(name, self.platform.get(name))
        return value

    def proxies(self) -> dict[str, str]:
        """The predefined arguments that were given."""
        return {name: value for name, value in self.given.items() if name in PREDEFINED and value is not None}

    def not_consumed(self) -> list[str]:
        return sorted(name for name in self.given if name not in self.consumed and name not in PREDEFINED)

    def _given(self, name: str) -> str | None:
        self.consumed.add(name)
        return self.given.get(name)


def environment(env: tuple[str, ...]) -> dict[str, str]:
    """`NAME=value` items as a mapping."""
    found = {}
    for item in env:
        name, _, value = item.partition("=")
        found[name] = value
    return found


def with_variable(env: tuple[str, ...], name: str, value: str) -> tuple[str, ...]:
    """`env` with one variable set, at its old place if it was there."""
    item = f"{name}={value}"
    if any(old.partition("=")[0] == name for old in env):
        return tuple(item if old.partition("=")[0] == name else old for old in env)
    return (*env, item)
