"""Migrations: they make what the stores describe, and running them again changes nothing."""

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool, text

from services import SERVICES
from services.runtime.migrate import PACKAGES, alembic_config, migrate
from tests.harness import SECRET
from tests.statement_rules import metadatas

MIGRATED = [service for service in SERVICES if (PACKAGES / service / "migrations").exists()]


@pytest.mark.parametrize("service", MIGRATED)
def test_the_history_makes_the_tables_that_the_store_describes(service: str, admin_url: str) -> None:
    engine = create_engine(admin_url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"set search_path = {service}"))
        connection.dialect.default_schema_name = service
        options = {"compare_type": True, "compare_server_default": True, "target_metadata": metadatas()[service]}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadatas()[service])
    engine.dispose()
    assert not differences


def test_a_difference_would_be_found(admin_url: str, superuser: psycopg.Connection) -> None:
    superuser.execute("alter table fields.custom_fields drop column section, alter column label drop not null")
    with pytest.raises(AssertionError):
        test_the_history_makes_the_tables_that_the_store_describes("fields", admin_url)


@pytest.mark.parametrize("service", MIGRATED)
def test_a_history_is_one_line(service: str) -> None:
    assert len(ScriptDirectory.from_config(alembic_config(service)).get_heads()) == 1


def snapshot(superuser: psycopg.Connection) -> list[tuple[object, ...]]:
    return superuser.execute(
        "select n.nspname, c.relname, c.relkind, c.relacl::text from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace where n.nspname = any(%s) order by 1, 2",
        (list(SERVICES),),
    ).fetchall()


def test_migrating_twice_changes_nothing(admin_url: str, superuser: psycopg.Connection) -> None:
    before = snapshot(superuser)
    migrate(admin_url, SECRET)
    assert snapshot(superuser) == before
