"""Pipelines, their versions, runs and the actions of runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from services.runtime.migrate import create_standing_tables, protect

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables under row-level security."""
    create_standing_tables("pipelines")
    op.create_table(
        "pipeline_families",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("highest_version", sa.Integer, nullable=False),
        sa.Column("versions", sa.Integer, nullable=False),
    )
    op.create_table(
        "pipelines",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("subject_type", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("schema", postgresql.JSONB, nullable=False),
        sa.Column("auto_enroll_contact_stage_id", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("archived_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("organization_id", "name", "version"),
    )
    op.create_index(
        "pipelines_triggers_idx",
        "pipelines",
        ["organization_id", "auto_enroll_contact_stage_id"],
        postgresql_where=sa.text("status = 'published' and auto_enroll_contact_stage_id <> 0"),
    )
    op.create_table(
        "pipeline_runs",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pipeline_definition_id", sa.BigInteger, nullable=False),
        sa.Column("definition_version", sa.Integer, nullable=False),
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("subject_type", sa.Text, nullable=False),
        sa.Column("subject_id", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("current_stage_key", sa.Text, nullable=False),
        sa.Column("enrolled_by_user_id", sa.BigInteger, nullable=False),
        sa.Column("enroll_source", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("variables", postgresql.JSONB, nullable=False),
        sa.Column("branch_notes", postgresql.JSONB, nullable=False),
        sa.Column("cancel_reason", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.Text, nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("failed_at", sa.DateTime(timezone=True)),
        sa.Column("schema", postgresql.JSONB, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "pipeline_definition_id"], ["pipelines.organization_id", "pipelines.id"]
        ),
    )
    for name, columns in (
        ("newest", ["started_at", "id"]),
        ("pipeline", ["pipeline_definition_id", "started_at", "id"]),
        ("subject", ["subject_type", "subject_id", "started_at", "id"]),
        ("status", ["status", "started_at", "id"]),
    ):
        op.create_index(f"pipeline_runs_{name}_idx", "pipeline_runs", ["organization_id", *columns])
    op.create_index(
        "pipeline_runs_open_key",
        "pipeline_runs",
        ["organization_id", "family", "subject_type", "subject_id"],
        unique=True,
        postgresql_where=sa.text("status in ('running', 'paused')"),
    )
    op.create_table(
        "pipeline_run_actions",
        sa.Column("organization_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pipeline_run_id", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("stage_key", sa.Text, nullable=False),
        sa.Column("action_key", sa.Text, nullable=False),
        sa.Column("action_type", sa.Text, nullable=False),
        sa.Column("required", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("form_definition_id", sa.BigInteger, nullable=False),
        sa.Column("form_submission_id", sa.BigInteger, nullable=False),
        sa.Column("deal_id", sa.BigInteger, nullable=False),
        sa.Column("engagement_id", sa.BigInteger, nullable=False),
        sa.Column("checklist", postgresql.JSONB, nullable=False),
        sa.Column("result", postgresql.JSONB, nullable=False),
        sa.Column("completed_by_user_id", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "pipeline_run_id"], ["pipeline_runs.organization_id", "pipeline_runs.id"]
        ),
    )
    op.create_index(
        "pipeline_run_actions_timeline_idx",
        "pipeline_run_actions",
        ["organization_id", "pipeline_run_id", "position"],
    )
    protect("pipeline_families", "pipelines", "pipeline_runs", "pipeline_run_actions")
