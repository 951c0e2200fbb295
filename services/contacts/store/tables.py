"""The tables of the contacts service.

What a record names (account, stage, owner) is NULL where it names none, so that foreign keys hold. Contacts and
accounts stay in their tables when deleted; a deleted contact names no stage, so that it does not keep one in use.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from services.runtime.statements import given
from services.runtime.tables import document, moment, new_metadata, organization_id, record_id

metadata = new_metadata()

LIVE = text("deleted_at is null")
IS_MAP = "jsonb_typeof(custom_fields) = 'object'"

contact_stages = Table(
    "contact_stages",
    metadata,
    organization_id(),
    record_id(),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("sort_order", Integer, nullable=False),
    UniqueConstraint("organization_id", "name"),
)

accounts = Table(
    "accounts",
    metadata,
    organization_id(),
    record_id(),
    Column("name", Text, nullable=False),
    Column("parent_account_id", BigInteger),
    Column("owner_id", BigInteger),
    document("custom_fields", nullable=False, server_default=text("'{}'")),
    Column("created_by", BigInteger, nullable=False),
    moment("created_at", nullable=False, server_default=text("now()")),
    moment("updated_at", nullable=False, server_default=text("now()")),
    moment("deleted_at"),
    CheckConstraint(IS_MAP, name="custom_fields"),
    ForeignKeyConstraint(["organization_id", "parent_account_id"], ["accounts.organization_id", "accounts.id"]),
    # One index per list: its filter, then the order newest first, read backwards.
    Index(None, "organization_id", "created_at", "id", postgresql_where=LIVE),
    Index(None, "organization_id", "owner_id", "created_at", "id", postgresql_where=LIVE),
    Index(None, "organization_id", "parent_account_id", "created_at", "id", postgresql_where=LIVE),
)

contacts = Table(
    "contacts",
    metadata,
    organization_id(),
    record_id(),
    Column("first_name", Text, nullable=False),
    Column("last_name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("phone", Text, nullable=False),
    Column("account_id", BigInteger),
    Column("owner_id", BigInteger),
    Column("contact_stage_id", BigInteger),
    document("custom_fields", nullable=False, server_default=text("'{}'")),
    Column("created_by", BigInteger, nullable=False),
    moment("created_at", nullable=False, server_default=text("now()")),
    moment("updated_at", nullable=False, server_default=text("now()")),
    moment("deleted_at"),
    CheckConstraint(IS_MAP, name="custom_fields"),
    ForeignKeyConstraint(["organization_id", "account_id"], ["accounts.organization_id", "accounts.id"]),
    ForeignKeyConstraint(
        ["organization_id", "contact_stage_id"], ["contact_stages.organization_id", "contact_stages.id"]
    ),
    Index(None, "organization_id", "created_at", "id", postgresql_where=LIVE),
    Index(None, "organization_id", "owner_id", "created_at", "id", postgresql_where=LIVE),
    Index(None, "organization_id", "account_id", "created_at", "id", postgresql_where=LIVE),
    # Without LIVE, so that it also answers the foreign key whether a stage is in use; no deleted contact is in it.
    Index(
        None,
        "organization_id",
        "contact_stage_id",
        "created_at",
        "id",
        postgresql_where=text("contact_stage_id is not null"),
    ),
)


def merged(table: Table) -> dict[str, Any]:
    """What an update sets so that `changes` go into the record's custom fields, key by key; null removes a value.

    The database merges, whatever the row held when it was read: `contacts.write_custom_fields` writes it too. A
    transaction that began before the last change, and waited for it, does not set `updated_at` back.
    """
    whole = table.c.custom_fields.op("||")(given("changes", table.c.custom_fields))
    return {
        "custom_fields": func.jsonb_strip_nulls(whole),
        "updated_at": func.greatest(table.c.updated_at, func.now()),
    }
