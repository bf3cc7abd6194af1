"""What the guest is told in `configure`, made from settings, keys and this host's environment at every start."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pybox.errors import UsageProblem
from pybox.model import Share
from pybox.qemu.command import DNS_ADDRESS, HOST_ADDRESS
from pybox.settings import Settings

if TYPE_CHECKING:
    from pybox.hostagent.pool import Pool
    from pybox.hostos.interface import HostSystem
    from pybox.machine.keys import MachineKeys

_ENTROPY = 64  # bytes
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def configuration(
    machine: str,
    settings: Settings,
    keys: MachineKeys,
    shares: Sequence[Share],
    certificates: str,
    environ: Mapping[str, str],
    api: Pool,
) -> dict[str, Any]:
    """Return the params of `configure` (CONTROL.md). Time and entropy are of this moment."""
    return {
        "hostname": "pybox" if machine == "default" else f"pybox-{machine}",
        "time": time.time(),
        "entropy": base64.b64encode(os.urandom(_ENTROPY)).decode(),
        "api": {"address": HOST_ADDRESS, "port": api.port, "key": base64.b64encode(api.key).decode()},
        "dns": list(settings.dns) or [DNS_ADDRESS],
        "proxies": proxies(settings, environ),
        "certificates": certificates,
        "shares": [
            {
                "name": share.name,
                "host_path": share.host_path,
                "guest_path": share.guest_path,
                "readonly": share.readonly,
            }
            for share in shares
        ],
        "insecure_registries": list(settings.insecure_registries),
        "registry_mirror": settings.registry_mirror,
        "data_disk": True,
        "ssh": {"authorized_key": keys.ssh_user_public, "host_key": keys.ssh_host_key} if settings.ssh else None,
        "default_host_ip": settings.default_host_ip,
    }


def proxies(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies of the settings, or of the environment; one on this host is named as the guest sees it."""

    def variable(name: str) -> str:
        return environ.get(name, "") or environ.get(name.upper(), "")

    return {
        "http": seen_by_guest(settings.http_proxy or variable("http_proxy")),
        "https": seen_by_guest(settings.https_proxy or variable("https_proxy")),
        "no": settings.no_proxy or variable("no_proxy"),
    }


def seen_by_guest(url: str) -> str:
    """Return a proxy's address with this host's loopback replaced by its address in the guest's network."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        return url
    account = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{account}{HOST_ADDRESS}{port}"))


def certificates(settings: Settings, host: HostSystem) -> str:
    """Return (PEM) the roots that this host's administrator and the settings add. Raises UsageProblem."""
    found = [host.local_certificates()]
    for name in settings.certificates:
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageProblem(
                f"the certificate file {name} cannot be read", str(error), "pybox config set certificates …"
            ) from None
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise UsageProblem(f"{name} holds no certificate", "PEM is expected.", "Convert it to PEM.")
        found.append(text if text.endswith("\n") else text + "\n")
    return "".join(found)


def shares(settings: Settings, host: HostSystem) -> list[Share]:
    """Return the folders to share. Raises UsageProblem for one that is not there."""
    home = {share.host_path: share for share in host.home_shares()}
    found: list[Share] = []
    for text in settings.shares:
        readonly = text.endswith(":ro")
        path = os.path.realpath(Path(text.removesuffix(":ro")).expanduser())
        if not Path(path).is_dir():
            raise UsageProblem(
                f"the folder {path} cannot be shared", "It is not there, or no folder.", "pybox config set shares …"
            )
        known = home.get(path)
        name = known.name if known else _entry_name(path, [share.name for share in found])
        found.append(Share(name, path, known.guest_path if known else host.guest_path(path), readonly))
    return found


def _entry_name(path: str, taken: Sequence[str]) -> str:
    """Return a name for a share's entry in the mount: the folder's own, made plain and unique."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).name).strip(".-") or "folder"
    name, number = plain, 1
    while name in taken or name == "home":
        number += 1
        name = f"{plain}-{number}"
    return name
