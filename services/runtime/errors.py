"""Errors that cross service boundaries intact: a status, a reason that callers can tell apart, and fields at fault.

A service names its errors one per line, the docstring being the message:

    class FormEmpty(Refused):
        "A form needs at least one data field to be published."

which answers FAILED_PRECONDITION with the reason `ErrFormEmpty` (spec v1 §0.5, D2, D3). This module imports
nothing of ours, so that rules may raise.
"""

from collections.abc import Iterable
from itertools import islice
from typing import ClassVar, NamedTuple

MOST_VIOLATIONS = 200
"""Told at once: an error travels in metadata, which gateways bound to 64 KiB."""


class Violation(NamedTuple):
    """What is wrong with one member of a request; `field` is its path, such as `schema.fields[2].key`."""

    field: str
    message: str


class ServiceError(Exception):
    """A failure the caller is told about. Everything else is INTERNAL and its details stay in the log."""

    status: ClassVar[str] = "UNKNOWN"
    violations: tuple[Violation, ...]

    def __init__(
        self, message: str | None = None, *, field: str | None = None, violations: Iterable[Violation] = ()
    ) -> None:
        self.message = message or (self.__doc__ or "").strip().partition("\n")[0].strip('"')
        told = tuple(islice(violations, MOST_VIOLATIONS))
        self.violations = told or ((Violation(field, self.message),) if field else ())
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The gRPC status code's name."""
        return self.status

    @property
    def reason(self) -> str:
        """`Err` + the class name for a named error, else the status code's name."""
        return self.status if "status" in type(self).__dict__ else f"Err{type(self).__name__}"


class Invalid(ServiceError):
    """The request is invalid."""

    status = "INVALID_ARGUMENT"


class NotFound(ServiceError):
    """No such record."""

    status = "NOT_FOUND"


class Conflict(ServiceError):
    """The record exists already."""

    status = "ALREADY_EXISTS"


class Refused(ServiceError):
    """The record's state does not allow this."""

    status = "FAILED_PRECONDITION"


class Forbidden(ServiceError):
    """You may not do this."""

    status = "PERMISSION_DENIED"


class Unauthenticated(ServiceError):
    """A valid token is needed."""

    status = "UNAUTHENTICATED"


class Aborted(ServiceError):
    """Another change came in between; try again."""

    status = "ABORTED"


class Unavailable(ServiceError):
    """The service cannot answer right now; try again."""

    status = "UNAVAILABLE"


class DeadlineExceeded(ServiceError):
    """The deadline passed before the answer."""

    status = "DEADLINE_EXCEEDED"


class Internal(ServiceError):
    """internal error"""

    status = "INTERNAL"


class Foreign(ServiceError):
    """Another service's error on its way to the caller, unchanged."""

    status = "UNKNOWN"

    def __init__(self, code: str, reason: str, message: str, violations: Iterable[Violation]) -> None:
        super().__init__(message, violations=violations)
        self._code, self._reason = code, reason

    @property
    def code(self) -> str:
        """The status code's name as the other service gave it."""
        return self._code

    @property
    def reason(self) -> str:
        """The reason as the other service gave it."""
        return self._reason


class IdempotencyKeyReused(Refused):
    """This Idempotency-Key was used for a different request."""


def report(violations: Iterable[Violation], error: type[ServiceError] = Invalid) -> None:
    """Raises `error` with all the violations at once when there are any."""
    found = tuple(violations)
    if found:
        raise error("; ".join(f"{each.field}: {each.message}" for each in found[:3]), violations=found)
