"""The machine's own keys: a certificate authority, the engine's and the client's certificate, ssh keys.

Made once per machine and kept with it, private ones for their owner alone. The engine's key goes to the guest in
`configure` and nowhere else; that of the authority is thrown away, because it is never needed again.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pybox.files import write_atomically

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SERVER_NAME = "pybox-engine"  # what the client checks; addresses change, the name does not
_YEARS = 20  # the keys end with the machine, not before
_FILES = ("ca.pem", "server.pem", "server-key.pem", "client.pem", "ssh", "ssh.pub", "ssh-host", "ssh-host.pub")


@dataclass(frozen=True)
class MachineKeys:
    """Keys of a machine as PEM and OpenSSH texts, and the files that programs read."""

    folder: Path
    ca: str
    server_certificate: str
    server_key: str
    ssh_user_public: str  # one line of authorized_keys
    ssh_host_key: str  # unencrypted OpenSSH private key

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def client_file(self) -> Path:
        """Return the file with the client's certificate and private key."""
        return self.folder / "client.pem"

    @property
    def ssh_user_file(self) -> Path:
        """Return the private key for `ssh -i`."""
        return self.folder / "ssh"


def ensure(folder: Path) -> MachineKeys:
    """Return the keys in `folder`; all are made anew when one is missing."""
    if not all((folder / name).is_file() for name in _FILES):
        for name, content in _make().items():
            private = name not in ("ca.pem", "server.pem", "ssh.pub", "ssh-host.pub")
            write_atomically(folder / name, content, 0o600 if private else 0o644)
        folder.chmod(0o700)

    def text(name: str) -> str:
        return (folder / name).read_text()

    return MachineKeys(
        folder, text("ca.pem"), text("server.pem"), text("server-key.pem"), text("ssh.pub").strip(), text("ssh-host")
    )


def _make() -> dict[str, bytes]:
    # Imported here, because a start with keys that exist must not wait for it.
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    def pem(key: EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def openssh(key: ed25519.Ed25519PrivateKey, comment: bytes) -> tuple[bytes, bytes]:
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), public + b" " + comment + b"\n"

    authority_key, server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    authority = _certificate("pybox machine", authority_key, None, authority_key)
    server = _certificate(SERVER_NAME, server_key, authority, authority_key)
    client = _certificate("pybox hostagent", client_key, authority, authority_key)
    user_private, user_public = openssh(ed25519.Ed25519PrivateKey.generate(), b"pybox")
    host_private, host_public = openssh(ed25519.Ed25519PrivateKey.generate(), b"pybox-machine")
    return {
        "ca.pem": authority.public_bytes(Encoding.PEM),
        "server.pem": server.public_bytes(Encoding.PEM),
        "server-key.pem": pem(server_key),
        "client.pem": client.public_bytes(Encoding.PEM) + pem(client_key),
        "ssh": user_private,
        "ssh.pub": user_public,
        "ssh-host": host_private,
        "ssh-host.pub": host_public,
    }


def _certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    signer: EllipticCurvePrivateKey,
) -> x509.Certificate:
    """Return a certificate; without an issuer it is the authority's own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    # A day back, because the two clocks need not agree at the first moment.
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(os.urandom(16)) >> 1 or 1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer is not None:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if name == SERVER_NAME else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(signer, hashes.SHA256())
