"""The outbox: what another service must learn of a change is written with the change and delivered at least once.

Inline first: right after the commit the same request delivers its events, so that the caller's next read sees their
effect. Durable second: what was left by a crash, a timeout or a receiver that was down is delivered by a sweeper, with
a backoff. A delivery failure never fails the caller's request.

Inline deliveries hold a server thread while the receiver may call back, so they take at most half of the threads: no
cycle of services can starve. What finds no slot is delivered by background threads at once.

Receivers are idempotent: a delivery carries an idempotency key, the event's own.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple, cast

import grpc
import structlog
from sqlalchemy import ARRAY, BigInteger, Text, all_, any_, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql

from services.runtime.auth import service_token
from services.runtime.callers import DEFAULT_TIMEOUT, Caller
from services.runtime.channels import code_of, connect
from services.runtime.db import Database, Emitted
from services.runtime.errors import ServiceError
from services.runtime.settings import Settings
from services.runtime.statements import given, mine, statement
from services.runtime.tables import standing

log = structlog.get_logger()

SWEEPER_ROLE = "millrace_sweeper"
LISTING = b"select distinct organization_id from outbox where due_at <= now() limit 1000"
INLINE_PATIENCE = 2.0
"""Seconds a request waits for a receiver; the change is made, and its caller should not wait for others' troubles."""
MARGIN = 0.5
"""Seconds of the caller's deadline that are left for the answer."""
SWEEP_EVERY = 1.0
"""Seconds between two looks at what is due."""
LEASE = timedelta(seconds=60)
"""How long a claimed event is one sweeper's; longer than a whole batch of deliveries takes."""
BATCH = 10
BACKGROUND_THREADS = 4
LONGEST_DELAY = timedelta(seconds=5)
HOPELESS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""Answers that no repeat can change: the event is kept but never due again, for a person to look at."""

_outbox = standing.tables["outbox"]
_due = (
    select(_outbox.c.id)
    .where(
        mine(_outbox),
        _outbox.c.due_at <= func.now(),
        _outbox.c.receiver != all_(bindparam("silent", type_=ARRAY(Text))),
    )
    .order_by(_outbox.c.due_at)
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)
CLAIM_DUE = statement(
    update(_outbox)
    .where(mine(_outbox), _outbox.c.id == any_(func.array(_due.scalar_subquery(), type_=ARRAY(BigInteger))))
    .values(due_at=func.now() + bindparam("lease", type_=postgresql.INTERVAL()))
    .returning(*(_outbox.c[name] for name in Emitted._fields)),
    Emitted,
)
DELIVERED = statement(
    delete(_outbox).where(mine(_outbox), _outbox.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))
)
FAILED = statement(
    update(_outbox)
    .where(mine(_outbox), _outbox.c.id == given("id", _outbox.c.id))
    .values(
        attempts=_outbox.c.attempts + 1,
        last_error=given("error", _outbox.c.last_error),
        due_at=func.now()
        + bindparam("delay", type_=postgresql.INTERVAL()).op("*", return_type=postgresql.INTERVAL())(
            func.least(func.power(2, func.least(_outbox.c.attempts, 10)), bindparam("longest", type_=BigInteger))
        ),
    )
)
FIRST_DELAY = timedelta(milliseconds=250)


class Outbox:
    """Delivers a service's events. `deliver` is what `Database.after_commit` calls."""

    def __init__(
        self, service: str, settings: Settings, db: Database, *, dial: Callable[[str], grpc.Channel] | None = None
    ):
        self._service = service
        self._secret = settings.secret.get_secret_value()
        self._db = db
        self._dial = dial or (lambda receiver: connect(settings, receiver))
        self._channels: dict[str, grpc.Channel] = {}
        self._slots = threading.BoundedSemaphore(max(settings.threads // 2, 1))
        self._background = ThreadPoolExecutor(BACKGROUND_THREADS, thread_name_prefix="outbox")
        self._stopping = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_for_ever, name="outbox-sweeper", daemon=True)

    def start(self) -> None:
        """Starts the sweeper."""
        self._sweeper.start()

    def deliver(self, who: Caller, events: Sequence[Emitted]) -> None:
        """Delivers fresh events within the request that made them, or hands them on when too many requests do."""
        patience = min(who.time_left() - MARGIN, INLINE_PATIENCE)
        if patience <= 0 or not self._slots.acquire(blocking=False):
            # Once we are closing nobody takes them; the rows stay for whoever comes next.
            with suppress(RuntimeError):
                self._background.submit(self._attempt, who.organization_id, events, DEFAULT_TIMEOUT)
            return
        try:
            self._attempt(who.organization_id, events, patience)
        finally:
            self._slots.release()

    def sweep(self) -> None:
        """Delivers everything that is due, organisation by organisation; each one's failure is its own."""
        with self._db.as_role(SWEEPER_ROLE) as connection:
            organizations = [row[0] for row in connection.execute(LISTING).fetchall()]
        for organization_id in organizations:
            if self._stopping.is_set():
                return
            try:
                self._sweep_one(organization_id)
            except Exception:
                log.exception("outbox.sweep_failed", organization_id=organization_id)

    def close(self) -> None:
        """Stops sweeping and lets deliveries under way end; what is left stays in the table."""
        self._stopping.set()
        if self._sweeper.is_alive():
            self._sweeper.join()
        self._background.shutdown(wait=True, cancel_futures=True)
        for channel in self._channels.values():
            channel.close()

    def _sweep_for_ever(self) -> None:
        while not self._stopping.wait(SWEEP_EVERY):
            try:
                self.sweep()
            except Exception:
                log.exception("outbox.sweep_failed")

    def _sweep_one(self, organization_id: int) -> None:
        """Delivers what is due in one organisation, whatever is due to receivers that do not answer."""
        silent: set[str] = set()
        claimed = BATCH
        while claimed == BATCH and not self._stopping.is_set():
            with self._db.transaction(Caller(organization_id, 0, is_service=True)) as tx:
                events = tx.all(CLAIM_DUE, lease=LEASE, silent=sorted(silent))
            silent |= self._attempt(organization_id, events, DEFAULT_TIMEOUT)
            claimed = len(events)

    def _attempt(self, organization_id: int, events: Sequence[Emitted], timeout: float) -> set[str]:
        """Delivers events as far as they go, and answers which receivers did not answer."""
        delivered: list[int] = []
        missed: list[tuple[Emitted, _Miss]] = []
        silent: dict[str, _Miss] = {}
        for event in events:
            # A receiver that did not answer the last event will not answer the next one either.
            miss = silent.get(event.receiver) or self._call(organization_id, event, timeout)
            if miss is None:
                delivered.append(event.id)
                continue
            missed.append((event, miss))
            if miss.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                silent[event.receiver] = miss
        try:
            self._record(organization_id, delivered, missed)
        except ServiceError as error:
            # The database went away; the rows are still there and the receivers know the events.
            log.warning("outbox.record_failed", organization_id=organization_id, error=str(error))
        return set(silent)

    def _call(self, organization_id: int, event: Emitted, timeout: float) -> "_Miss | None":
        metadata = (
            ("authorization", f"Bearer {service_token(self._secret, organization_id, event.user_id)}"),
            ("x-request-id", event.request_id),
            ("idempotency-key", f"{self._service}:{event.id}"),
        )
        try:
            method = self._channel(event.receiver).unary_unary(event.rpc, _as_is, _as_is)
            method(event.payload, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            miss = _Miss(code_of(error), cast("grpc.Call", error).details() or "")
        except Exception as error:  # noqa: BLE001 - an event that can not even be sent is kept like any other
            miss = _Miss(grpc.StatusCode.INTERNAL, repr(error))
        else:
            return None
        log.warning(
            "outbox.not_delivered",
            organization_id=organization_id,
            event_id=event.id,
            rpc=event.rpc,
            error=str(miss),
            request_id=event.request_id,
        )
        return miss

    def _record(
        self, organization_id: int, delivered: Sequence[int], missed: "Sequence[tuple[Emitted, _Miss]]"
    ) -> None:
        with self._db.transaction(Caller(organization_id, 0, is_service=True)) as tx:
            if delivered:
                tx.run(DELIVERED, ids=list(delivered))
            for event, miss in missed:
                delay = None if miss.code in HOPELESS else FIRST_DELAY
                tx.run(FAILED, id=event.id, error=str(miss), delay=delay, longest=LONGEST_DELAY // FIRST_DELAY)

    def _channel(self, receiver: str) -> grpc.Channel:
        channel = self._channels.get(receiver)
        if channel is None:
            channel = self._channels.setdefault(receiver, self._dial(receiver))
        return channel


class _Miss(NamedTuple):
    """Why an event did not arrive."""

    code: grpc.StatusCode
    said: str

    def __str__(self) -> str:
        return f"{self.code.name}: {self.said}"[:500]


def _as_is(message: bytes) -> bytes:
    """Events travel as the bytes their row has."""
    return message
