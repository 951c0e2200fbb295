"""Alembic's entry into the history of the pipelines service."""

from services.pipelines.store import metadata
from services.runtime.migrate import run_migrations

run_migrations(metadata)
