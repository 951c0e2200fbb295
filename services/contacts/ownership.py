"""Whose record it is, and who may therefore write to it (spec v1 D12)."""

from typing import Protocol

from services.contacts.errors import NotYourRecord
from services.runtime.callers import Caller


class Owned(Protocol):
    """A record that a user looks after, or nobody."""

    @property
    def owner_id(self) -> int | None:
        """The user."""


def check(who: Caller, *records: Owned) -> None:
    """Raises NotYourRecord unless the caller may write to all the records."""
    if not all(who.may_write(record.owner_id or 0) for record in records):
        raise NotYourRecord()
