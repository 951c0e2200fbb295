"""Alembic's entry into the history of the forms service."""

from services.forms.store import metadata
from services.runtime.migrate import run_migrations

run_migrations(metadata)
