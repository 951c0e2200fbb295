"""A person the organisation deals with, and what may be said of one (spec v1 §8.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.runtime.errors import Violation
from services.runtime.values import wrong_email, wrong_phone


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact. None where it names nobody and nothing; `custom_fields` are values by key, never None."""

    id: int
    organization_id: int
    first_name: str
    last_name: str
    email: str
    phone: str
    account_id: int | None
    owner_id: int | None
    contact_stage_id: int | None
    custom_fields: dict[str, Any]
    created_by: int
    created_at: datetime
    updated_at: datetime


def violations(email: str, phone: str) -> Iterator[Violation]:
    """Everything wrong with the ways to reach a contact; empty is none."""
    for field, value, wrong in (("email", email, wrong_email), ("phone", phone, wrong_phone)):
        problem = wrong(value) if value else None
        if problem:
            yield Violation(field, problem)


def stage_entered(before: Contact | None, after: Contact) -> int | None:
    """The stage that was entered, by creation on it or by a move to it; None for staying (spec v1 D100)."""
    stood_on = before.contact_stage_id if before else None
    return after.contact_stage_id if after.contact_stage_id != stood_on else None
