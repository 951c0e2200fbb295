"""A company or other body the organisation deals with, and where it may stand below another (spec v1 §8.3)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from services.contacts.errors import AccountCycle, ParentAccountNotFound


@dataclass(frozen=True, slots=True)
class Account:
    """An account. None where it names nobody and nothing; `custom_fields` are values by key, never None."""

    id: int
    organization_id: int
    name: str
    parent_account_id: int | None
    owner_id: int | None
    custom_fields: dict[str, Any]
    created_by: int
    created_at: datetime
    updated_at: datetime


class Ancestry(NamedTuple):
    """What is known of a would-be parent: None throughout when there never was such an account."""

    is_live: bool | None
    includes_child: bool | None
    """Whether the account to be moved is the parent itself or stands above it."""


def check_parent(ancestry: Ancestry) -> None:
    """Raises ParentAccountNotFound, and AccountCycle where the parent lies below the account."""
    if not ancestry.is_live:
        raise ParentAccountNotFound(field="parent_account_id")
    if ancestry.includes_child:
        raise AccountCycle(field="parent_account_id")
