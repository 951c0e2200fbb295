"""Form families, versions and submissions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from services.runtime.migrate import create_standing_tables, protect

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables under row-level security."""
    create_standing_tables("forms")
    op.create_table(
        "form_families",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("latest_version", sa.Integer, nullable=False),
        sa.Column("live_versions", sa.Integer, nullable=False),
    )
    op.create_table(
        "forms",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'draft'")),
        sa.Column("schema", postgresql.JSONB, nullable=False),
        sa.Column("created_by", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("archived_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("organization_id", "name", "version"),
        sa.ForeignKeyConstraint(["organization_id", "name"], ["form_families.organization_id", "form_families.name"]),
    )
    op.create_index(None, "forms", ["organization_id", "status", "name", "version"])
    op.create_table(
        "form_submissions",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("form_definition_id", sa.BigInteger, nullable=False),
        sa.Column("form_version", sa.Integer, nullable=False),
        sa.Column("schema_snapshot", postgresql.JSONB, nullable=False),
        sa.Column("values", postgresql.JSONB, nullable=False),
        sa.Column("contact_id", sa.BigInteger),
        sa.Column("account_id", sa.BigInteger),
        sa.Column("context_type", sa.Text),
        sa.Column("context_id", sa.BigInteger),
        sa.Column("write_back_result", postgresql.JSONB, nullable=False),
        sa.Column("submitted_by_user_id", sa.BigInteger, nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["organization_id", "form_definition_id"], ["forms.organization_id", "forms.id"]),
    )
    newest = ("submitted_at", "id")
    op.create_index(None, "form_submissions", ["organization_id", *newest])
    op.create_index("form_submissions_form_idx", "form_submissions", ["organization_id", "form_definition_id", *newest])
    for name in ("contact_id", "account_id", "context_type", "context_id"):
        op.create_index(
            f"form_submissions_{name}_idx",
            "form_submissions",
            ["organization_id", name, *newest],
            postgresql_where=sa.text(f"{name} is not null"),
        )
    op.create_index(
        "form_submissions_action_idx",
        "form_submissions",
        ["organization_id", "context_id"],
        unique=True,
        postgresql_where=sa.text("context_type = 'pipeline_run_action' and deleted_at is null"),
    )
    protect("form_families", "forms", "form_submissions")
