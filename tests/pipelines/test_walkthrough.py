"""The walkthrough of spec v1 §7 at this service: its neighbours are played."""

import grpc
from crm.pipelines.v1 import pipeline_run_service_pb2 as run_pb
from crm.pipelines.v1 import pipeline_service_pb2 as pb
from crm.pipelines.v1 import run_event_service_pb2 as event_pb

from tests.pipelines.conftest import Crm, ticket, variables
from tests.pipelines.drawings import kyc

ANSWERS = {"kyc_status": "approved", "id_type": "passport", "id_number": "AB123456"}
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
STAGE = 3


def test_the_walkthrough(crm: Crm) -> None:
    pipeline = crm.draft(auto_enroll_contact_stage_id=STAGE)
    assert (pipeline.status, pipeline.version, pipeline.auto_enroll_contact_stage_id) == ("draft", 1, STAGE)
    enrolment = run_pb.EnrollContactRequest(contact_id=1, pipeline_definition_id=pipeline.id)
    assert crm.failing(crm.runs.EnrollContact, enrolment) == (REFUSED, "ErrPipelineNotPublished", [])
    assert crm.publish(pipeline.id).status == "published"

    crm.entered(contact_id=1, contact_stage_id=STAGE)
    (run,) = crm.find_runs(pipeline_definition_id=pipeline.id, subject_type="contact", subject_id=1).data
    assert (run.status, run.current_stage_key, run.definition_version) == ("running", "review", 1)
    assert (run.subject_type, run.subject_id) == ("contact", 1)
    assert (run.enroll_source, run.enrolled_by_user_id) == ("auto", crm.who.user_id)
    assert (variables(run), run.cancel_reason, run.failure_reason) == ({}, "", "")
    assert run.HasField("started_at")
    assert not any(run.HasField(name) for name in ("paused_at", "completed_at", "cancelled_at", "failed_at"))
    (row,) = crm.timeline(run.id)
    assert (*ticket(row), row.action_type, row.required) == ("review", "kyc_form", "pending", "form", True)
    assert (row.form_submission_id, row.deal_id, row.engagement_id, row.error_message) == (0, 0, 0, "")
    assert row.HasField("result")
    assert not row.HasField("completed_at")

    crm.entered(contact_id=1, contact_stage_id=STAGE)
    assert len(crm.find_runs(subject_id=1).data) == 1
    assert crm.failing(crm.runs.EnrollContact, enrolment) == (REFUSED, "ErrPipelineAlreadyEnrolled", [])

    crm.submitted(row.id, submission_id=99, values=ANSWERS)
    ended = crm.run(run.id)
    assert (ended.status, ended.current_stage_key) == ("completed", "done")
    assert ended.HasField("completed_at")
    assert variables(ended) == {"kyc_form": ANSWERS}
    (done,) = crm.timeline(run.id)
    assert (done.id, done.status, done.form_submission_id) == (row.id, "completed", 99)
    assert done.result == ended.variables.fields["kyc_form"].struct_value
    assert done.completed_by_user_id == crm.who.user_id
    assert done.HasField("completed_at")

    again = event_pb.CheckFormActionRequest(action_id=row.id, form_definition_id=10, contact_id=1)
    assert crm.failing(crm.events.CheckFormAction, again) == (REFUSED, "ErrRunActionNotPending", [])
    second = crm.enrol(pipeline.id)
    assert (second.id != run.id, second.enroll_source) == (True, "manual")

    assert crm.archive(pipeline.id).status == "archived"
    deletion = pb.DeletePipelineRequest(id=pipeline.id)
    assert crm.failing(crm.pipelines.DeletePipeline, deletion) == (REFUSED, "ErrPipelineHasRuns", [])


def test_v1_any_other_answer_takes_the_default_branch(crm: Crm) -> None:
    pipeline = crm.published()
    for contact_id, answer in ((1, "rejected"), (2, "pending")):
        run = crm.enrol(pipeline.id, contact_id)
        crm.submitted(crm.timeline(run.id)[0].id, contact_id=contact_id, values={"kyc_status": answer})
        assert (crm.run(run.id).status, crm.run(run.id).current_stage_key) == ("completed", "rejected")


def test_v5_a_paused_run_keeps_the_answer_and_moves_on_resume(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    paused = crm.pause(run.id)
    assert (paused.status, paused.HasField("paused_at")) == ("paused", True)
    crm.submitted(crm.timeline(run.id)[0].id)
    waiting = crm.run(run.id)
    assert (waiting.status, waiting.current_stage_key) == ("paused", "review")
    assert variables(waiting) == {"kyc_form": {"kyc_status": "approved"}}
    assert crm.timeline(run.id)[0].status == "completed"
    resumed = crm.resume(run.id)
    assert (resumed.status, resumed.current_stage_key, resumed.HasField("paused_at")) == ("completed", "done", False)


def test_v6_a_cancelled_run_restarts_with_nothing_done(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    (row,) = crm.timeline(run.id)
    cancelled = crm.cancel(run.id, "wrong person")
    assert (cancelled.status, cancelled.cancel_reason) == ("cancelled", "wrong person")
    assert cancelled.HasField("cancelled_at")
    assert crm.timeline(run.id)[0].status == "skipped"
    again = crm.restart(run.id)
    assert (again.status, again.cancel_reason, variables(again)) == ("running", "", {})
    assert not again.HasField("cancelled_at")
    (fresh,) = crm.timeline(run.id)
    assert (fresh.id != row.id, fresh.status) == (True, "pending")


def test_v7_a_completed_run_restarts_without_the_old_row(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    (row,) = crm.timeline(run.id)
    crm.submitted(row.id)
    again = crm.restart(run.id)
    assert (again.status, again.HasField("completed_at"), variables(again)) == ("running", False, {})
    assert again.started_at == run.started_at
    (fresh,) = crm.timeline(run.id)
    assert (fresh.id != row.id, fresh.status, fresh.form_submission_id) == (True, "pending", 0)
    assert crm.run(run.id) == again


def test_v8_a_run_follows_the_version_it_began_with(crm: Crm) -> None:
    first = crm.published()
    run = crm.enrol(first.id)
    second = crm.fork(first.id)
    assert (second.version, second.status) == (2, "draft")
    crm.change(second.id, kyc(approved="rejected", otherwise="done"))
    crm.publish(second.id)
    crm.submitted(crm.timeline(run.id)[0].id)
    ended = crm.run(run.id)
    assert (ended.current_stage_key, ended.definition_version) == ("done", 1)
    other = crm.enrol(second.id, contact_id=2)
    crm.submitted(crm.timeline(other.id)[0].id, contact_id=2)
    assert (crm.run(other.id).current_stage_key, crm.run(other.id).definition_version) == ("rejected", 2)
