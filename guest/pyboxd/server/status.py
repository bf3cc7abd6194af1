"""The one table from errors to HTTP statuses."""

from __future__ import annotations

from pyboxd.errors import (
    Conflict,
    Forbidden,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    NotModified,
    PyboxdError,
    SystemFailure,
    Unauthorized,
    Unavailable,
)

STATUSES: dict[type[PyboxdError], int] = {
    NotModified: 304,
    InvalidArgument: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    SystemFailure: 500,
    NotImplementedHere: 501,
    Unavailable: 503,
}


def status_of(error: PyboxdError) -> int:
    """Status of `error`: that of the nearest class in the table, 500 for a bare `PyboxdError`."""
    for ancestor in type(error).__mro__:
        status = STATUSES.get(ancestor)
        if status is not None:
            return status
    return 500
