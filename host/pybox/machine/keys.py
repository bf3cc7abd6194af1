"""The machine's own ssh keys: the user's and the host's.

Made once per machine and kept with it, private ones for their owner alone.
"""

from __future__ import annotations

from pathlib import Path

from pybox.files import write_atomically
from pybox.frozen import frozen

_FILES = ("ssh", "ssh.pub", "ssh-host", "ssh-host.pub")


@frozen
class MachineKeys:
    """Keys of a machine as OpenSSH texts, and the files that programs read."""

    folder: Path
    ssh_user_public: str  # one line of authorized_keys
    ssh_host_key: str  # unencrypted OpenSSH private key

    @property
    def ssh_user_file(self) -> Path:
        """Return the private key for `ssh -i`."""
        return self.folder / "ssh"


def ensure(folder: Path) -> MachineKeys:
    """Return the keys in `folder`; all are made anew when one is missing."""
    if not all((folder / name).is_file() for name in _FILES):
        for name, content in _make().items():
            write_atomically(folder / name, content, 0o644 if name.endswith(".pub") else 0o600)
        folder.chmod(0o700)

    def text(name: str) -> str:
        return (folder / name).read_text()

    return MachineKeys(folder, text("ssh.pub").strip(), text("ssh-host"))


def _make() -> dict[str, bytes]:
    # Imported here, because a start with keys that exist must not wait for it.
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    def openssh(key: ed25519.Ed25519PrivateKey, comment: bytes) -> tuple[bytes, bytes]:
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), public + b" " + comment + b"\n"

    user_private, user_public = openssh(ed25519.Ed25519PrivateKey.generate(), b"pybox")
    host_private, host_public = openssh(ed25519.Ed25519PrivateKey.generate(), b"pybox-machine")
    return {
        "ssh": user_private,
        "ssh.pub": user_public,
        "ssh-host": host_private,
        "ssh-host.pub": host_public,
    }
