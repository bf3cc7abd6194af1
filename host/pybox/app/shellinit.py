"""What a shell must set so that `docker` talks to the machine. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping


def lines(docker_host: str, shell: str | None, *, unset: bool, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Commands for `shell` (guessed from $SHELL when None).

    `docker build` would look for BuildKit, which the engine does not speak, so DOCKER_BUILDKIT=0 goes with it.
    """
    values = {"DOCKER_HOST": docker_host, "DOCKER_BUILDKIT": "0"}
    forms = {
        "bash": ("export {0}={1}", "unset {0}"),
        "fish": ("set -gx {0} {1};", "set -e {0};"),
        "powershell": ('$Env:{0} = "{1}"', "Remove-Item Env:\\{0}"),
        "cmd": ("set {0}={1}", "set {0}="),
    }
    setting, clearing = forms[shell or guess(environment)]
    if unset:
        return [clearing.format(name) for name in values]
    return [setting.format(name, value) for name, value in values.items()]


def guess(environment: Mapping[str, str]) -> str:
    """The shell that runs this command, as far as the environment tells."""
    name = environment.get("SHELL", "").rpartition("/")[2]
    if name == "fish":
        return "fish"
    return "powershell" if "PSModulePath" in environment and not name else "bash"
