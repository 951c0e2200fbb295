"""Alembic's entry into the history of the identity service."""

from services.identity.store import metadata
from services.runtime.migrate import run_migrations

run_migrations(metadata)
