"""The seven statement rules (design: data) hold for every statement, every migration and every table."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

import services
from services import SERVICES
from services.runtime import db, ids, outbox
from services.runtime.migrate import PACKAGES, migrate
from services.runtime.statements import REGISTERED
from tests.harness import SECRET
from tests.statement_rules import broken_rules, metadatas, names_of

ROOT = Path(services.__file__).parent
WALKED = (db, ids, outbox)


def test_every_statement_keeps_the_rules() -> None:
    tables = names_of(metadatas())
    assert len(WALKED) == 3
    assert len(REGISTERED) > 10
    broken = [(rules, each.sql) for each in REGISTERED if (rules := broken_rules(each.sql, tables))]
    assert not broken


def test_no_statement_would_pass_without_its_organisation() -> None:
    tables, scope = names_of(metadatas()), re.compile(r"\w+\.organization_id = %\(organization_id\)s::BIGINT")
    scoped = [each.sql for each in REGISTERED if scope.search(each.sql) and not each.sql.startswith("INSERT")]
    assert len(scoped) > 10
    for sql in scoped:
        for found in scope.finditer(sql):
            assert broken_rules(sql[: found.start()] + "true" + sql[found.end() :], tables), sql


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("select set_config('app.organization_id', '7', true)", "1"),
        ("select * from outbox", "2"),
        ("select * from outbox where id = %(id)s and organization_id = %(organization_id)s", "2"),
        ("select * from outbox as o where outbox.organization_id = %(organization_id)s", "2"),
        (
            "select * from outbox join id_blocks on id_blocks.organization_id = outbox.organization_id"
            " where outbox.organization_id = %(organization_id)s",
            "2",
        ),
        (
            "select * from outbox, id_blocks where outbox.organization_id = %(organization_id)s",
            "2",
        ),
        (
            "update outbox set attempts = 1 where outbox.organization_id = %(organization_id)s"
            " and id = any(array(select id from outbox where due_at < now()))",
            "2",
        ),
        ("delete from outbox where id = %(id)s", "2"),
        ("insert into outbox (id) values (%(id)s)", "2"),
        (
            "insert into outbox (organization_id, id) select id_blocks.organization_id, 1 from id_blocks"
            " where id_blocks.organization_id = %(organization_id)s",
            "3",
        ),
        (
            "with a as (insert into outbox (organization_id, id) values (%(organization_id)s, 1) returning id)"
            " insert into id_blocks (organization_id, kind) select %(organization_id)s, a.id from a returning kind",
            "3",
        ),
        (
            "insert into id_blocks (organization_id) values (%(organization_id)s) on conflict (organization_id)"
            " do update set next_id = (select 1)",
            "4",
        ),
        (
            "update outbox set due_at = clock_timestamp() where outbox.organization_id = %(organization_id)s",
            "4",
        ),
        ("create trigger t after insert on outbox execute function f()", "5"),
        ("create constraint trigger t after insert on outbox execute function f()", "5"),
        ("merge into outbox using id_blocks on true when matched then delete", "5"),
        ("copy outbox from stdin", "5"),
        ("alter table a add foreign key (b) references c on delete set null", "5"),
        ("alter table a add unique (b) deferrable initially deferred", "5"),
        ("set plan_cache_mode = force_generic_plan", "5"),
        (
            "update outbox set attempts = 1 where outbox.organization_id = %(organization_id)s and id in"
            " (select (id) from outbox where outbox.organization_id = %(organization_id)s limit 5 for update)",
            "6",
        ),
    ],
)
def test_a_planted_statement_is_found(sql: str, rule: str) -> None:
    assert rule in {each.partition(":")[0] for each in broken_rules(sql, {"outbox", "id_blocks"})}


@pytest.mark.parametrize(
    "sql",
    [
        "select outbox.id from outbox where outbox.organization_id = %(organization_id)s::BIGINT",
        "select o.id from outbox as o where o.organization_id = %(organization_id)s and o.error = 'copy a from b'",
        "insert into outbox (organization_id, id) values (%(organization_id)s, 1) on conflict do nothing",
        "update outbox set id = 1 from unnest(%(ids)s) as placed where outbox.organization_id = %(organization_id)s",
    ],
)
def test_a_good_statement_is_let_be(sql: str) -> None:
    assert not broken_rules(sql, {"outbox", "id_blocks"})


def test_every_migration_keeps_the_rules(admin_url: str) -> None:
    ran: list[str] = []

    def note(*arguments: Any) -> None:
        ran.append(arguments[2])

    name = f"history_{secrets.token_hex(4)}"
    fresh = re.sub(r"/test_\w+", f"/{name}", admin_url)
    assert fresh != admin_url
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        event.listen(Engine, "before_cursor_execute", note)
        try:
            migrate(fresh, SECRET)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
            connection.execute(f"drop database {name} with (force)")
    ours = [sql for sql in ran if not re.search(r"\bpg_catalog\b|\bpg_class\b|alembic_version", sql)]
    assert any("custom_fields" in sql for sql in ours)
    assert not [(rules, sql) for sql in ours if (rules := broken_rules(sql, names_of(metadatas())))]


def test_every_key_index_and_reference_starts_with_the_organisation() -> None:
    for service, metadata in metadatas().items():
        for table in metadata.tables.values():
            keys = [table.primary_key, *table.indexes, *(each for each in table.constraints if _is_keyed(each))]
            for key in keys:
                columns = list(getattr(key, "columns", ()))
                assert columns, (service, table.name, key)
                assert columns[0].name == "organization_id", (service, table.name, str(key))
            for reference in table.foreign_key_constraints:
                first = reference.elements[0]
                assert (first.parent.name, first.column.name) == ("organization_id", "organization_id")
                assert reference.ondelete in (None, "CASCADE", "RESTRICT")


def _is_keyed(constraint: Any) -> bool:
    return constraint.__visit_name__ in ("unique_constraint", "exclude_constraint")


def test_the_database_itself_has_no_other_key_trigger_or_sequence(superuser: psycopg.Connection) -> None:
    ours = "join pg_class t on t.oid = {} join pg_namespace n on n.oid = t.relnamespace and n.nspname = any(%s)"
    schemas = (list(SERVICES),)

    def rows(query: str) -> list[tuple[Any, ...]]:
        return superuser.execute(query, schemas).fetchall()

    indexes = rows(
        "select t.relname, i.indexrelid::regclass::text, a.attname from pg_index i "
        + ours.format("i.indrelid")
        + " left join pg_attribute a on a.attrelid = t.oid and a.attnum = i.indkey[0]"
    )
    wrong = [each for each in indexes if each[0] != "alembic_version" and each[2] != "organization_id"]
    assert len(indexes) > 10
    assert not wrong
    references = rows(
        "select c.conname, c.confdeltype::text, a.attname, b.attname from pg_constraint c "
        + ours.format("c.conrelid")
        + " join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]"
        " join pg_attribute b on b.attrelid = c.confrelid and b.attnum = c.confkey[1] where c.contype = 'f'"
    )
    assert references
    assert {(own, theirs) for _, _, own, theirs in references} == {("organization_id", "organization_id")}
    assert {action for _, action, _, _ in references} <= {"a", "r", "c"}
    assert not rows("select c.conname from pg_constraint c " + ours.format("c.conrelid") + " where c.condeferrable")
    assert not rows("select g.tgname from pg_trigger g " + ours.format("g.tgrelid") + " where not g.tgisinternal")
    assert not rows("select t.relname from pg_class s " + ours.format("s.oid") + " where t.relkind = 'S'")


def sources() -> Iterator[tuple[Path, str]]:
    for path in ROOT.rglob("*.py"):
        yield path, path.read_text()


def test_no_source_names_a_constraint_or_sets_the_organisation_another_way() -> None:
    """Rules 1 and 7 where statements are not composed but written."""
    forbidden = re.compile(r"set_config|\.constraint_name|\.diag\b|plan_cache_mode|\bcopy_expert|\.copy\(")
    assert not [(str(path), found[0]) for path, text in sources() if (found := forbidden.search(text))]


def test_every_service_with_a_store_is_migrated() -> None:
    with_tables = {name for name in metadatas() if name != "runtime"}
    assert with_tables <= set(SERVICES)
    assert with_tables == {each for each in SERVICES if (PACKAGES / each / "migrations").exists()}
