"""The database: SQLAlchemy Core composes statements once, psycopg executes them, a transaction is one organisation's.

    GET_CONTACT = statement(select(*columns_of(contacts, Contact)).where(mine(contacts), ...), Contact)

    with self._db.transaction(who) as tx:
        contact = tx.one(GET_CONTACT, id=7)

A transaction opens with `set local app.organization_id = '7'`, which row-level security reads and a distributed
PostgreSQL routes by; `organization_id` is bound to every statement besides. It commits on exit and rolls back on any
exception. Rows come back as frozen dataclasses.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import psycopg
from google.protobuf.message import Message
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout
from sqlalchemy import bindparam, delete, func, insert, null, select, update
from sqlalchemy.dialects import postgresql

from services.runtime.callers import Caller
from services.runtime.errors import (
    Aborted,
    DeadlineExceeded,
    IdempotencyKeyReused,
    Internal,
    Invalid,
    ServiceError,
    Unavailable,
)
from services.runtime.ids import IdBlocks
from services.runtime.settings import Settings, database_password
from services.runtime.statements import Row, Statement, given, mine, statement
from services.runtime.tables import standing
from services.runtime.wire import CommitFailed, ConnectionLost, Wire

Answer = TypeVar("Answer", bound=Message)

_keys = standing.tables["idempotency_keys"]
_outbox = standing.tables["outbox"]

_claim = postgresql.insert(_keys).values(
    {name: given(name, _keys.c[name]) for name in ("organization_id", "user_id", "rpc", "key", "request_hash")}
    | {"expires_at": func.now() + bindparam("kept", type_=postgresql.INTERVAL())}
)
CLAIM_KEY = statement(
    # A key that has expired is as good as none: it is taken over.
    _claim.on_conflict_do_update(
        index_elements=["organization_id", "user_id", "rpc", "key"],
        set_={
            "request_hash": _claim.excluded.request_hash,
            "response": null(),
            "expires_at": _claim.excluded.expires_at,
        },
        where=_keys.c.expires_at < func.now(),
    ).returning(_keys.c.key),
    str,
)
_this_key = (mine(_keys), *(_keys.c[name] == given(name, _keys.c[name]) for name in ("user_id", "rpc", "key")))
READ_KEY = statement(
    select(_keys.c.request_hash, _keys.c.response).where(*_this_key, _keys.c.expires_at >= func.now()),
    lambda *row: row,
)
ANSWER_KEY = statement(update(_keys).values(response=given("response", _keys.c.response)).where(*_this_key))
PURGE_KEYS = statement(delete(_keys).where(mine(_keys), _keys.c.expires_at < func.now()))

EMIT = statement(
    insert(_outbox).values(
        {
            name: given(name, _outbox.c[name])
            for name in ("organization_id", "id", "receiver", "rpc", "payload", "user_id", "request_id")
        }
        | {"due_at": func.now() + bindparam("grace", type_=postgresql.INTERVAL())}
    )
)

KEY_LIFETIME = timedelta(hours=24)
"""How long a caller's idempotency key answers (spec v1 D14)."""
EVENT_LIFETIME = timedelta(days=30)
"""How long a receiver remembers an event; far longer than any redelivery."""
SPARE = 2
"""Connections beside one per request: the sweeper's and a background delivery's."""
STATEMENT_TIMEOUT = "30s"
"""Longer than any caller waits: what runs on is stopped by the database."""
NUL_IN_JSON = ("22P05", "22021")
"""How PostgreSQL refuses the one character it can not store; in plain text psycopg refuses it, without a code."""
INLINE_GRACE = timedelta(seconds=10)
"""How long the sweeper leaves a fresh event to the request that made it."""


class Event(NamedTuple):
    """A kind of event: who receives it, by which rpc (`/package.Service/Method`)."""

    receiver: str
    rpc: str


class Emitted(NamedTuple):
    """An event on its way, as its outbox row has it."""

    id: int
    receiver: str
    rpc: str
    payload: bytes
    user_id: int
    request_id: str


class Replay(Exception):
    """The call was answered before under its Idempotency-Key; carries that answer, serialised."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response


class Transaction:
    """One organisation's unit of work. Made by `Database.transaction` and `Database.reading`."""

    __slots__ = ("_claimed", "_database", "_reads", "emitted", "who", "wire")

    def __init__(self, database: "Database", wire: Wire, who: Caller, *, reads: bool) -> None:
        self._database = database
        self._reads = reads
        self._claimed = False
        self.wire = wire
        self.who = who
        self.emitted: list[Emitted] = []

    def open(self) -> None:
        """Begins on the connection at hand; nothing is sent before the first statement."""
        if self._reads:
            self.wire.read(self.who.organization_id)
        else:
            self.wire.begin(b"begin", self.who.organization_id)

    def one(self, wanted: Statement[Row], **parameters: Any) -> Row | None:
        """The first row of the answer, or None."""
        rows, _ = self._execute(wanted, parameters)
        return rows[0] if rows else None

    def all(self, wanted: Statement[Row], **parameters: Any) -> list[Row]:
        """All rows of the answer."""
        return self._execute(wanted, parameters)[0]

    def run(self, wanted: Statement[Any], **parameters: Any) -> int:
        """How many rows the statement touched."""
        return self._execute(wanted, parameters)[1]

    def new_id(self, kind: str) -> int:
        """A fresh id of this kind in the caller's organisation."""
        return self._database.ids.take(self.who.organization_id, kind)

    def emit(self, event: Event, payload: Message) -> None:
        """Writes an event to the outbox; it is delivered right after the commit, and until it is received."""
        row = Emitted(
            self.new_id("outbox"),
            event.receiver,
            event.rpc,
            payload.SerializeToString(),
            self.who.user_id,
            self.who.request_id,
        )
        self.run(EMIT, **row._asdict(), grace=INLINE_GRACE)
        self.emitted.append(row)

    def claim(self) -> None:
        """Takes the call's idempotency key, or answers as it was answered before. Called first in a transaction."""
        kept = EVENT_LIFETIME if self.who.is_service else KEY_LIFETIME
        self._claimed = self.one(CLAIM_KEY, **self._key(), request_hash=self._digest(), kept=kept) is not None
        if not self._claimed:
            self.recall()
            raise IdempotencyKeyReused(field="Idempotency-Key")

    def recall(self) -> None:
        """Answers as the call was answered before under its idempotency key, if it was."""
        found = self.one(READ_KEY, **self._key())
        if found is None:
            return
        if found[0] != self._digest():
            raise IdempotencyKeyReused(field="Idempotency-Key")
        raise Replay(found[1])

    def reply(self, response: Answer) -> Answer:
        """Answers the call: last line of a writing transaction, so that a repeat gets this very answer."""
        if self._claimed:
            self.run(ANSWER_KEY, **self._key(), response=response.SerializeToString())
            self._claimed = False
        return response

    def finish(self) -> None:
        """Refuses to commit a claimed key without an answer: the repeat would have none."""
        if self._claimed:
            raise RuntimeError(f"{self.who.rpc} must end its transaction with tx.reply")

    def _digest(self) -> bytes:
        return hashlib.sha256(self.who.request).digest()

    def _key(self) -> dict[str, Any]:
        return {"user_id": self.who.user_id, "rpc": self.who.rpc, "key": self.who.idempotency_key}

    def _execute(self, wanted: Statement[Row], parameters: dict[str, Any]) -> tuple[list[Row], int]:
        parameters["organization_id"] = self.who.organization_id
        if wanted.constants:
            parameters = wanted.constants | parameters
        self.who.statements += 1
        try:
            return self.wire.run(wanted, parameters)
        except ConnectionLost:
            # It broke while it sat in the pool, and nothing of this transaction happened: once more on a sound one.
            self._database.replace_wire(self)
            return self.wire.run(wanted, parameters)


class Database:
    """A service's database: a pool of connections under the service's own role."""

    def __init__(
        self,
        conninfo: str,
        *,
        size: int = 16,
        after_commit: Callable[[Caller, list[Emitted]], None] | None = None,
    ) -> None:
        self.after_commit = after_commit
        self.ids = IdBlocks(conninfo)
        self._pool = ConnectionPool(
            conninfo,
            connection_class=Wire,
            min_size=1,
            max_size=size + SPARE,
            max_idle=60,
            timeout=5,
            kwargs={"autocommit": True},
            configure=Wire.ready,
            open=True,
        )

    @contextmanager
    def transaction(self, who: Caller) -> Iterator[Transaction]:
        """A writing unit of work for the caller: all of it or nothing, once per idempotency key."""
        with self._open(who) as tx:
            if who.idempotency_key:
                tx.claim()
            yield tx
            tx.finish()
        if tx.emitted and self.after_commit:
            self.after_commit(who, tx.emitted)
        if who.idempotency_key and random.random() < 0.01:  # noqa: S311 - spreads the purge, guards nothing
            with self._open(who) as tx:
                tx.run(PURGE_KEYS)

    @contextmanager
    def reading(self, who: Caller) -> Iterator[Transaction]:
        """A read-only unit of work for the caller; each of its statements sees what was committed before it."""
        with self._open(who, reads=True) as tx:
            yield tx

    @contextmanager
    def checks(self, who: Caller) -> Iterator[None]:
        """What a writing call checks before its transaction.

        A call that is repeated under its idempotency key may fail here because of what it did the first time: then it
        gets the answer of that time.
        """
        try:
            yield
        except ServiceError:
            if who.idempotency_key:
                with self.reading(who) as tx:
                    tx.recall()
            raise

    @contextmanager
    def as_role(self, role: str) -> Iterator[psycopg.Connection[Any]]:
        """A read-only transaction of no organisation under another role the service may take on."""
        with self._pool.connection() as connection, connection.transaction():
            connection.execute(f"set transaction read only; set local role {role}".encode())
            yield connection

    def replace_wire(self, tx: Transaction) -> None:
        """Gives a transaction that has not begun a sound connection in place of its broken one."""
        self._pool.putconn(tx.wire)
        self._pool.check()
        tx.wire = self._checkout()
        tx.open()

    def close(self) -> None:
        """Closes every connection."""
        self._pool.close()
        self.ids.close()

    @contextmanager
    def _open(self, who: Caller, *, reads: bool = False) -> Iterator[Transaction]:
        tx = Transaction(self, self._checkout(), who, reads=reads)
        tx.open()
        try:
            yield tx
            tx.wire.commit_now()
        except psycopg.Error as error:
            tx.wire.rollback_now()
            raise _told(error) from error
        except BaseException:
            tx.wire.rollback_now()
            raise
        finally:
            self._pool.putconn(tx.wire)

    def _checkout(self) -> Wire:
        try:
            return self._pool.getconn()
        except PoolTimeout as error:
            raise Unavailable() from error


@contextmanager
def refusing(
    *, unique: type[ServiceError] | None = None, missing: type[ServiceError] | None = None, field: str | None = None
) -> Iterator[None]:
    """What a refusal of the statements inside means: `unique` for a duplicate, `missing` for a dangling reference."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        if unique is None:
            raise
        raise unique(field=field) from error
    except psycopg.errors.ForeignKeyViolation as error:
        if missing is None:
            raise
        raise missing(field=field) from error


def connection_info(settings: Settings, service: str) -> str:
    """How a service reaches its database: the deployment's URL under the service's own role."""
    parts = conninfo_to_dict(settings.database_url)
    role = f"millrace_{service}"
    if not parts.get("user"):
        parts |= {"user": role, "password": database_password(settings.secret.get_secret_value(), role)}
    parts.setdefault("application_name", role)
    parts.setdefault("connect_timeout", "5")
    parts.setdefault("options", f"-c statement_timeout={STATEMENT_TIMEOUT} -c idle_in_transaction_session_timeout=60s")
    return make_conninfo("", **parts)


def _told(error: psycopg.Error) -> ServiceError:
    """What a caller is told of a database error; the details are in its cause, for the log alone (design: errors)."""
    state = error.sqlstate or ""
    if state in NUL_IN_JSON or (isinstance(error, psycopg.DataError) and not state):
        return Invalid("Texts must not contain the NUL character.")
    if state in ("40001", "40P01"):
        return Aborted()
    if state == "57014":
        return DeadlineExceeded()
    if isinstance(error, CommitFailed) or state.startswith(("08", "57P")) or not state:
        return Unavailable()
    return Internal()
