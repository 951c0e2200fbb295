"""The outbox (design: what crosses services after a commit): at once where it can, later where it must, never twice."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from google.protobuf.wrappers_pb2 import StringValue

from services.runtime import db as runtime_db
from services.runtime import errors, outbox
from services.runtime.callers import Caller
from services.runtime.db import Database, Emitted, Event, connection_info
from services.runtime.outbox import Outbox
from tests.harness import Houses, at_once, eventually, failing
from tests.runtime import toy
from tests.runtime.conftest import text_field

TOLD = Event("forms", f"/{toy.NAME}/Service")
DEFINED = Event("fields", "/crm.fields.v1.CrmCustomFieldService/CreateCustomField")
NOWHERE = Event("elsewhere", f"/{toy.NAME}/Service")


class Receiver:
    """What a receiving service heard, and how it answers."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.callers: list[Caller] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def __call__(self, who: Caller, text: str) -> str:
        self.heard.append(text)
        self.callers.append(who)
        self.open.wait(20)
        if self.error:
            raise self.error
        return "heard"


class Sender:
    """A process of a service that tells others what it did."""

    def __init__(self, houses: Houses, **changed: Any) -> None:
        settings = houses.settings("fields", **changed)
        self.db = Database(connection_info(settings, "fields"), size=4)
        self.outbox = Outbox("fields", settings, self.db)
        self.db.after_commit = self.outbox.deliver

    def tell(self, text: str = "news", *, organization_id: int = 1, event: Event = TOLD, **caller: Any) -> None:
        """One request that emits."""
        with self.db.transaction(Caller(organization_id, 7, request_id="req-9", **caller)) as tx:
            tx.emit(event, StringValue(value=text))

    def crash_after(self, text: str = "news", **options: Any) -> None:
        """A request that commits and is never heard of again."""
        deliver, self.db.after_commit = self.db.after_commit, None
        self.tell(text, **options)
        self.db.after_commit = deliver

    def close(self) -> None:
        self.outbox.close()
        self.db.close()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def served(houses: Houses, receiver: Receiver) -> Iterator[Receiver]:
    """The receiver, reachable."""
    with toy.serving(houses.settings("forms"), receiver):
        yield receiver
        receiver.open.set()


@pytest.fixture
def sender(houses: Houses) -> Iterator[Sender]:
    made = Sender(houses)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that waits waits a little."""
    monkeypatch.setattr(outbox, "SWEEP_EVERY", 0.02)
    monkeypatch.setattr(outbox, "FIRST_DELAY", timedelta(milliseconds=20))
    monkeypatch.setattr(outbox, "LONGEST_DELAY", timedelta(milliseconds=40))


def rows(superuser: psycopg.Connection) -> list[tuple[int, int, str, timedelta | None]]:
    """What is left to deliver: organisation, attempts, last error, and when it is due."""
    return superuser.execute(
        "select organization_id, attempts, last_error, due_at - now() from fields.outbox order by organization_id, id"
    ).fetchall()


def make_due(superuser: psycopg.Connection) -> None:
    superuser.execute("update fields.outbox set due_at = now() where due_at is not null")


@contextmanager
def running(*calls: Callable[[], None]) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_an_event_has_arrived_when_the_call_returns(
    sender: Sender, served: Receiver, superuser: psycopg.Connection
) -> None:
    sender.tell("a contact entered a stage")
    assert served.heard == ["a contact entered a stage"]
    assert rows(superuser) == []


def test_an_event_arrives_in_its_organisation_in_the_name_of_its_cause(sender: Sender, served: Receiver) -> None:
    sender.tell(organization_id=3)
    (who,) = served.callers
    assert (who.organization_id, who.user_id, who.is_service, who.request_id) == (3, 7, True, "req-9")
    assert who.idempotency_key == "service:fields:1"


def test_what_is_rolled_back_is_not_told(sender: Sender, served: Receiver, superuser: psycopg.Connection) -> None:
    def fail() -> None:
        with sender.db.transaction(Caller(1, 7)) as tx:
            tx.emit(TOLD, StringValue(value="never happened"))
            raise errors.Refused()

    with pytest.raises(errors.Refused):
        fail()
    assert served.heard == []
    assert rows(superuser) == []


def test_several_events_of_a_call_arrive_in_their_order(
    sender: Sender, served: Receiver, superuser: psycopg.Connection
) -> None:
    with sender.db.transaction(Caller(1, 7)) as tx:
        for number in range(5):
            tx.emit(TOLD, StringValue(value=str(number)))
    assert served.heard == ["0", "1", "2", "3", "4"]
    assert rows(superuser) == []


@pytest.mark.usefixtures("impatient")
def test_a_receiver_that_was_down_is_told_once_it_is_back(
    houses: Houses, sender: Sender, receiver: Receiver, superuser: psycopg.Connection
) -> None:
    sender.tell()
    ((organization_id, attempts, error, due),) = rows(superuser)
    assert (organization_id, attempts) == (1, 1)
    assert error.startswith("UNAVAILABLE")
    assert due is not None
    assert due <= timedelta(milliseconds=20)
    sender.outbox.start()
    with eventually() as until:
        until(lambda: rows(superuser)[0][1] > 3)
        with toy.serving(houses.settings("forms"), receiver):
            until(lambda: not rows(superuser))
    assert receiver.heard == ["news"]


def test_pauses_grow_up_to_a_bound(sender: Sender, superuser: psycopg.Connection) -> None:
    sender.tell()
    pauses = []
    for _ in range(8):
        ((_, _, _, due),) = rows(superuser)
        assert due is not None
        pauses.append(due)
        make_due(superuser)
        sender.outbox.sweep()
    for index, pause in enumerate(pauses):
        expected = min(outbox.FIRST_DELAY * 2**index, outbox.LONGEST_DELAY)
        assert expected - timedelta(seconds=1) < pause <= expected


@pytest.mark.parametrize(
    "error", [errors.Invalid(), errors.NotFound(), errors.Conflict(), errors.Refused()], ids=lambda error: error.code
)
def test_an_answer_that_no_repeat_can_change_parks_the_event(
    sender: Sender, served: Receiver, superuser: psycopg.Connection, error: Exception
) -> None:
    served.error = error
    sender.tell()
    ((_, attempts, said, due),) = rows(superuser)
    assert (attempts, due) == (1, None)
    assert said.startswith(error.code)  # type: ignore[attr-defined]
    sender.outbox.sweep()
    assert served.heard == ["news"]


@pytest.mark.parametrize(
    "error",
    [errors.Unavailable(), errors.Aborted(), errors.Internal(), errors.Forbidden()],
    ids=lambda error: error.code,
)
def test_an_answer_that_may_change_is_asked_for_again(
    sender: Sender, served: Receiver, superuser: psycopg.Connection, error: Exception
) -> None:
    served.error = error
    sender.tell()
    served.error = None
    make_due(superuser)
    sender.outbox.sweep()
    assert served.heard == ["news", "news"]
    assert rows(superuser) == []


def test_an_event_delivered_twice_has_one_effect(
    houses: Houses, fields: CrmCustomFieldServiceStub, sender: Sender, superuser: psycopg.Connection
) -> None:
    with sender.db.transaction(Caller(1, 7)) as tx:
        tx.emit(DEFINED, text_field("size"))
        (event,) = tx.emitted
    for _ in range(3):
        sender.outbox.deliver(Caller(1, 7), [event])
    found = superuser.execute("select key, organization_id from fields.custom_fields").fetchall()
    assert found == [("size", 1)]
    assert rows(superuser) == []


def test_a_process_that_died_after_its_commit_has_its_event_delivered(
    sender: Sender, served: Receiver, superuser: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.crash_after()
    ((_, attempts, _, due),) = rows(superuser)
    assert attempts == 0
    assert due is not None
    assert timedelta(0) < due <= runtime_db.INLINE_GRACE
    sender.outbox.sweep()
    assert served.heard == [], "the request may still be about to deliver"
    monkeypatch.setattr(runtime_db, "INLINE_GRACE", timedelta(milliseconds=100))
    monkeypatch.setattr(outbox, "SWEEP_EVERY", 0.02)
    sender.crash_after("later news")
    sender.outbox.start()
    with eventually() as until:
        until(lambda: served.heard == ["later news"])
        make_due(superuser)
        until(lambda: not rows(superuser))
    assert served.heard == ["later news", "news"]


def test_a_sweeper_that_died_with_an_event_in_hand_is_followed_by_another(
    sender: Sender, served: Receiver, superuser: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.crash_after()
    make_due(superuser)
    with monkeypatch.context() as dead:
        dead.setattr(sender.outbox, "_attempt", lambda *_arguments: None)
        sender.outbox.sweep()
    ((_, attempts, _, due),) = rows(superuser)
    assert attempts == 0
    assert due is not None
    assert due > timedelta(seconds=30), "claimed, for longer than a batch takes"
    sender.outbox.sweep()
    assert served.heard == []
    make_due(superuser)
    sender.outbox.sweep()
    assert served.heard == ["news"]


def test_callers_beyond_the_slots_are_not_blocked(
    houses: Houses, served: Receiver, superuser: psycopg.Connection
) -> None:
    sender = Sender(houses, threads=2)
    served.open.clear()
    with running(lambda: sender.tell("first")), eventually() as until:
        until(lambda: served.heard == ["first"])
        for number in range(6):
            sender.tell(str(number))
        until(lambda: len(served.heard) > 2)
        assert len(rows(superuser)) == 7, "nothing has been received yet, and six callers have gone on"
        served.open.set()
        until(lambda: not rows(superuser))
    assert sorted(served.heard) == ["0", "1", "2", "3", "4", "5", "first"]
    sender.tell("the slot is free again")
    assert served.heard[-1] == "the slot is free again"
    sender.close()


def test_a_caller_waits_no_longer_than_its_own_deadline(
    sender: Sender, served: Receiver, superuser: psycopg.Connection
) -> None:
    served.open.clear()
    began = time.monotonic()
    sender.tell(deadline=began + outbox.MARGIN + 0.3)
    assert time.monotonic() - began < outbox.MARGIN + 0.3, "the answer has time left to arrive"
    ((_, attempts, error, _),) = rows(superuser)
    assert attempts == 1
    assert error.startswith("DEADLINE_EXCEEDED")


def test_sweepers_at_once_deliver_each_event_once(
    houses: Houses, served: Receiver, superuser: psycopg.Connection
) -> None:
    senders = [Sender(houses) for _ in range(3)]
    texts = [f"{organization_id} {number}" for organization_id in (1, 2, 3) for number in range(8)]
    for text in texts:
        senders[0].crash_after(text, organization_id=int(text[0]))
    make_due(superuser)
    outcomes = at_once([sender.outbox.sweep for sender in (*senders, *senders)])
    assert outcomes == [None] * 6
    assert sorted(served.heard) == sorted(texts)
    assert rows(superuser) == []
    for sender in senders:
        sender.close()


def test_one_sweep_delivers_all_that_is_due(sender: Sender, served: Receiver, superuser: psycopg.Connection) -> None:
    """After an outage there is much; an organisation must not wait a second for every ten of its events."""
    texts = [f"{number:02}" for number in range(outbox.BATCH * 3 + 1)]
    for text in texts:
        sender.crash_after(text)
    make_due(superuser)
    sender.outbox.sweep()
    assert sorted(served.heard) == texts
    assert rows(superuser) == []


def test_a_silent_receiver_is_not_asked_for_every_event(
    sender: Sender, superuser: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        sender.crash_after(str(number))
    make_due(superuser)
    calls: list[Emitted] = []
    original = sender.outbox._call

    def counted(organization_id: int, event: Emitted, timeout: float) -> Any:
        calls.append(event)
        return original(organization_id, event, timeout)

    monkeypatch.setattr(sender.outbox, "_call", counted)
    sender.outbox.sweep()
    assert len(calls) == 1
    assert [attempts for _, attempts, _, _ in rows(superuser)] == [1] * 5


def test_a_silent_receiver_holds_up_no_other(
    fields: CrmCustomFieldServiceStub, sender: Sender, superuser: psycopg.Connection
) -> None:
    for number in range(outbox.BATCH * 2):
        sender.crash_after(str(number))
    deliver, sender.db.after_commit = sender.db.after_commit, None
    with sender.db.transaction(Caller(1, 7)) as tx:
        tx.emit(DEFINED, text_field("size"))
    sender.db.after_commit = deliver
    superuser.execute("update fields.outbox set due_at = now() - interval '1 hour' + id * interval '1 second'")
    sender.outbox.sweep()
    assert superuser.execute("select key from fields.custom_fields").fetchall() == [("size",)]
    assert len(rows(superuser)) == outbox.BATCH * 2


def test_an_event_that_can_not_even_be_sent_fails_nobody(
    sender: Sender, served: Receiver, superuser: psycopg.Connection
) -> None:
    """Its receiver has no address in these settings."""
    sender.tell("into the void", event=NOWHERE)
    ((_, attempts, error, due),) = rows(superuser)
    assert attempts == 1
    assert "elsewhere" in error
    assert due is not None
    sender.crash_after("mine")
    sender.crash_after("theirs", organization_id=2)
    make_due(superuser)
    sender.outbox.sweep()
    assert sorted(served.heard) == ["mine", "theirs"]
    assert len(rows(superuser)) == 1


def test_one_organisations_failure_is_its_own(
    sender: Sender, served: Receiver, superuser: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for organization_id in (1, 2, 3):
        sender.crash_after(str(organization_id), organization_id=organization_id)
    make_due(superuser)
    original = sender.db.transaction

    def without_2(who: Caller) -> Any:
        if who.organization_id == 2:
            raise errors.Unavailable()
        return original(who)

    monkeypatch.setattr(sender.db, "transaction", without_2)
    sender.outbox.sweep()
    assert sorted(served.heard) == ["1", "3"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("error", [errors.Unavailable(), psycopg.OperationalError("gone"), KeyError("a bug")], ids=repr)
def test_the_sweeper_survives_whatever_happens(
    sender: Sender,
    served: Receiver,
    superuser: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    failed = threading.Event()
    original = sender.db.as_role

    def fail_once(role: str) -> Any:
        if not failed.is_set():
            failed.set()
            raise error
        return original(role)

    monkeypatch.setattr(sender.db, "as_role", fail_once)
    sender.crash_after()
    make_due(superuser)
    sender.outbox.start()
    assert failed.wait(10)
    with eventually() as until:
        until(lambda: not rows(superuser))


def test_a_delivery_that_could_not_be_noted_is_repeated_and_the_caller_never_knows(
    sender: Sender, served: Receiver, superuser: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def unavailable(*_arguments: Any) -> None:
            raise errors.Unavailable()

        broken.setattr(sender.outbox, "_record", unavailable)
        sender.tell()
    assert len(rows(superuser)) == 1
    make_due(superuser)
    sender.outbox.sweep()
    assert served.heard == ["news", "news"]
    assert [who.idempotency_key for who in served.callers] == ["service:fields:1"] * 2
    assert rows(superuser) == []


def test_closing_lets_deliveries_end_and_keeps_the_rest(
    houses: Houses, served: Receiver, superuser: psycopg.Connection
) -> None:
    sender = Sender(houses, threads=2)
    sender.outbox.start()
    served.open.clear()
    with running(lambda: sender.tell("under way")), eventually() as until:
        until(lambda: served.heard == ["under way"])
        for number in range(outbox.BACKGROUND_THREADS + 3):
            sender.tell(str(number))
        until(lambda: len(served.heard) == 1 + outbox.BACKGROUND_THREADS)
        with running(sender.outbox.close):
            served.open.set()
    assert len(served.heard) + len(rows(superuser)) == outbox.BACKGROUND_THREADS + 4
    sender.tell("after the end", deadline=time.monotonic() + 5)
    assert len(rows(superuser)) >= 1
    sender.db.close()


def test_a_receiver_refuses_events_of_people(houses: Houses, served: Receiver) -> None:
    with grpc.insecure_channel(houses.settings("forms").listen) as channel:
        refused = failing(toy.Toy(channel).rpc("Service"), StringValue(), houses.someone("super_admin"))
    assert refused.code == grpc.StatusCode.PERMISSION_DENIED
