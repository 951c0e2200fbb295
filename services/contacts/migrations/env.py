"""Alembic's entry into the history of the contacts service."""

from services.contacts.store.tables import metadata
from services.runtime.migrate import run_migrations

run_migrations(metadata)
