"""Tenancy (design: data): row-level security alone keeps organisations apart, and roles keep services apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from psycopg import sql
from sqlalchemy import select

from services import SERVICES
from services.runtime.callers import Caller
from services.runtime.db import Database, connection_info
from services.runtime.migrate import SWEEPER
from services.runtime.statements import statement
from tests.harness import Houses, Someone
from tests.runtime.conftest import text_field
from tests.statement_rules import metadatas

FILLINGS = {
    "bigint": "1",
    "integer": "1",
    "smallint": "1",
    "numeric": "1",
    "double precision": "1",
    "boolean": "true",
    "text": "'x'",
    "bytea": "'x'",
    "jsonb": "'{}'",
    "timestamp with time zone": "now()",
    "date": "now()",
    "ARRAY": "'{}'",
}


def tables(superuser: psycopg.Connection) -> list[tuple[str, str]]:
    """Every table of every service, as the database has them."""
    return superuser.execute(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p') and n.nspname = any(%s) and c.relname <> 'alembic_version' order by 1, 2",
        (list(SERVICES),),
    ).fetchall()


@contextmanager
def acting_as(houses: Houses, service: str) -> Iterator[psycopg.Connection]:
    """A service's role in the database, with nothing of our code in between."""
    with psycopg.connect(connection_info(houses.settings(service), service), autocommit=True) as connection:
        yield connection


@pytest.fixture
def peopled(superuser: psycopg.Connection) -> psycopg.Connection:
    """Every table with one row of organisation 1 and one of organisation 2, whatever it means."""
    superuser.execute("set session_replication_role = replica")
    for schema, table in tables(superuser):
        for (check,) in superuser.execute(
            "select conname from pg_constraint where contype = 'c' and conrelid = %s::regclass", (f"{schema}.{table}",)
        ).fetchall():
            superuser.execute(sql.SQL("alter table {}.{} drop constraint {}").format(*ids(schema, table, check)))
        columns = superuser.execute(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = %s and table_name = %s and is_nullable = 'NO' and column_name <> 'organization_id'",
            (schema, table),
        ).fetchall()
        names = ", ".join(["organization_id", *(f'"{name}"' for name, _ in columns)])
        values = ", ".join(FILLINGS[kind] for _, kind in columns)
        for organization_id in (1, 2):
            filled = ", ".join(filter(None, [str(organization_id), values]))
            superuser.execute(f"insert into {schema}.{table} ({names}) values ({filled})".encode())
    return superuser


def ids(*names: str) -> list[sql.Identifier]:
    return [sql.Identifier(name) for name in names]


def count(connection: psycopg.Connection, table: str, where: str = "true") -> int:
    found = connection.execute(f"select count(*) from {table} where {where}".encode()).fetchone()
    assert found is not None
    return int(found[0])


def test_every_table_is_under_row_level_security(superuser: psycopg.Connection) -> None:
    rows = superuser.execute(
        "select n.nspname || '.' || c.relname, c.relrowsecurity, c.relforcerowsecurity, pg_get_userbyid(c.relowner),"
        " (select array_agg(pg_get_expr(p.polqual, c.oid) || ' / ' || pg_get_expr(p.polwithcheck, c.oid))"
        "  from pg_policy p where p.polrelid = c.oid and p.polcmd = '*' and p.polroles = '{0}')"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p') and n.nspname = any(%s) and c.relname <> 'alembic_version'",
        (list(SERVICES),),
    ).fetchall()
    mine = "(organization_id = (NULLIF(current_setting('app.organization_id'::text, true), ''::text))::bigint)"
    assert len(rows) >= 4
    for table, enabled, forced, owner, policies in rows:
        assert (enabled, forced, owner, policies) == (True, True, "millrace_owner", [f"{mine} / {mine}"]), table


def test_the_only_other_policy_is_the_sweepers(superuser: psycopg.Connection) -> None:
    rows = superuser.execute(
        "select p.polname, c.relname, p.polcmd::text, p.polroles::regrole[]::text from pg_policy p"
        " join pg_class c on c.oid = p.polrelid where p.polname <> 'tenant'"
    ).fetchall()
    assert set(rows) == {("sweeper", "outbox", "r", f"{{{SWEEPER}}}")}


def test_no_role_of_a_service_passes_the_wall_by_attribute(superuser: psycopg.Connection) -> None:
    rows = superuser.execute(
        "select rolname from pg_roles where rolname like 'millrace%' and rolname <> 'millrace_owner'"
        " and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)"
    ).fetchall()
    assert not rows


def test_without_an_organisation_nobody_sees_a_row(houses: Houses, peopled: psycopg.Connection) -> None:
    for schema, table in tables(peopled):
        assert count(peopled, f"{schema}.{table}") == 2, table
        with acting_as(houses, schema) as connection:
            assert count(connection, table) == 0, table
            connection.execute("set app.organization_id = ''")
            assert count(connection, table) == 0, table


def test_an_organisation_sees_its_own_rows_whatever_the_query_says(houses: Houses, peopled: psycopg.Connection) -> None:
    for schema, table in tables(peopled):
        with acting_as(houses, schema) as connection:
            connection.execute("set app.organization_id = '2'")
            assert count(connection, table) == 1, table
            assert count(connection, table, "organization_id = 1") == 0, table
            changed = connection.execute(f"update {table} set organization_id = organization_id".encode())
            assert changed.rowcount == 1, table
            assert connection.execute(f"delete from {table} where organization_id = 1".encode()).rowcount == 0, table
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"update {table} set organization_id = 1".encode())


def test_an_organisation_writes_no_other_organisations_rows(houses: Houses, peopled: psycopg.Connection) -> None:
    for schema, table in tables(peopled):
        with acting_as(houses, schema) as connection:
            connection.execute("set app.organization_id = '2'")
            connection.execute(f"create temporary table copy as select * from {table}".encode())
            connection.execute(b"update copy set organization_id = 3")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"insert into {table} select * from copy".encode())


def test_a_service_reads_no_other_services_tables(houses: Houses, peopled: psycopg.Connection) -> None:
    found = tables(peopled)
    for service in {schema for schema, _ in found}:
        with acting_as(houses, service) as connection:
            connection.execute("set app.organization_id = '1'")
            for schema, table in found:
                if schema != service:
                    for query in ("select 1 from {}.{}", "insert into {}.{} default values", "delete from {}.{}"):
                        with pytest.raises(psycopg.errors.InsufficientPrivilege):
                            connection.execute(sql.SQL(query).format(*ids(schema, table)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("create table public.mine (id int)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("create table {}.mine (id int)").format(*ids(service)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("set role millrace_owner")


def test_the_sweeper_sees_what_is_due_and_nothing_else(houses: Houses, peopled: psycopg.Connection) -> None:
    found = tables(peopled)
    for service in {schema for schema, _ in found}:
        with acting_as(houses, service) as connection:
            assert count(connection, "outbox") == 0, "the role is taken on, not inherited"
            connection.execute(f"set role {SWEEPER}".encode())
            seen = connection.execute("select organization_id, due_at from outbox order by 1").fetchall()
            assert [organization_id for organization_id, _ in seen] == [1, 2]
            refused = [
                "select payload from outbox",
                "select id from outbox",
                "select * from outbox",
                "delete from outbox",
                "update outbox set due_at = null",
                "insert into outbox (organization_id) values (1)",
                *(f"select organization_id from {table} limit 1" for schema, table in found if table != "outbox"),
            ]
            for query in refused:
                # A table of another schema is not even named here.
                with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)):
                    connection.execute(query.encode())


def test_our_own_transaction_is_walled_without_the_applications_filter(
    db: Database, peopled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same unit of work as every rpc's, with statements that forget the organisation."""
    # They break the rules on purpose: the walk over all statements is not to find them.
    monkeypatch.setattr("services.runtime.statements.REGISTERED", [])
    for table in metadatas()["fields"].tables.values():
        careless = statement(select(table.c.organization_id), int)
        for organization_id in (1, 2):
            with db.reading(Caller(organization_id, 1)) as tx:
                assert tx.all(careless) == [organization_id]
        with db.reading(Caller(3, 1)) as tx:
            assert tx.all(careless) == []


def test_organisations_share_keys_but_not_records(
    houses: Houses, fields: CrmCustomFieldServiceStub, admin: Someone
) -> None:
    stranger = houses.someone(organization_id=2)
    for who in (admin, stranger):
        made = fields.CreateCustomField(text_field("size"), metadata=who.metadata())
        assert (made.data.organization_id, made.data.id) == (who.organization_id, 1)
    fields.CreateCustomField(text_field("colour"), metadata=admin.metadata())
    listed: dict[int, Any] = {}
    for who in (admin, stranger):
        answer = fields.ListCustomFields(pb.ListCustomFieldsRequest(), metadata=who.metadata())
        listed[who.organization_id] = [(each.organization_id, each.key) for each in answer.data]
    assert listed == {1: [(1, "size"), (1, "colour")], 2: [(2, "size")]}
