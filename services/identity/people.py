"""Who may be added to an organisation, and by whom (spec v1 §8.8, D11)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from services.identity.errors import RoleAboveYours
from services.runtime.errors import Violation
from services.runtime.values import wrong_email

SUPER_ADMIN = "super_admin"


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant."""

    organization_id: int
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person of one organisation, with exactly one role."""

    organization_id: int
    id: int
    email: str
    name: str
    role: str
    created_at: datetime


def email_violations(field: str, email: str) -> Iterator[Violation]:
    """What is wrong with a person's address, beyond what its proto bounds."""
    if wrong := wrong_email(email):
        yield Violation(field, wrong)


def refuse_promotion(role: str, own_roles: frozenset[str]) -> None:
    """Refuses to give a role that the giver could not have given themselves. Raises RoleAboveYours."""
    if role == SUPER_ADMIN and SUPER_ADMIN not in own_roles:
        raise RoleAboveYours(field="role")


def first_email(organization_id: int) -> str:
    """The admin's address where none was given; it reaches nobody (RFC 2606)."""
    return f"admin@{organization_id}.millrace.example"
