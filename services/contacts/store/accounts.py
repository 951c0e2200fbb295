"""Statements over accounts."""

from typing import Any

from sqlalchemy import func, insert, literal, select, update

from services.contacts.account import Account, Ancestry, check_parent
from services.contacts.errors import AccountNotFound, ParentAccountNotFound
from services.contacts.store.tables import accounts, merged
from services.runtime.db import Transaction
from services.runtime.lists import Listing
from services.runtime.statements import ORGANIZATION, columns_of, given, mine, statement

_c = accounts.c
_whole = columns_of(accounts, Account)
_changeable = ("name", "parent_account_id", "owner_id")
_created = ("organization_id", "id", *_changeable, "custom_fields", "created_by")
LIVE = Listing(accounts, _whole, Account, _c.created_at.desc(), _c.id.desc(), where=[_c.deleted_at.is_(None)])
"""Accounts, newest first."""
_this = (mine(accounts), _c.id == given("id", _c.id), _c.deleted_at.is_(None))

CREATE = statement(
    insert(accounts).values({name: given(name, _c[name]) for name in _created}).returning(*_whole), Account
)
IS_LIVE = statement(select(_c.id).where(*_this), int)
GET = statement(select(*_whole).where(*_this), Account)
LOCK = statement(select(*_whole).where(*_this).with_for_update(key_share=True), Account)
SAVE = statement(
    update(accounts)
    .where(*_this)
    .values({name: given(name, _c[name]) for name in _changeable} | merged(accounts))
    .returning(*_whole),
    Account,
)
DELETE = statement(update(accounts).where(*_this).values(deleted_at=func.now(), updated_at=func.now()))

# A statement of its own: the one that looks at the tree must see what the one who held the lock before has committed.
LOCK_TREE = statement(select(func.pg_advisory_xact_lock(func.hashtextextended(literal("accounts"), ORGANIZATION))), str)

_parent = (
    select(_c.id, _c.parent_account_id, _c.deleted_at)
    .where(mine(accounts), _c.id == given("parent_account_id", _c.id))
    .cte("above", recursive=True)
)
# `union`, not `union all`: the walk ends even should there be a cycle.
_above = _parent.union(
    select(_c.id, _c.parent_account_id, _c.deleted_at).where(mine(accounts), _c.id == _parent.c.parent_account_id)
)
ANCESTRY = statement(
    select(
        func.bool_or((_above.c.id == given("parent_account_id", _c.id)) & _above.c.deleted_at.is_(None)),
        func.bool_or(_above.c.id == given("id", _c.id)),
    ),
    Ancestry,
)


def create(tx: Transaction, **members: Any) -> Account:
    """Adds an account. Raises ParentAccountNotFound. Nothing stands below it yet, so it closes no cycle."""
    if members["parent_account_id"] and not is_live(tx, members["parent_account_id"]):
        raise ParentAccountNotFound(field="parent_account_id")
    made = tx.one(CREATE, id=tx.new_id("account"), created_by=tx.who.user_id, **members)
    assert made is not None
    return made


def is_live(tx: Transaction, account_id: int) -> bool:
    """Whether there is such an account, and it is not deleted."""
    return tx.one(IS_LIVE, id=account_id) is not None


def get(tx: Transaction, account_id: int) -> Account:
    """The account. Raises AccountNotFound."""
    return _found(tx.one(GET, id=account_id))


def lock(tx: Transaction, account_id: int) -> Account:
    """The account, nobody else's to change until the transaction ends. Raises AccountNotFound."""
    return _found(tx.one(LOCK, id=account_id))


def save(tx: Transaction, before: Account, after: Account, changes: dict[str, Any]) -> Account:
    """Writes what may change of a locked account, and merges `changes` into its custom fields.

    What it stood below before it may go on standing below. Raises ParentAccountNotFound, AccountCycle.
    """
    if after.parent_account_id not in (None, before.parent_account_id):
        tx.run(LOCK_TREE)
        check_parent(tx.one(ANCESTRY, id=after.id, parent_account_id=after.parent_account_id) or Ancestry(None, None))
    members = {name: getattr(after, name) for name in _changeable}
    return _found(tx.one(SAVE, id=after.id, changes=changes, **members))


def delete(tx: Transaction, account_id: int) -> None:
    """Takes a locked account out of sight; what names it goes on naming it."""
    tx.run(DELETE, id=account_id)


def _found(account: Account | None) -> Account:
    if account is None:
        raise AccountNotFound()
    return account
