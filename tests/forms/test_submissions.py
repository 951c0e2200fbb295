"""Submissions over the wire: every answer and every failure the contract names (spec v1 §2.6, §2.10)."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from crm.forms.v1 import form_pb2, form_submission_pb2
from crm.forms.v1 import form_service_pb2 as pb
from crm.pipelines.v1.run_event_service_pb2 import CompleteFormActionRequest

from services.forms import clients
from services.runtime.values import plain, struct_of
from tests.forms.world import ANSWERS, Pipelines, World, entry, inline, kyc, options, rows, schema, statements
from tests.harness import Houses, eventually

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
FORBIDDEN = grpc.StatusCode.PERMISSION_DENIED

NOTE = schema(inline("note"))
ACTION: dict[str, Any] = {"context_type": "pipeline_run_action", "context_id": 7}


@pytest.fixture
def form(world: World) -> form_pb2.Form:
    """A published form that asks for a note."""
    return world.published(NOTE)


# What is refused, in which order


def test_everything_that_is_wrong_with_a_request_is_told_at_once(world: World) -> None:
    asked = world.published(schema(inline("a", required=True), inline("b", "number")))
    failure = world.refused(asked.id, {"b": "x", "c": 1}, context_type="pipeline_run_action")
    assert (failure.code, failure.reason) == (INVALID, "INVALID_ARGUMENT")
    assert failure.fields == ["contact_id", "context_id", "values.a", "values.b", "values.c"]


def test_a_submission_has_exactly_one_subject(world: World, form: form_pb2.Form) -> None:
    for subject in ({}, {"contact_id": world.contact(), "account_id": world.account()}):
        failure = world.refused(form.id, {"note": "x"}, **subject)
        assert (failure.code, failure.fields) == (INVALID, ["contact_id"])


def test_a_request_out_of_shape_is_refused(world: World) -> None:
    for name, value in {
        "form_definition_id": 0,
        "contact_id": -1,
        "account_id": -1,
        "context_id": -1,
        "context_type": "x" * 41,
        "values": None,
    }.items():
        said: dict[str, Any] = {"form_definition_id": 1, "contact_id": 1, "values": struct_of({}), name: value}
        failure = world.failing("SubmitForm", pb.SubmitFormRequest(**said))
        assert (failure.code, failure.fields) == (INVALID, [name])


def test_drafts_and_archived_forms_take_no_submissions(world: World) -> None:
    contact, draft = world.contact(), world.create(NOTE)
    for _ in range(2):
        # The form's state comes before the values it could not judge.
        failure = world.refused(draft.id, {"unknown": "x"}, contact_id=contact)
        assert (failure.code, failure.reason) == (REFUSED, "ErrFormNotPublished")
        world.archive(draft.id)


def test_an_unknown_a_deleted_and_a_foreign_subject_are_not_found(world: World, form: form_pb2.Form) -> None:
    gone = world.contact()
    world.delete_contact(gone)
    foreign = [world.by(organization_id=2).contact() for _ in range(5)][-1]
    for contact_id in (99, gone, foreign):
        failure = world.refused(form.id, {"note": "x"}, contact_id=contact_id)
        assert (failure.code, failure.reason) == (NOT_FOUND, "ErrContactNotFound")
    failure = world.refused(form.id, {"note": "x"}, account_id=99)
    assert (failure.code, failure.reason) == (NOT_FOUND, "ErrAccountNotFound")
    assert not world.submissions().data


def test_a_subject_that_is_not_the_callers_to_write_is_refused(world: World, form: form_pb2.Form) -> None:
    mine, theirs, nobodys = (world.contact(owner_id=owner) for owner in (1, 1, 0))
    agent = world.by("agent", user_id=2)
    failure = agent.refused(form.id, {"note": "x"}, contact_id=theirs)
    assert (failure.code, failure.reason) == (FORBIDDEN, "ErrNotYourRecord")
    assert agent.submit(form.id, {"note": "x"}, contact_id=nobodys).submitted_by_user_id == 2
    assert world.by("agent", user_id=1).submit(form.id, {"note": "x"}, contact_id=mine).id
    assert world.by("supervisor", user_id=2).submit(form.id, {"note": "x"}, contact_id=theirs).id


def test_a_context_is_pipelines_to_judge(world: World, form: form_pb2.Form) -> None:
    contact, other = world.contact(), world.contact()
    world.pipelines.actions = {7: (form.id, contact, 0), 8: (form.id + 1, contact, 0), 9: (form.id, contact, 0)}
    world.pipelines.done = {9}
    for action_id, subject, expected in (
        (6, contact, (NOT_FOUND, "ErrRunActionNotFound")),
        (7, other, (INVALID, "ErrRunActionMismatch")),
        (8, contact, (INVALID, "ErrRunActionMismatch")),
        (9, contact, (REFUSED, "ErrRunActionNotPending")),
    ):
        failure = world.refused(
            form.id, {"note": "x"}, contact_id=subject, context_type="pipeline_run_action", context_id=action_id
        )
        assert (failure.code, failure.reason, failure.fields) == (*expected, ["context_id"])
    assert not world.submissions().data
    assert not world.pipelines.completed


def test_any_other_context_is_a_free_tag(world: World, form: form_pb2.Form) -> None:
    made = world.submit(form.id, {"note": "x"}, contact_id=world.contact(), context_type="campaign", context_id=7)
    assert (made.context_type, made.context_id) == ("campaign", 7)
    made = world.submit(form.id, {"note": "x"}, contact_id=world.contact(), context_type="x" * 40)
    assert (made.context_type, made.context_id) == ("x" * 40, 0)
    assert not world.pipelines.completed


# What is stored


def test_a_submission_is_answered_as_it_is_read(world: World) -> None:
    asked = world.published(
        schema(
            inline("text"),
            inline("count", "number"),
            inline("price", "currency"),
            inline("yes", "boolean"),
            inline("none"),
            inline("many", "multi_picklist", picklist_options=options("a", "b")),
            inline("scan", "file_upload"),
        )
    )
    account = world.account()
    values = {"text": "é", "count": 5.0, "price": 12.5, "yes": False, "none": None, "many": ["b", "a"],
              "scan": ["upload_7f3a1b2c"]}  # fmt: skip
    made = world.by(user_id=3).submit(asked.id, values, account_id=account)
    del values["none"]
    assert plain(made.values) == values
    assert (made.id, made.organization_id, made.contact_id, made.account_id) == (1, 1, 0, account)
    assert (made.context_type, made.context_id, made.submitted_by_user_id) == ("", 0, 3)
    assert made.schema_snapshot == asked.schema
    assert list(made.write_back_result) == []
    assert made.HasField("submitted_at")
    assert world.submission(made.id) == made


def test_a_submission_without_values_has_an_empty_object(world: World, form: form_pb2.Form) -> None:
    made = world.submit(form.id, {}, contact_id=world.contact())
    assert made.HasField("values")
    assert plain(made.values) == {}


def test_a_submission_is_judged_by_the_form_as_it_was_published(world: World) -> None:
    f = world.definition()
    form = world.published(kyc(f))
    world.change_options(f, "pending", "approved", "rejected", "escalated")
    answers = {**ANSWERS, "kyc_status": "escalated"}
    assert world.refused(form.id, answers, contact_id=world.contact()).fields == ["values.kyc_status"]


def test_a_text_that_no_database_can_hold_is_refused(world: World, form: form_pb2.Form) -> None:
    assert world.refused(form.id, {"note": "a\0b"}, contact_id=world.contact()).code == INVALID


# Write-back


@pytest.fixture
def wide(world: World) -> dict[str, int]:
    """Definitions for a form with several write-backs."""
    return {
        "status": world.definition("status"),
        "note": world.definition("note", field_type="text"),
        "limit": world.definition("limit", object_type="account", field_type="number", validation_rules={"max": 9}),
    }


def wide_form(world: World, f: dict[str, int]) -> form_pb2.Form:
    return world.published(
        schema(
            inline("first"),
            inline("second"),
            inline("size", "number"),
            write_back=[
                entry("first", f["status"]),
                entry("first", f["note"]),
                entry("second", f["note"]),
                entry("size", f["limit"], "account"),
            ],
        )
    )


def test_each_entry_tells_what_became_of_it(world: World, wide: dict[str, int]) -> None:
    form = wide_form(world, wide)
    contact = world.contact(custom_fields={"status": "pending", "note": "old"})
    made = world.submit(form.id, {"first": "new", "second": "newer", "size": 10}, contact_id=contact)
    assert rows(made) == [
        ("first", "failed", "pending", "new"),
        ("first", "applied", "old", "new"),
        ("second", "applied", "new", "newer"),
        ("size", "skipped", None, None),
    ]
    assert world.fields_of(contact) == {"status": "pending", "note": "newer"}
    assert world.submission(made.id) == made


def test_an_answer_that_is_not_given_changes_nothing(world: World, wide: dict[str, int]) -> None:
    form = wide_form(world, wide)
    contact = world.contact(custom_fields={"status": "pending", "note": "old"})
    made = world.submit(form.id, {"second": None}, contact_id=contact)
    assert rows(made) == [
        ("first", "skipped", "pending", None),
        ("first", "skipped", "old", None),
        ("second", "skipped", "old", None),
        ("size", "skipped", None, None),
    ]
    assert world.fields_of(contact) == {"status": "pending", "note": "old"}


def test_an_account_is_written_to_as_a_contact_is(world: World, wide: dict[str, int]) -> None:
    form, account = wide_form(world, wide), world.account(custom_fields={"limit": 3})
    made = world.submit(form.id, {"size": 9}, account_id=account)
    assert [each.status for each in made.write_back_result] == ["skipped", "skipped", "skipped", "applied"]
    assert rows(made)[3] == ("size", "applied", 3, 9)
    assert world.fields_of_account(account) == {"limit": 9}
    made = world.submit(form.id, {"size": 10}, account_id=account)
    assert rows(made)[3] == ("size", "failed", 9, 10)
    assert world.fields_of_account(account) == {"limit": 9}


def test_a_form_archived_while_it_is_submitted_takes_no_submission_and_writes_nothing(world: World) -> None:
    form, contact = world.published(kyc(world.definition())), world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    world.pipelines.while_checking = lambda: _once(world, lambda: world.archive(form.id))
    failure = world.refused(form.id, ANSWERS, contact_id=contact, **ACTION)
    assert (failure.code, failure.reason) == (REFUSED, "ErrFormNotPublished")
    assert world.fields_of(contact) == {}
    assert not world.submissions().data
    assert not world.pipelines.completed


def test_a_contact_deleted_while_a_form_is_submitted_leaves_the_submission_alone(world: World) -> None:
    form, contact = world.published(kyc(world.definition())), world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    world.pipelines.while_checking = lambda: _once(world, lambda: world.delete_contact(contact))
    made = world.submit(form.id, ANSWERS, contact_id=contact, **ACTION)
    assert rows(made) == [("kyc_status", "skipped", None, None)]


def _once(world: World, act: Any) -> None:
    world.pipelines.while_checking = lambda: None
    act()


# Completing an action


def test_pipelines_learns_of_a_submission_once_and_before_it_is_answered(world: World, form: form_pb2.Form) -> None:
    contact = world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    made = world.submit(form.id, {"note": "x"}, contact_id=contact, **ACTION)
    assert world.pipelines.completed == [
        CompleteFormActionRequest(
            action_id=7,
            form_submission_id=made.id,
            values=struct_of({"note": "x"}),
            form_definition_id=form.id,
            contact_id=contact,
        )
    ]
    assert world.pipelines.keys[0].startswith("forms:")


def test_a_repeat_under_its_key_gets_the_first_answer_though_the_action_is_done(
    world: World, form: form_pb2.Form
) -> None:
    contact = world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    request = pb.SubmitFormRequest(
        form_definition_id=form.id, contact_id=contact, values=struct_of({"note": "x"}), **ACTION
    )
    metadata = world.who.metadata(idempotency_key="once")
    made = world.forms.SubmitForm(request, metadata=metadata)
    assert world.forms.SubmitForm(request, metadata=metadata) == made
    assert world.failing("SubmitForm", request).reason == "ErrRunActionNotPending"
    other = pb.SubmitFormRequest(form_definition_id=form.id, contact_id=contact, values=struct_of({}), **ACTION)
    assert world.failing("SubmitForm", other, idempotency_key="once").reason == "ErrIdempotencyKeyReused"
    assert len(world.pipelines.completed) == 1


def test_a_deleted_submission_gives_its_action_free(world: World, form: form_pb2.Form) -> None:
    contact = world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    made = world.submit(form.id, {"note": "x"}, contact_id=contact, **ACTION)
    world.pipelines.done.clear()
    failure = world.refused(form.id, {"note": "y"}, contact_id=contact, **ACTION)
    assert (failure.code, failure.reason, failure.fields) == (REFUSED, "ErrRunActionNotPending", ["context_id"])
    world.delete_submission(made.id)
    assert world.submit(form.id, {"note": "y"}, contact_id=contact, **ACTION).id


def test_a_submission_made_while_pipelines_is_down_is_kept_and_told_later(houses: Houses) -> None:
    pipelines = Pipelines()
    world = World(houses.start("fields", "contacts", "forms"), pipelines, houses.someone())
    form, contact = world.published(kyc(world.definition())), world.contact()
    made = world.submit(form.id, ANSWERS, contact_id=contact, **ACTION)
    assert rows(made) == [("kyc_status", "applied", None, "approved")]
    assert world.refused(form.id, ANSWERS, contact_id=contact, **ACTION).reason == "ErrRunActionNotPending"
    with pipelines.open(houses), eventually(20) as until:
        until(lambda: [each.form_submission_id for each in pipelines.completed] == [made.id])


@pytest.fixture
def silence(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pipelines takes questions and does not answer."""
    monkeypatch.setattr(clients, "PATIENCE", 0.2)
    ended = threading.Event()
    world.pipelines.while_checking = lambda: ended.wait(20)
    yield
    ended.set()


@pytest.mark.usefixtures("silence")
def test_a_submission_does_not_wait_for_a_silent_pipelines(world: World, form: form_pb2.Form) -> None:
    made = world.submit(form.id, {"note": "x"}, contact_id=world.contact(), **ACTION)
    assert [each.form_submission_id for each in world.pipelines.completed] == [made.id]


# Reading and deleting


def listed(world: World, **members: Any) -> list[int]:
    return [each.id for each in world.submissions(**members).data]


def test_submissions_are_listed_newest_first_by_each_filter(world: World, form: form_pb2.Form) -> None:
    other = world.published(NOTE, "Other")
    ada, bob, acme = world.contact(), world.contact(), world.account()
    a = world.submit(form.id, {"note": "a"}, contact_id=ada, context_type="campaign", context_id=1).id
    b = world.submit(form.id, {"note": "b"}, contact_id=bob, context_type="campaign", context_id=2).id
    c = world.submit(other.id, {"note": "c"}, contact_id=ada, context_type="event", context_id=1).id
    d = world.submit(other.id, {"note": "d"}, account_id=acme).id
    assert listed(world) == [d, c, b, a]
    assert listed(world, form_definition_id=form.id) == [b, a]
    assert listed(world, contact_id=ada) == [c, a]
    assert listed(world, account_id=acme) == [d]
    assert listed(world, context_type="campaign") == [b, a]
    assert listed(world, context_id=1) == [c, a]
    assert listed(world, context_type="campaign", context_id=1) == [a]
    assert listed(world, contact_id=ada, form_definition_id=other.id) == [c]
    assert listed(world, contact_id=99) == []
    assert listed(world.by(organization_id=2)) == []
    world.delete_submission(b)
    assert listed(world) == [d, c, a]
    assert world.submissions(include_total=True).meta.total == 3


def test_listed_submissions_have_no_snapshot_and_are_otherwise_whole(world: World) -> None:
    form = world.published(kyc(world.definition()))
    made = world.submit(form.id, ANSWERS, contact_id=world.contact())
    (found,) = world.submissions().data
    assert not found.HasField("schema_snapshot")
    expected = form_submission_pb2.FormSubmission()
    expected.CopyFrom(made)
    expected.ClearField("schema_snapshot")
    assert found == expected


def test_submissions_are_walked_by_pages_and_by_tokens(world: World, form: form_pb2.Form) -> None:
    contact = world.contact()
    made = [world.submit(form.id, {"note": str(n)}, contact_id=contact).id for n in range(5)][::-1]
    assert [listed(world, per_page=2, page=page) for page in (1, 2, 3, 4)] == [made[:2], made[2:4], made[4:], []]
    walked, token = list[int](), ""
    while len(walked) < len(made):
        answer = world.submissions(per_page=2, page_token=token, contact_id=contact)
        walked += [each.id for each in answer.data]
        token = answer.meta.next_page_token
    assert (walked, token, answer.meta.has_more) == (made, "", False)


def test_a_list_refuses_what_it_does_not_know(world: World) -> None:
    bad = {"page": -1, "per_page": -1, "page_token": "nonsense", "contact_id": -1, "context_type": "x" * 41}
    for name, value in bad.items():
        members: dict[str, Any] = {name: value}
        failure = world.failing("ListFormSubmissions", pb.ListFormSubmissionsRequest(**members))
        assert (failure.code, failure.fields) == (INVALID, [name])


def test_a_deleted_submission_is_out_of_every_answer_and_undoes_nothing(world: World) -> None:
    form, contact = world.published(kyc(world.definition())), world.contact()
    made = world.submit(form.id, ANSWERS, contact_id=contact)
    assert world.delete_submission(made.id).HasField("data")
    foreign = world.by(organization_id=2)
    for asking, submission_id in ((world, made.id), (world, 99), (foreign, made.id)):
        for rpc, request in (
            ("GetFormSubmission", pb.GetFormSubmissionRequest(id=submission_id)),
            ("DeleteFormSubmission", pb.DeleteFormSubmissionRequest(id=submission_id)),
        ):
            failure = asking.failing(rpc, request)
            assert (failure.code, failure.reason) == (NOT_FOUND, "ErrFormSubmissionNotFound")
    assert world.fields_of(contact) == {"kyc_status": "approved"}


def test_submissions_of_an_archived_form_stay_readable(world: World, form: form_pb2.Form) -> None:
    made = world.submit(form.id, {"note": "x"}, contact_id=world.contact())
    world.archive(form.id)
    assert world.submission(made.id) == made


# Cost


def test_a_submission_runs_no_more_than_four_statements(world: World) -> None:
    form, contact = world.published(kyc(world.definition())), world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    with statements() as run:
        world.submit(form.id, ANSWERS, contact_id=contact, **ACTION)
    inside = [each for each in run if "form" in each or "write_custom_fields" in each or "INSERT INTO outbox" in each]
    assert [each.split("(")[0].split("\n")[0].split(" FROM")[0][:24] for each in inside] == [
        "SELECT forms.id, forms.o",
        "SELECT contacts.write_cu",
        "INSERT INTO form_submiss",
        "INSERT INTO outbox ",
    ]


def test_reading_submissions_runs_one_statement_and_counting_them_two(world: World, form: form_pb2.Form) -> None:
    made = world.submit(form.id, {"note": "x"}, contact_id=world.contact())
    with statements() as run:
        world.submission(made.id)
        world.submissions(contact_id=1)
        world.submissions(include_total=True)
        world.delete_submission(made.id)
    assert len(run) == 1 + 1 + 2 + 1
