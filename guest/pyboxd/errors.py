"""Errors of the guest: a few classes, mapped to HTTP statuses by one table (`server/status.py`).

    PyboxdError
     ├── InvalidArgument   the request is wrong as it stands            400
     ├── Unauthorized      a registry or this engine wants a login      401
     ├── Forbidden         understood and refused                       403
     ├── NotFound          the object does not exist                    404
     ├── Conflict          the object's state does not allow it         409
     ├── NotModified       nothing had to be done                       304
     ├── NotImplementedHere  Docker has it, pybox does not              501
     ├── Unavailable       needs something that is not there            503
     └── SystemFailure     a failure of the kernel, disk or network     500

The message is what a Docker client prints; it is worded as Docker words it where Docker has words.
"""


class PyboxdError(Exception):
    """Base of all errors that are answered to a client; `str(error)` is the message."""


class InvalidArgument(PyboxdError):
    pass


class Unauthorized(PyboxdError):
    pass


class Forbidden(PyboxdError):
    pass


class NotFound(PyboxdError):
    pass


class Conflict(PyboxdError):
    pass


class NotModified(PyboxdError):
    pass


class NotImplementedHere(PyboxdError):
    pass


class Unavailable(PyboxdError):
    pass


class SystemFailure(PyboxdError):
    pass
