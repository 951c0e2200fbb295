"""Migrations: roles and schemas first, then every service's own Alembic history, as the owner of all tables.

The URL given is an administrator's: it may create roles. Running it twice changes nothing.
"""

import re
from pathlib import Path

import psycopg
from alembic import command, context, op
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Connection, MetaData, create_engine, pool, text

from services import SERVICES
from services.runtime.settings import database_password
from services.runtime.tables import standing

PACKAGES = Path(__file__).resolve().parent.parent
TENANT = "nullif(current_setting('app.organization_id', true), '')::bigint"
"""The organisation of the current transaction, null when none is set."""
OWNER, DEFINER, SWEEPER = "millrace_owner", "millrace_definer", "millrace_sweeper"


def migrate(url: str, secret: str) -> None:
    """Brings a database to what this version of the code needs."""
    _prepare(url, secret)
    engine = create_engine(_sqlalchemy_url(url), poolclass=pool.NullPool)
    for service in SERVICES:
        with engine.begin() as connection:
            connection.execute(text(f"set role {OWNER}"))
            connection.execute(text(f"set search_path = {service}"))
            config = alembic_config(service)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    engine.dispose()


def alembic_config(service: str) -> Config:
    """Alembic's configuration of one service's history."""
    config = Config()
    config.set_main_option("script_location", str(PACKAGES / service / "migrations"))
    config.set_main_option("version_path_separator", "os")
    return config


def run_migrations(metadata: MetaData) -> None:
    """What a service's `env.py` does: runs its history on the connection at hand."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    context.run_migrations()


def create_standing_tables(schema: str) -> None:
    """First step of every history: id blocks, idempotency keys and the outbox.

    The sweeper may see which organisations have something due in the outbox, and nothing else.
    """
    standing.create_all(op.get_bind())
    protect(*standing.tables)
    op.execute(f"create policy sweeper on outbox for select to {SWEEPER} using (true)")
    op.execute(f"grant usage on schema {schema} to {SWEEPER}")
    op.execute(f"grant select (organization_id, due_at) on outbox to {SWEEPER}")


def protect(*tables: str) -> None:
    """Puts tables under row-level security: no organisation set, no rows, not even for their owner's code."""
    for table in tables:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        mine = f"(organization_id = {TENANT})"
        op.execute(f"create policy tenant on {table} using {mine} with check {mine}")


def _prepare(url: str, secret: str) -> None:
    """Roles and schemas. One owner for migrations alone, one login per service that sees its own schema only."""
    with psycopg.connect(url, autocommit=False) as connection:
        # Two migrations at once take turns.
        connection.execute("select pg_advisory_xact_lock(7001)")
        _role(connection, OWNER, f"login bypassrls password '{database_password(secret, OWNER)}'")
        _role(connection, DEFINER, "nologin")
        _role(connection, SWEEPER, "nologin")
        connection.execute(f"grant {OWNER}, {DEFINER} to current_user")
        connection.execute(f"grant {DEFINER} to {OWNER}")
        connection.execute(sql.SQL("revoke create on schema public from public"))
        for service in SERVICES:
            role = f"millrace_{service}"
            _role(connection, role, f"login password '{database_password(secret, role)}'")
            connection.execute(f"grant {SWEEPER} to {role} with inherit false, set true")
            connection.execute(f"create schema if not exists {service} authorization {OWNER}")
            connection.execute(f"grant usage on schema {service} to {role}")
            connection.execute(f"alter role {role} set search_path = {service}")
            connection.execute(
                f"alter default privileges for role {OWNER} in schema {service}"
                f" grant select, insert, update, delete on tables to {role}"
            )


def _role(connection: psycopg.Connection, name: str, attributes: str) -> None:
    assert re.fullmatch(r"[a-z_]+", name)
    found = connection.execute("select 1 from pg_roles where rolname = %s", (name,)).fetchone()
    verb = "alter" if found else "create"
    connection.execute(sql.SQL(f"{verb} role {name} {attributes}"))


def _sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
