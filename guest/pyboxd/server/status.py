"""The one table from errors to HTTP statuses, and the words that statuses have on the wire."""

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


REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def status_of(error: PyboxdError) -> int:
    """Status of `error`: that of the nearest class in the table, 500 for a bare `PyboxdError`."""
    for ancestor in type(error).__mro__:
        status = STATUSES.get(ancestor)
        if status is not None:
            return status
    return 500
