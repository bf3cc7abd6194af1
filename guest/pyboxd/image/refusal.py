"""How registries and their token services say no (distribution-spec, error codes)."""

from __future__ import annotations

import json

from pyboxd.errors import Forbidden, NotFound, PyboxdError, SystemFailure, Unauthorized

_BY_STATUS = {
    401: ("UNAUTHORIZED", "authentication required"),
    403: ("DENIED", "requested access to the resource is denied"),
    429: ("TOOMANYREQUESTS", "too many requests"),
}
_NO_SCOPE = 'error="insufficient_scope"'  # RFC 6750: the token is good, but for something else
_CLASSES = {401: Unauthorized, 403: Forbidden, 404: NotFound}


class Refused(PyboxdError):
    """An answer that says no. `code` and `message` are those of its first error, "" when it gave none.

    `challenge` is the answer's WWW-Authenticate.
    """

    def __init__(self, host: str, status: int, body: bytes = b"", challenge: str = "") -> None:
        self.status = 403 if _NO_SCOPE in challenge else status
        self.code, self.message = _first_error(body, self.status)
        if _NO_SCOPE in challenge:
            self.code, self.message = _BY_STATUS[403]
        self.words = f"{self.code.lower().replace('_', ' ')}: {self.message}" if self.code else ""
        more = f": {self.words}" if self.words else ""
        known = self.words if status < 500 else ""
        super().__init__(known or f"received unexpected HTTP status from {host}: {status}{more}")

    def told(self) -> PyboxdError:
        """The same as an error whose class has the registry's status, where a client shall see that."""
        return _CLASSES.get(self.status, SystemFailure)(str(self))


class NoCredentials(Unauthorized):
    """`url` wants a user name and a password, and there are none."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f'Head "{url}": no basic auth credentials')


def _first_error(body: bytes, status: int) -> tuple[str, str]:
    code, message = _BY_STATUS.get(status, ("", ""))
    try:
        value = json.loads(body)
        if details := value.get("details"):  # the hub's token service
            return code or "UNKNOWN", str(details)
        first = value["errors"][0]
        return str(first.get("code") or code), str(first.get("message") or message)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return code, message
