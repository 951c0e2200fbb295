"""Custom field definitions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from services.runtime.migrate import create_standing_tables, protect

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the table under row-level security."""
    create_standing_tables("fields")
    op.create_table(
        "custom_fields",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("object_type", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("field_type", sa.Text, nullable=False),
        sa.Column("picklist_options", postgresql.JSONB),
        sa.Column("validation_rules", postgresql.JSONB),
        sa.Column("section", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("position", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("deal_pipeline_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("document_template_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.UniqueConstraint("organization_id", "object_type", "key"),
    )
    protect("custom_fields")
