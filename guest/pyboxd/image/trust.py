"""Whom the engine believes over TLS."""

from __future__ import annotations

import os
import ssl

from pyboxd.locations import RUN

CERTIFICATES = f"{RUN}/ca-certificates.crt"
"""Debian's roots and those of the user's computer in one file; made when the machine is configured (`boot.system`)."""


_SEED = 64  # bytes


def tls_context() -> ssl.SSLContext:
    """A client's context: hosts are checked against these roots; outside of a machine against the system's own."""
    # OpenSSL's own generator was seeded in a machine that others may have been restored from.
    ssl.RAND_add(os.urandom(_SEED), _SEED)
    return ssl.create_default_context(cafile=CERTIFICATES if os.path.exists(CERTIFICATES) else None)
