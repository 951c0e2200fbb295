"""The statement that finds whose records are."""

from typing import NamedTuple

from sqlalchemy import literal, select, union_all

from services.contacts.errors import AccountNotFound, ContactNotFound
from services.contacts.store.tables import accounts, contacts
from services.runtime.db import Transaction
from services.runtime.statements import given, mine, statement


class Owner(NamedTuple):
    """Who looks after a record; None = nobody."""

    kind: str
    owner_id: int | None


OWNERS = statement(
    union_all(
        *(
            select(literal(kind).label("kind"), table.c.owner_id).where(
                mine(table), table.c.id == given(f"{kind}_id", table.c.id), table.c.deleted_at.is_(None)
            )
            for kind, table in (("contact", contacts), ("account", accounts))
        )
    ),
    Owner,
)


def of(tx: Transaction, *, contact_id: int, account_id: int) -> list[Owner]:
    """Owners of a contact and an account; 0 = not asked for. Raises ContactNotFound, AccountNotFound."""
    owners = tx.all(OWNERS, contact_id=contact_id, account_id=account_id)
    kinds = {owner.kind for owner in owners}
    if contact_id and "contact" not in kinds:
        raise ContactNotFound(field="contact_id")
    if account_id and "account" not in kinds:
        raise AccountNotFound(field="account_id")
    return owners
