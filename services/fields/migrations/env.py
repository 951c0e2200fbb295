"""Alembic's entry into the history of the fields service."""

from services.fields.store import metadata
from services.runtime.migrate import run_migrations

run_migrations(metadata)
