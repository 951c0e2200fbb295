"""The unit of work (design: data): all or nothing, one organisation, prepared once, and told in our own errors."""

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import insert, select

from services.fields import store
from services.fields.errors import CustomFieldKeyTaken, CustomFieldNotFound
from services.runtime import db as runtime_db
from services.runtime.callers import Caller
from services.runtime.db import Database, Transaction, connection_info, refusing
from services.runtime.errors import (
    Aborted,
    Conflict,
    DeadlineExceeded,
    Internal,
    Invalid,
    NotFound,
    ServiceError,
    Unavailable,
)
from services.runtime.statements import given, mine, statement
from tests.harness import Houses, at_once
from tests.runtime.conftest import break_connections

WHO = Caller(1, 1)
_keys = store.metadata.tables["idempotency_keys"]
_blocks = store.metadata.tables["id_blocks"]

PUT = statement(
    insert(_blocks).values({name: given(name, _blocks.c[name]) for name in ("organization_id", "kind", "next_id")})
)
KINDS = statement(select(_blocks.c.kind).where(mine(_blocks)).order_by(_blocks.c.kind), str)
LOCKED = statement(
    select(_blocks.c.kind).where(mine(_blocks), _blocks.c.kind == given("kind", _blocks.c.kind)).with_for_update(), str
)


@pytest.fixture
def wide(houses: Houses) -> Iterator[Database]:
    """A database with several connections."""
    database = Database(connection_info(houses.settings("fields"), "fields"), size=4)
    yield database
    database.close()


def put(tx: Transaction, kind: str) -> int:
    return tx.run(PUT, kind=kind, next_id=1)


def attempt(db: Database, work: Callable[[Transaction], object]) -> None:
    with db.transaction(WHO) as tx:
        work(tx)


def kinds(db: Database, organization_id: int = 1) -> list[str]:
    with db.reading(Caller(organization_id, 1)) as tx:
        return tx.all(KINDS)


def test_a_transaction_commits_all(db: Database) -> None:
    with db.transaction(WHO) as tx:
        assert put(tx, "a") == put(tx, "b") == 1
        assert tx.all(KINDS) == ["a", "b"]
        assert tx.one(KINDS) == "a"
    assert kinds(db) == ["a", "b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, NotFound])
def test_any_exception_rolls_all_back_and_passes(db: Database, error: type[BaseException]) -> None:
    def work(tx: Transaction) -> None:
        put(tx, "a")
        raise error

    with pytest.raises(error):
        attempt(db, work)
    assert kinds(db) == []


def test_a_transaction_without_a_statement_is_nothing(db: Database) -> None:
    with db.transaction(WHO):
        pass
    with db.reading(WHO):
        pass
    assert kinds(db) == []


def test_a_reading_writes_nothing(db: Database) -> None:
    with pytest.raises(Internal), db.reading(WHO) as tx:
        put(tx, "a")
    with db.reading(WHO) as tx:
        tx.all(KINDS)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            put(tx, "a")
    assert kinds(db) == []


def test_organisations_take_turns_on_one_connection(db: Database) -> None:
    for organization_id in (1, 2, 1, 2):
        with db.transaction(Caller(organization_id, 1)) as tx:
            put(tx, f"of {organization_id} {len(tx.all(KINDS))}")
    assert kinds(db, 1) == ["of 1 0", "of 1 1"]
    assert kinds(db, 2) == ["of 2 0", "of 2 1"]
    assert kinds(db, 3) == []


@pytest.mark.parametrize("first", [True, False])
def test_a_refused_statement_leaves_the_connection_sound(db: Database, first: bool) -> None:
    with db.transaction(WHO) as tx:
        put(tx, "a")

    def again(tx: Transaction) -> None:
        if not first:
            tx.all(KINDS)
        with refusing(unique=Conflict, field="kind"):
            put(tx, "a")

    for _ in range(3):
        with pytest.raises(Conflict):
            attempt(db, again)
        assert kinds(db) == ["a"]
        with db.transaction(WHO) as tx:
            tx.all(LOCKED, kind="a")
    with db.transaction(WHO) as tx:
        put(tx, "b")


def test_a_statement_that_can_not_be_prepared_can_be_once_it_may(db: Database, superuser: psycopg.Connection) -> None:
    superuser.execute("alter table fields.id_blocks rename to elsewhere")
    for _ in range(2):
        with pytest.raises(Internal), db.reading(WHO) as tx:
            tx.all(KINDS)
        with pytest.raises(Internal):
            attempt(db, lambda tx: (tx.all(store.GET_MANY, ids=[1]), tx.all(KINDS)))
    superuser.execute("alter table fields.elsewhere rename to id_blocks")
    assert kinds(db) == []


def test_a_refusal_says_what_the_statement_was_doing(db: Database) -> None:
    definition = {
        "object_type": "contact", "key": "size", "label": "Size", "field_type": "text", "picklist_options": None,
        "validation_rules": None, "section": "", "position": 0, "deal_pipeline_id": 0, "document_template_id": 0,
    }  # fmt: skip
    with db.transaction(WHO) as tx:
        store.create(tx, **definition)
    with pytest.raises(CustomFieldKeyTaken) as raised, db.transaction(WHO) as tx:
        store.create(tx, **definition)
    assert [each.field for each in raised.value.violations] == ["key"]
    with pytest.raises(CustomFieldNotFound), db.transaction(WHO) as tx:
        store.lock(tx, 99)


def test_statements_are_counted_and_control_is_not(db: Database) -> None:
    who = Caller(1, 1)
    with db.transaction(who) as tx:
        put(tx, "a")
        tx.all(KINDS)
        tx.new_id("deal")
    assert who.statements == 2


def test_values_go_and_come_as_they_are(db: Database) -> None:
    document = {"text": "é \\ \" ' %s %(x)s $1", "list": [1, 2.5, None, True], "nested": {"": {}}}
    with db.transaction(WHO) as tx:
        made = store.create(
            tx, object_type="contact", key="size", label="%(label)s ; drop table x --", field_type="picklist",
            picklist_options=[{"value": "'", "label": "日本"}], validation_rules=document, section="",
            position=-5, deal_pipeline_id=0, document_template_id=2**31 - 1,
        )  # fmt: skip
    with db.reading(WHO) as tx:
        assert store.get(tx, made.id) == made
    assert (made.label, made.validation_rules) == ("%(label)s ; drop table x --", document)
    assert made.picklist_options == [{"value": "'", "label": "日本"}]
    assert made.created_at.utcoffset() is not None


def test_a_deadlock_asks_the_caller_to_try_again(wide: Database) -> None:
    for kind in ("a", "b"):
        with wide.transaction(WHO) as tx:
            put(tx, kind)
    together = threading.Barrier(2)

    def lock(first: str, second: str) -> str:
        with wide.transaction(Caller(1, 1)) as tx:
            tx.one(LOCKED, kind=first)
            together.wait()
            tx.one(LOCKED, kind=second)
        return "done"

    outcomes = at_once([lambda: lock("a", "b"), lambda: lock("b", "a")])
    assert sorted(map(type, outcomes), key=str) == sorted([Aborted, str], key=str)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (psycopg.errors.SerializationFailure, Aborted),
        (psycopg.errors.DeadlockDetected, Aborted),
        (psycopg.errors.QueryCanceled, DeadlineExceeded),
        (psycopg.errors.UntranslatableCharacter, Invalid),
        (psycopg.errors.CheckViolation, Internal),
        (psycopg.errors.UndefinedTable, Internal),
        (psycopg.errors.InsufficientPrivilege, Internal),
    ],
)
def test_a_database_error_is_told_in_our_terms(
    db: Database, raised: type[psycopg.Error], told: type[ServiceError]
) -> None:
    def work(tx: Transaction) -> None:
        put(tx, "a")
        raise raised("with details")

    with pytest.raises(told):
        attempt(db, work)
    assert kinds(db) == []


def test_a_statement_that_runs_on_is_stopped(houses: Houses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_db, "STATEMENT_TIMEOUT", "50ms")
    impatient = Database(connection_info(houses.settings("fields"), "fields"), size=2)
    with impatient.transaction(WHO) as tx:
        put(tx, "a")
    with impatient.transaction(WHO) as tx:
        tx.one(LOCKED, kind="a")
        with pytest.raises(DeadlineExceeded), impatient.transaction(Caller(1, 2)) as waiting:
            waiting.one(LOCKED, kind="a")
    assert kinds(impatient) == ["a"]
    impatient.close()


def test_a_commit_that_is_not_acknowledged_is_not_taken_for_done(db: Database, superuser: psycopg.Connection) -> None:
    def work(tx: Transaction) -> None:
        put(tx, "a")
        break_connections(superuser)

    with pytest.raises(Unavailable):
        attempt(db, work)
    assert kinds(db) == []


def test_an_error_that_was_swallowed_does_not_look_committed(db: Database) -> None:
    with db.transaction(WHO) as tx:
        put(tx, "a")

    def work(tx: Transaction) -> None:
        put(tx, "b")
        with pytest.raises(psycopg.errors.UniqueViolation):
            put(tx, "a")

    with pytest.raises(ServiceError):
        attempt(db, work)
    assert kinds(db) == ["a"]
