"""Contacts, accounts and contact stages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from services.runtime.migrate import create_standing_tables, protect

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables under row-level security."""
    create_standing_tables("contacts")
    op.create_table(
        "contact_stages",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("sort_order", sa.Integer, nullable=False),
        sa.UniqueConstraint("organization_id", "name"),
    )
    op.create_table(
        "accounts",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("parent_account_id", sa.BigInteger),
        sa.Column("owner_id", sa.BigInteger),
        sa.Column("custom_fields", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("created_by", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("jsonb_typeof(custom_fields) = 'object'", name="custom_fields"),
        sa.ForeignKeyConstraint(["organization_id", "parent_account_id"], ["accounts.organization_id", "accounts.id"]),
    )
    op.create_table(
        "contacts",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("first_name", sa.Text, nullable=False),
        sa.Column("last_name", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("phone", sa.Text, nullable=False),
        sa.Column("account_id", sa.BigInteger),
        sa.Column("owner_id", sa.BigInteger),
        sa.Column("contact_stage_id", sa.BigInteger),
        sa.Column("custom_fields", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("created_by", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("jsonb_typeof(custom_fields) = 'object'", name="custom_fields"),
        sa.ForeignKeyConstraint(["organization_id", "account_id"], ["accounts.organization_id", "accounts.id"]),
        sa.ForeignKeyConstraint(
            ["organization_id", "contact_stage_id"], ["contact_stages.organization_id", "contact_stages.id"]
        ),
    )
    _create_list_index("accounts", "created_at", "id", where="deleted_at is null")
    _create_list_index("accounts", "owner_id", "created_at", "id", where="deleted_at is null")
    _create_list_index("accounts", "parent_account_id", "created_at", "id", where="deleted_at is null")
    _create_list_index("contacts", "created_at", "id", where="deleted_at is null")
    _create_list_index("contacts", "owner_id", "created_at", "id", where="deleted_at is null")
    _create_list_index("contacts", "account_id", "created_at", "id", where="deleted_at is null")
    _create_list_index("contacts", "contact_stage_id", "created_at", "id", where="contact_stage_id is not null")
    protect("contact_stages", "accounts", "contacts")


def _create_list_index(table: str, *columns: str, where: str) -> None:
    op.create_index(None, table, ["organization_id", *columns], postgresql_where=sa.text(where))
