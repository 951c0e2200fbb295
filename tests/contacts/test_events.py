"""What pipelines is told of contacts, and that it is told (spec v1 §5.10, D71, D100, D101; design §6)."""

from functools import partial
from typing import Any

import psycopg
import pytest
from crm.contacts.v1 import contact_service_pb2 as pb
from crm.pipelines.v1 import run_event_service_pb2 as events_pb

from tests.contacts.conftest import Crm
from tests.contacts.neighbours import Pipelines, moved_in
from tests.harness import at_once, eventually


@pytest.fixture
def seeded(crm: Crm) -> Crm:
    crm.seed()
    return crm


def outbox(admin_url: str) -> list[tuple[Any, ...]]:
    """What waits to be delivered: receiver, rpc, message."""
    with psycopg.connect(admin_url) as connection:
        return connection.execute("select receiver, rpc, payload from contacts.outbox order by id").fetchall()


def test_a_contact_created_on_a_stage_enters_it(seeded: Crm, pipelines: Pipelines, admin_url: str) -> None:
    made = seeded.contact(contact_stage_id=3)
    assert pipelines.entered == [(made.id, 3)]
    assert outbox(admin_url) == []


def test_a_contact_moved_to_a_stage_enters_it(seeded: Crm, pipelines: Pipelines) -> None:
    made = seeded.contact()
    seeded.change(made.id, contact_stage_id=2)
    seeded.change(made.id, contact_stage_id=3, last_name="King")
    assert pipelines.entered == [(made.id, 2), (made.id, 3)]


def test_staying_or_leaving_enters_nothing(seeded: Crm, pipelines: Pipelines) -> None:
    made = seeded.contact(contact_stage_id=1)
    pipelines.entered.clear()
    seeded.change(made.id, contact_stage_id=1)
    seeded.change(made.id, last_name="King")
    seeded.change(made.id, contact_stage_id=0)
    assert pipelines.entered == []
    seeded.change(made.id, contact_stage_id=1)
    assert pipelines.entered == [(made.id, 1)]


def test_moves_to_one_stage_at_once_enter_it_once(seeded: Crm, pipelines: Pipelines) -> None:
    made = seeded.contact()
    at_once([partial(seeded.change, made.id, contact_stage_id=2)] * 5)
    assert pipelines.entered == [(made.id, 2)]


def test_a_refused_change_tells_nobody(seeded: Crm, pipelines: Pipelines, admin_url: str) -> None:
    made = seeded.contact()
    seeded.refusal(pb.UpdateContactRequest(id=made.id, contact_stage_id=2, account_id=99))
    seeded.refusal(pb.CreateContactRequest(first_name="Ada", contact_stage_id=99))
    assert pipelines.entered == []
    assert outbox(admin_url) == []


def test_a_deleted_contacts_runs_are_cancelled(seeded: Crm, pipelines: Pipelines) -> None:
    made = seeded.contact()
    seeded.delete(made.id)
    assert pipelines.cancelled == [("contact", made.id)]


def test_pipelines_is_told_who_moved_the_contact(seeded: Crm, pipelines: Pipelines) -> None:
    agent = seeded.by(seeded.houses.someone("agent", user_id=2))
    made = agent.contact(contact_stage_id=1)
    seeded.change(made.id, contact_stage_id=2)
    assert pipelines.acting == [(1, 2), (1, 1)]


def test_a_repeat_under_an_idempotency_key_enters_once(seeded: Crm, pipelines: Pipelines) -> None:
    request = pb.CreateContactRequest(first_name="Ada", contact_stage_id=1)
    for _ in range(2):
        seeded.contacts.CreateContact(request, metadata=seeded.who.metadata(idempotency_key="once"))
    assert len(pipelines.entered) == 1


def test_pipelines_being_down_fails_nothing_and_it_is_told_later(seeded: Crm, admin_url: str) -> None:
    made = seeded.contact()
    assert seeded.change(made.id, contact_stage_id=3).contact_stage_id == 3
    assert seeded.read(made.id).contact_stage_id == 3
    message = events_pb.EnterContactStageRequest(contact_id=made.id, contact_stage_id=3).SerializeToString()
    assert outbox(admin_url) == [("pipelines", "/crm.pipelines.v1.RunEventService/EnterContactStage", message)]
    returned = Pipelines()  # type: ignore[abstract]  # only what contacts tells is played
    with moved_in(seeded.houses, "pipelines", returned.register), eventually() as until:
        until(lambda: returned.entered == [(made.id, 3)] and outbox(admin_url) == [])
