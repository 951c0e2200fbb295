"""What other services ask and tell, over the wire (spec v1 §5.10, D57, D71, D100, D101)."""

from collections import Counter

import grpc
from crm.pipelines.v1 import pipeline_service_pb2 as pipelines_pb
from crm.pipelines.v1 import run_event_service_pb2 as pb

from tests.harness import failing
from tests.pipelines.conftest import Crm, ticket, variables
from tests.pipelines.drawings import checklist, drawn, ending, form, stage

INVALID, REFUSED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
STAGE = 3


def check(action_id: int, form_id: int = 10, contact_id: int = 1, account_id: int = 0) -> pb.CheckFormActionRequest:
    return pb.CheckFormActionRequest(
        action_id=action_id, form_definition_id=form_id, contact_id=contact_id, account_id=account_id
    )


def test_a_form_may_be_submitted_for_the_action_that_waits_for_it(crm: Crm, statements: Counter[str]) -> None:
    drawing = drawn(stage("review", form(), checklist("papers", "x")), ending("done"))
    run = crm.enrol(crm.published(drawing).id)
    waiting, papers = crm.timeline(run.id)
    statements.clear()
    viewer = crm.houses.someone("viewer")
    assert crm.events.CheckFormAction(check(waiting.id), metadata=viewer.metadata()) == pb.CheckFormActionResponse()
    assert statements == {"CheckFormAction": 1}
    mismatch = (INVALID, "ErrRunActionMismatch")
    asked = crm.events.CheckFormAction
    assert crm.failing(asked, check(404)) == (NOT_FOUND, "ErrRunActionNotFound", ["context_id"])
    assert crm.failing(asked, check(waiting.id, form_id=11)) == (*mismatch, ["context_id"])
    assert crm.failing(asked, check(papers.id)) == (*mismatch, ["context_id"])
    assert crm.failing(asked, check(waiting.id, contact_id=2)) == (*mismatch, ["contact_id"])
    assert crm.failing(asked, check(waiting.id, contact_id=0, account_id=1)) == (*mismatch, ["contact_id"])
    crm.pause(run.id)
    assert crm.events.CheckFormAction(check(waiting.id), metadata=crm.who.metadata()) == pb.CheckFormActionResponse()
    crm.cancel(run.id)
    assert crm.failing(asked, check(waiting.id)) == (REFUSED, "ErrRunActionNotPending", [])
    stranger = crm.by(crm.houses.someone(organization_id=2))
    assert stranger.failing(asked, check(waiting.id)) == (NOT_FOUND, "ErrRunActionNotFound", ["context_id"])


def test_only_services_tell_of_events(crm: Crm) -> None:
    for method, request in (
        (crm.events.CompleteFormAction, pb.CompleteFormActionRequest(action_id=1)),
        (crm.events.EnterContactStage, pb.EnterContactStageRequest(contact_id=1, contact_stage_id=1)),
        (crm.events.CancelSubjectRuns, pb.CancelSubjectRunsRequest(subject_type="contact", subject_id=1)),
    ):
        assert failing(method, request, crm.who).code == grpc.StatusCode.PERMISSION_DENIED


def test_a_submission_told_twice_counts_once(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    (row,) = crm.timeline(run.id)
    crm.submitted(row.id)
    ended = crm.run(run.id)
    crm.submitted(row.id)
    crm.submitted(row.id, submission_id=100, values={"kyc_status": "rejected"})
    assert crm.run(run.id) == ended
    assert crm.timeline(run.id)[0].form_submission_id == 99


def test_a_submission_that_comes_too_late_or_does_not_fit_stands_for_itself(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    (row,) = crm.timeline(run.id)
    crm.submitted(row.id, form_definition_id=11)
    crm.submitted(row.id, contact_id=2)
    crm.submitted(404)
    assert crm.run(run.id) == run
    crm.restart(run.id)
    crm.submitted(row.id)  # of a row that the restart removed
    assert [ticket(each) for each in crm.timeline(run.id)] == [("review", "kyc_form", "pending")]
    crm.cancel(run.id)
    crm.submitted(crm.timeline(run.id)[0].id)
    assert variables(crm.run(run.id)) == {}
    assert crm.run(run.id).status == "cancelled"


def test_a_submission_is_the_users_who_sent_it(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    other = crm.by(crm.houses.someone("agent", user_id=18))
    other.submitted(crm.timeline(run.id)[0].id)
    assert crm.timeline(run.id)[0].completed_by_user_id == 18


def test_answers_of_every_shape_come_back_as_they_were_given(crm: Crm) -> None:
    answers = {
        "text": 'O\'Hara said "{{x}}" \\ é😀',
        "number": 3,
        "amount": 1234.5678,
        "agreed": False,
        "tags": ["a", "b"],
    }
    run = crm.enrol(crm.published().id)
    crm.submitted(crm.timeline(run.id)[0].id, values=answers)
    assert variables(crm.run(run.id)) == {"kyc_form": answers}


def test_entering_a_stage_enrols_in_every_family_by_its_highest_published_version(
    crm: Crm, statements: Counter[str]
) -> None:
    first = crm.published(name="A", auto_enroll_contact_stage_id=STAGE)
    second = crm.publish(crm.fork(first.id).id)
    crm.fork(first.id)
    other = crm.published(name="B", auto_enroll_contact_stage_id=STAGE)
    crm.published(name="C", auto_enroll_contact_stage_id=4)
    crm.published(name="D")
    crm.draft(name="E", auto_enroll_contact_stage_id=STAGE)
    crm.archive(crm.published(name="F", auto_enroll_contact_stage_id=STAGE).id)
    once = crm.published(name="G", auto_enroll_contact_stage_id=STAGE)
    without = crm.fork(once.id)
    crm.change(without.id, auto_enroll_contact_stage_id=0)
    crm.publish(without.id)  # the family is not triggered any more
    statements.clear()
    mover = crm.by(crm.houses.someone("agent", user_id=17))
    mover.entered(contact_id=1, contact_stage_id=STAGE)
    assert statements == {"EnterContactStage": 3}
    runs = crm.find_runs().data
    assert {run.pipeline_definition_id for run in runs} == {second.id, other.id}
    assert {(run.enroll_source, run.enrolled_by_user_id, run.subject_id) for run in runs} == {("auto", 17, 1)}
    assert [len(crm.timeline(run.id)) for run in runs] == [1, 1]


def test_entering_a_stage_again_starts_what_is_not_open(crm: Crm) -> None:
    crm.published(name="A", auto_enroll_contact_stage_id=STAGE)
    crm.published(name="B", auto_enroll_contact_stage_id=STAGE)
    crm.entered(contact_id=1, contact_stage_id=STAGE)
    ended, still_open = crm.find_runs().data
    crm.cancel(ended.id)
    crm.entered(contact_id=1, contact_stage_id=STAGE)
    runs = crm.find_runs().data
    assert len(runs) == 3
    assert (runs[0].pipeline_definition_id, runs[0].status) == (ended.pipeline_definition_id, "running")
    assert crm.run(still_open.id) == still_open


def test_an_event_delivered_twice_has_one_effect(crm: Crm) -> None:
    crm.published(drawn(ending("done")), auto_enroll_contact_stage_id=STAGE)
    crm.entered(1, STAGE, idempotency_key="contacts:7")
    crm.entered(1, STAGE, idempotency_key="contacts:7")
    assert len(crm.find_runs().data) == 1


def test_nothing_happens_on_a_stage_that_triggers_nothing(crm: Crm) -> None:
    crm.published(auto_enroll_contact_stage_id=STAGE)
    crm.entered(contact_id=1, contact_stage_id=5)
    stranger = crm.by(crm.houses.someone(organization_id=2))
    stranger.entered(contact_id=1, contact_stage_id=STAGE)
    assert list(crm.find_runs().data) == list(stranger.find_runs().data) == []


def test_the_open_runs_of_a_deleted_contact_end(crm: Crm, statements: Counter[str]) -> None:
    pipelines = [crm.published(name=name) for name in "ABC"]
    runs = [crm.enrol(each.id) for each in pipelines]
    crm.submitted(crm.timeline(runs[0].id)[0].id)
    crm.pause(runs[1].id)
    other = crm.enrol(pipelines[0].id, contact_id=2)
    statements.clear()
    crm.deleted(contact_id=1)
    assert statements == {"CancelSubjectRuns": 4}
    found = [crm.run(each.id) for each in runs]
    assert [each.status for each in found] == ["completed", "cancelled", "cancelled"]
    assert [each.cancel_reason for each in found] == ["", "contact deleted", "contact deleted"]
    assert [ticket(row)[2] for each in runs for row in crm.timeline(each.id)] == ["completed", "skipped", "skipped"]
    assert crm.run(other.id) == other
    crm.deleted(contact_id=1)
    assert [crm.run(each.id) for each in runs] == found


def test_a_family_that_is_only_archived_enrols_nobody(crm: Crm) -> None:
    pipeline = crm.published(auto_enroll_contact_stage_id=STAGE)
    second = crm.publish(crm.fork(pipeline.id).id)
    crm.pipelines.ArchivePipeline(pipelines_pb.ArchivePipelineRequest(id=second.id), metadata=crm.who.metadata())
    crm.entered(contact_id=1, contact_stage_id=STAGE)
    assert [run.pipeline_definition_id for run in crm.find_runs().data] == [pipeline.id]
    crm.archive(pipeline.id)
    crm.entered(contact_id=2, contact_stage_id=STAGE)
    assert len(crm.find_runs().data) == 1
