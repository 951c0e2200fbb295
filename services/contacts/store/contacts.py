"""Statements over contacts."""

from typing import Any

from sqlalchemy import func, insert, null, select, update

from services.contacts.contact import Contact
from services.contacts.errors import AccountNotFound, ContactNotFound, ContactStageNotFound
from services.contacts.store import accounts
from services.contacts.store.tables import contacts, merged
from services.runtime.db import Transaction, refusing
from services.runtime.lists import Listing
from services.runtime.statements import columns_of, given, mine, statement

_c = contacts.c
_whole = columns_of(contacts, Contact)
_changeable = ("first_name", "last_name", "email", "phone", "account_id", "owner_id", "contact_stage_id")
_created = ("organization_id", "id", *_changeable, "custom_fields", "created_by")
LIVE = Listing(contacts, _whole, Contact, _c.created_at.desc(), _c.id.desc(), where=[_c.deleted_at.is_(None)])
"""Contacts, newest first."""
_this = (mine(contacts), _c.id == given("id", _c.id), _c.deleted_at.is_(None))

CREATE = statement(
    insert(contacts).values({name: given(name, _c[name]) for name in _created}).returning(*_whole), Contact
)
GET = statement(select(*_whole).where(*_this), Contact)
LOCK = statement(select(*_whole).where(*_this).with_for_update(key_share=True), Contact)
SAVE = statement(
    update(contacts)
    .where(*_this)
    .values({name: given(name, _c[name]) for name in _changeable} | merged(contacts))
    .returning(*_whole),
    Contact,
)
DELETE = statement(
    update(contacts).where(*_this).values(deleted_at=func.now(), updated_at=func.now(), contact_stage_id=null())
)


def create(tx: Transaction, **members: Any) -> Contact:
    """Adds a contact. Raises AccountNotFound, ContactStageNotFound."""
    if members["account_id"] and not accounts.is_live(tx, members["account_id"]):
        raise AccountNotFound(field="account_id")
    with refusing(missing=ContactStageNotFound, field="contact_stage_id"):
        made = tx.one(CREATE, id=tx.new_id("contact"), created_by=tx.who.user_id, **members)
    assert made is not None
    return made


def get(tx: Transaction, contact_id: int) -> Contact:
    """The contact. Raises ContactNotFound."""
    return _found(tx.one(GET, id=contact_id))


def lock(tx: Transaction, contact_id: int) -> Contact:
    """The contact, nobody else's to change until the transaction ends. Raises ContactNotFound."""
    return _found(tx.one(LOCK, id=contact_id))


def save(tx: Transaction, before: Contact, after: Contact, changes: dict[str, Any]) -> Contact:
    """Writes what may change of a locked contact, and merges `changes` into its custom fields.

    What it named before it may go on naming. Raises AccountNotFound, ContactStageNotFound.
    """
    if after.account_id not in (None, before.account_id) and not accounts.is_live(tx, after.account_id):
        raise AccountNotFound(field="account_id")
    members = {name: getattr(after, name) for name in _changeable}
    with refusing(missing=ContactStageNotFound, field="contact_stage_id"):
        return _found(tx.one(SAVE, id=after.id, changes=changes, **members))


def delete(tx: Transaction, contact_id: int) -> None:
    """Takes a locked contact out of sight, and off its stage."""
    tx.run(DELETE, id=contact_id)


def _found(contact: Contact | None) -> Contact:
    if contact is None:
        raise ContactNotFound()
    return contact
