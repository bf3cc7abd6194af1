"""What a container may do: `--cap-add`, `--cap-drop`, `--privileged` and `--security-opt` worked out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pyboxd.engine.model import HostConfig
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.linux import caps
from pyboxd.runtime.spec import DEFAULT_CAPABILITIES, MASKED_PATHS, READONLY_PATHS

_ALL = "ALL"
_TRUE = frozenset({"", "true", "1"})
_FALSE = frozenset({"false", "0"})


@frozen
class Security:
    """The outcome, as the runtime takes it."""

    capabilities: frozenset[str]
    seccomp: str  # "default", "unconfined" or a profile
    no_new_privileges: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]


def work_out(host: HostConfig) -> Security:
    """The rights of a container. InvalidArgument in Docker's words."""
    options = _parse_options(host.security_opt or ())
    privileged = host.privileged
    unmasked = privileged or options.systempaths_unconfined
    return Security(
        capabilities=caps.ALL if privileged else capabilities(host.cap_add or (), host.cap_drop or ()),
        seccomp="unconfined" if privileged and options.seccomp == "default" else options.seccomp,
        no_new_privileges=options.no_new_privileges,
        masked_paths=_paths(host.masked_paths, MASKED_PATHS, unmasked),
        readonly_paths=_paths(host.readonly_paths, READONLY_PATHS, unmasked),
    )


def _paths(asked: tuple[str, ...] | None, default: tuple[str, ...], none: bool) -> tuple[str, ...]:
    """A list that the client sent counts as it is; the CLI sends an empty one for `systempaths=unconfined`."""
    if asked is not None:
        return asked
    return () if none else default


def capabilities(add: Sequence[str], drop: Sequence[str]) -> frozenset[str]:
    """Docker's default set with `add` and `drop` applied (moby, daemon/pkg/oci/caps: TweakCapabilities)."""
    added, dropped = _normalise("CapAdd", add), _normalise("CapDrop", drop)
    if _ALL in added:
        return caps.ALL - dropped if _ALL not in dropped else caps.ALL
    if _ALL in dropped:
        return frozenset(added)
    return frozenset((DEFAULT_CAPABILITIES - dropped) | added)


def _normalise(option: str, names: Sequence[str]) -> frozenset[str]:
    found = set()
    for name in names:
        upper = name.upper()
        if upper != _ALL:
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            if upper not in caps.ALL:
                raise InvalidArgument(f'invalid {option}: unknown capability: "{upper}"')
        found.add(upper)
    return frozenset(found)


@frozen
class _Options:
    seccomp: str = "default"
    no_new_privileges: bool = False
    systempaths_unconfined: bool = False


def _parse_options(options: Sequence[str]) -> _Options:
    seccomp, no_new_privileges, unconfined = "default", False, False
    for option in options:
        # `key:value` is the form of old clients; a profile is JSON and has both signs in it.
        separator = "=" if "=" in option else ":"
        key, _, value = option.partition(separator)
        match key:
            case "no-new-privileges":
                no_new_privileges = _switch(option, value)
            case "seccomp":
                seccomp = "default" if value in ("", "builtin") else value
            case "systempaths" if value == "unconfined":
                unconfined = True
            case "apparmor" | "label" | "writable-cgroups":
                pass  # the guest has no such security module, and cgroups stay read-only
            case "disable" if option == "disable":
                pass
            case _:
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return _Options(seccomp, no_new_privileges, unconfined)


def _switch(option: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
