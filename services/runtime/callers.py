"""Who is calling: the one value that carries organisation, user, roles and the call's own facts through a request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import grpc

DEFAULT_TIMEOUT = 5.0
"""Seconds an outgoing call may take when the incoming one brought no deadline."""

SETTINGS_ROLES = frozenset({"super_admin", "admin", "sales_manager"})
"""Who may change settings (spec v1 D11)."""
WRITING_ROLES = SETTINGS_ROLES | {"supervisor", "agent"}
"""Who may write at all: every role but viewer."""
ROLES = WRITING_ROLES | {"viewer"}


class Caller:
    """A caller within one rpc. Records are read and written in its organisation and no other."""

    __slots__ = (
        "deadline",
        "idempotency_key",
        "is_service",
        "organization_id",
        "request",
        "request_id",
        "roles",
        "rpc",
        "statements",
        "token",
        "user_id",
    )

    def __init__(
        self,
        organization_id: int,
        user_id: int,
        roles: frozenset[str] = frozenset(),
        *,
        is_service: bool = False,
        token: str = "",
        rpc: str = "",
        request_id: str = "",
        idempotency_key: str = "",
        deadline: float | None = None,
    ) -> None:
        self.organization_id = organization_id
        self.user_id = user_id
        self.roles = roles
        self.is_service = is_service
        self.token = token
        self.rpc = rpc
        self.request_id = request_id
        self.idempotency_key = idempotency_key
        self.deadline = deadline
        self.request = b""
        """The request as sent, where an idempotency key has to tell it from another one."""
        self.statements = 0
        """Statements run for this call so far, transaction control apart."""

    @property
    def may_write_all(self) -> bool:
        """Whether the caller may write to every record whoever owns it (spec v1 D12)."""
        return self.is_service or "supervisor" in self.roles or not SETTINGS_ROLES.isdisjoint(self.roles)

    def may_write(self, owner_id: int) -> bool:
        """Whether the caller may write to a record of this owner; 0 = nobody's (spec v1 D12)."""
        return self.may_write_all or (owner_id in (0, self.user_id) and not WRITING_ROLES.isdisjoint(self.roles))

    def time_left(self) -> float:
        """Seconds until the incoming call's deadline, or the default."""
        return DEFAULT_TIMEOUT if self.deadline is None else max(self.deadline - time.monotonic(), 0.001)


_current: ContextVar[Caller] = ContextVar("caller")


@contextmanager
def calling(who: Caller) -> Iterator[Caller]:
    """Makes `who` the caller of everything inside."""
    token = _current.set(who)
    try:
        yield who
    finally:
        _current.reset(token)


def caller(_context: grpc.ServicerContext) -> Caller:
    """The caller of the rpc that is being served."""
    return _current.get()
