"""Runs over the wire: enrolling, watching, intervening (spec v1 §5, §6.6, §6.8)."""

from collections import Counter
from typing import Any

import grpc
import pytest
from crm.pipelines.v1 import pipeline_run_pb2
from crm.pipelines.v1 import pipeline_run_service_pb2 as pb

from tests.harness import failing
from tests.pipelines.conftest import Crm, Outcome, ticket, variables
from tests.pipelines.drawings import checklist, drawn, ending, form, stage

INVALID, REFUSED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PAPERS = drawn(
    stage("review", form(), checklist("papers", "passport", "proof"), form("more", required=False)), ending("done")
)


def enrolment(pipeline_id: int, contact_id: int = 1) -> pb.EnrollContactRequest:
    return pb.EnrollContactRequest(contact_id=contact_id, pipeline_definition_id=pipeline_id)


def test_a_run_is_answered_as_it_is_stored(crm: Crm) -> None:
    pipeline = crm.published()
    agent = crm.by(crm.houses.someone("agent", user_id=17))
    run = agent.enrol(pipeline.id, contact_id=5)
    assert (run.id, run.organization_id, run.pipeline_definition_id, run.definition_version) == (1, 1, pipeline.id, 1)
    assert (run.subject_type, run.subject_id, run.status, run.current_stage_key) == ("contact", 5, "running", "review")
    assert (run.enrolled_by_user_id, run.enroll_source, variables(run)) == (17, "manual", {})
    assert crm.run(run.id) == run
    assert list(crm.find_runs().data) == [run]


def test_whoever_may_not_write_to_the_contact_may_not_enrol_it(crm: Crm) -> None:
    pipeline = crm.published()
    crm.contacts.owners[5] = 99
    agent = crm.by(crm.houses.someone("agent", user_id=17))
    refused = agent.failing(agent.runs.EnrollContact, enrolment(pipeline.id, 5))
    assert refused == (grpc.StatusCode.PERMISSION_DENIED, "ErrNotYourRecord", [])
    assert crm.enrol(pipeline.id, 5).subject_id == 5
    viewer = crm.houses.someone("viewer")
    assert failing(crm.runs.EnrollContact, enrolment(pipeline.id), viewer).code == grpc.StatusCode.PERMISSION_DENIED


def test_what_enrolment_refuses(crm: Crm) -> None:
    live, draft = crm.published(), crm.draft(name="Draft")
    deals = crm.published(drawn(ending("done")), name="Deals", subject_type="deal")
    closed = crm.archive(crm.published(name="Closed").id)
    expected = [
        (enrolment(live.id, 404), (NOT_FOUND, "ErrContactNotFound", ["contact_id"])),
        (enrolment(404), (NOT_FOUND, "ErrPipelineNotFound", ["pipeline_definition_id"])),
        (enrolment(deals.id), (INVALID, "ErrPipelineSubjectMismatch", ["pipeline_definition_id"])),
        (enrolment(draft.id), (REFUSED, "ErrPipelineNotPublished", [])),
        (enrolment(closed.id), (REFUSED, "ErrPipelineNotPublished", [])),
    ]
    for request, refusal in expected:
        assert crm.failing(crm.runs.EnrollContact, request) == refusal
    assert list(crm.find_runs().data) == []


def test_one_run_of_a_family_is_open_for_a_contact_whatever_the_version(crm: Crm) -> None:
    first = crm.published()
    second = crm.publish(crm.fork(first.id).id)
    run = crm.enrol(first.id)
    taken: Outcome = (REFUSED, "ErrPipelineAlreadyEnrolled", [])
    for pipeline in (first, second):
        assert crm.failing(crm.runs.EnrollContact, enrolment(pipeline.id)) == taken
    crm.pause(run.id)
    assert crm.failing(crm.runs.EnrollContact, enrolment(second.id)) == taken
    assert crm.enrol(second.id, contact_id=2).definition_version == 2
    assert crm.enrol(crm.published(name="Other").id).id != run.id
    crm.cancel(run.id)
    assert crm.enrol(second.id).definition_version == 2


def test_a_run_that_would_complete_at_once_is_no_second_run_either(crm: Crm) -> None:
    first = crm.published()
    second = crm.fork(first.id)
    crm.change(second.id, drawn(ending("done")))
    crm.publish(second.id)
    run = crm.enrol(first.id)
    assert crm.failing(crm.runs.EnrollContact, enrolment(second.id))[1] == "ErrPipelineAlreadyEnrolled"
    crm.cancel(run.id)
    ended = crm.enrol(second.id)
    assert (ended.status, ended.current_stage_key, ended.HasField("completed_at")) == ("completed", "done", True)


def test_a_checklist_is_ticked_item_by_item(crm: Crm) -> None:
    run = crm.enrol(crm.published(PAPERS).id)
    kyc_form, papers, _ = crm.timeline(run.id)
    assert dict(papers.checklist) == {"passport": False, "proof": False}
    crm.submitted(kyc_form.id)
    partly = crm.tick(run.id, papers.id, passport=True)
    assert (partly.status, dict(partly.checklist)) == ("in_progress", {"passport": True, "proof": False})
    assert len(partly.result.fields) == 0
    again = crm.tick(run.id, papers.id, passport=True)
    assert again == partly
    done = crm.tick(run.id, papers.id, proof=True)
    assert (done.status, done.completed_by_user_id, done.HasField("completed_at")) == ("completed", 1, True)
    ended = crm.run(run.id)
    assert (ended.status, ended.current_stage_key) == ("completed", "done")
    assert variables(ended)["papers"] == {"passport": True, "proof": True}
    assert [ticket(row) for row in crm.timeline(run.id)] == [
        ("review", "kyc_form", "completed"),
        ("review", "papers", "completed"),
        ("review", "more", "skipped"),
    ]


def test_what_ticking_refuses(crm: Crm) -> None:
    run = crm.enrol(crm.published(PAPERS).id)
    other = crm.enrol(crm.published(PAPERS, name="Other").id)
    kyc_form, papers, _ = crm.timeline(run.id)

    def refusal(run_id: int, action_id: int, **items: bool) -> Any:
        request = pb.UpdateChecklistActionRequest(run_id=run_id, action_id=action_id, items=items)
        return crm.failing(crm.runs.UpdateChecklistAction, request)

    assert refusal(404, papers.id, proof=True) == (NOT_FOUND, "ErrPipelineRunNotFound", [])
    assert refusal(run.id, 404, proof=True) == (NOT_FOUND, "ErrRunActionNotFound", [])
    assert refusal(other.id, papers.id, proof=True) == (NOT_FOUND, "ErrRunActionNotFound", [])
    assert refusal(run.id, papers.id) == (INVALID, "INVALID_ARGUMENT", ["items"])
    assert refusal(run.id, papers.id, proof=True, x=True) == (INVALID, "INVALID_ARGUMENT", ["items.x"])
    assert refusal(run.id, kyc_form.id, x=True) == (REFUSED, "ErrRunActionNotChecklist", [])
    crm.cancel(run.id)
    assert refusal(run.id, papers.id, proof=True) == (REFUSED, "ErrRunActionNotOpen", [])


def test_an_action_the_stage_does_not_wait_for_can_be_skipped(crm: Crm) -> None:
    run = crm.enrol(crm.published(PAPERS).id)
    kyc_form, _, more = crm.timeline(run.id)

    def refusal(run_id: int, action_id: int) -> Any:
        request = pb.SkipPipelineRunActionRequest(run_id=run_id, action_id=action_id)
        return crm.failing(crm.runs.SkipPipelineRunAction, request)

    assert refusal(404, more.id) == (NOT_FOUND, "ErrPipelineRunNotFound", [])
    assert refusal(run.id, 404) == (NOT_FOUND, "ErrRunActionNotFound", [])
    assert refusal(run.id, kyc_form.id) == (REFUSED, "ErrRunActionRequired", [])
    assert ticket(crm.skip(run.id, more.id)) == ("review", "more", "skipped")
    assert refusal(run.id, more.id) == (REFUSED, "ErrRunActionNotOpen", [])
    assert crm.run(run.id).status == "running"


def test_interventions_out_of_turn_are_refused(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    pause, resume = pb.PausePipelineRunRequest(id=run.id), pb.ResumePipelineRunRequest(id=run.id)
    cancel = pb.CancelPipelineRunRequest(id=run.id, reason="x")
    assert crm.failing(crm.runs.ResumePipelineRun, resume) == (REFUSED, "ErrPipelineRunNotPaused", [])
    crm.pause(run.id)
    assert crm.failing(crm.runs.PausePipelineRun, pause) == (REFUSED, "ErrPipelineRunNotRunning", [])
    crm.cancel(run.id)
    assert crm.failing(crm.runs.PausePipelineRun, pause) == (REFUSED, "ErrPipelineRunNotRunning", [])
    assert crm.failing(crm.runs.ResumePipelineRun, resume) == (REFUSED, "ErrPipelineRunNotPaused", [])
    assert crm.failing(crm.runs.CancelPipelineRun, cancel) == (REFUSED, "ErrPipelineRunEnded", [])


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 1001])
def test_cancelling_needs_a_reason(crm: Crm, reason: str) -> None:
    run = crm.enrol(crm.published().id)
    request = pb.CancelPipelineRunRequest(id=run.id, reason=reason)
    assert crm.failing(crm.runs.CancelPipelineRun, request) == (INVALID, "INVALID_ARGUMENT", ["reason"])
    assert crm.run(run.id).status == "running"


def test_resume_goes_on_from_where_the_run_stands(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    assert crm.pause(run.id).status == "paused"
    resumed = crm.resume(run.id)
    assert resumed == run


LONG = drawn(
    stage("first", form("a"), to=[("{{a.kyc_status}} == 'approved'", "second"), ("default", "rejected")]),
    stage("second", form("b")),
    ending("done"),
    ending("rejected"),
)


def test_restart_rewinds_rows_and_variables(crm: Crm) -> None:
    run = crm.enrol(crm.published(LONG).id)
    crm.submitted(crm.timeline(run.id)[0].id)
    crm.submitted(crm.timeline(run.id)[1].id, submission_id=100, values={"id_number": "7"})
    assert crm.run(run.id).status == "completed"
    again = crm.restart(run.id, "second")
    assert (again.status, again.current_stage_key) == ("running", "second")
    assert variables(again) == {"a": {"kyc_status": "approved"}}
    first, second = crm.timeline(run.id)
    assert (ticket(first), ticket(second)) == (("first", "a", "completed"), ("second", "b", "pending"))
    crm.submitted(second.id, submission_id=101, values={"id_number": "8"})
    assert variables(crm.run(run.id))["b"] == {"id_number": "8"}
    at_the_end = crm.restart(run.id, "rejected")
    assert (at_the_end.status, at_the_end.current_stage_key) == ("completed", "rejected")


def test_restart_needs_a_stage_of_the_runs_version(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    for key, expected in (
        ("elsewhere", (INVALID, "ErrStageUnknown", ["from_stage_key"])),
        ("", (INVALID, "INVALID_ARGUMENT", ["from_stage_key"])),
    ):
        request = pb.RestartPipelineRunRequest(id=run.id, from_stage_key=key)
        assert crm.failing(crm.runs.RestartPipelineRun, request) == expected


@pytest.mark.parametrize("stage_key", ["review", "done"])
def test_an_ended_run_is_not_revived_beside_an_open_one(crm: Crm, stage_key: str) -> None:
    pipeline = crm.published()
    ended = crm.cancel(crm.enrol(pipeline.id).id)
    crm.enrol(pipeline.id)
    request = pb.RestartPipelineRunRequest(id=ended.id, from_stage_key=stage_key)
    assert crm.failing(crm.runs.RestartPipelineRun, request) == (REFUSED, "ErrPipelineAlreadyEnrolled", [])
    assert crm.run(ended.id) == ended


def test_the_run_tells_which_branches_could_not_be_evaluated(crm: Crm) -> None:
    ways = [("{{kyc_form.amount}} > 1000", "rejected"), ("default", "done")]
    run = crm.enrol(crm.published(drawn(stage("review", form(), to=ways), ending("done"), ending("rejected"))).id)
    crm.submitted(crm.timeline(run.id)[0].id, values={"kyc_status": "approved"})
    ended = crm.run(run.id)
    assert ended.current_stage_key == "done"
    (note,) = ended.branch_notes
    assert (note.stage_key, note.expression) == ("review", "{{kyc_form.amount}} > 1000")


def test_unknown_runs_are_not_found(crm: Crm) -> None:
    crm.enrol(crm.published().id)
    stranger = crm.by(crm.houses.someone(organization_id=2))
    for caller, run_id in ((crm, 404), (stranger, 1)):
        for method, request in (
            (crm.runs.GetPipelineRun, pb.GetPipelineRunRequest(id=run_id)),
            (crm.runs.ListPipelineRunActions, pb.ListPipelineRunActionsRequest(run_id=run_id)),
            (crm.runs.CancelPipelineRun, pb.CancelPipelineRunRequest(id=run_id, reason="x")),
            (crm.runs.PausePipelineRun, pb.PausePipelineRunRequest(id=run_id)),
            (crm.runs.ResumePipelineRun, pb.ResumePipelineRunRequest(id=run_id)),
            (crm.runs.RestartPipelineRun, pb.RestartPipelineRunRequest(id=run_id, from_stage_key="review")),
        ):
            assert caller.failing(method, request) == (NOT_FOUND, "ErrPipelineRunNotFound", [])
    assert list(stranger.find_runs().data) == []


def test_a_run_without_actions_has_an_empty_timeline(crm: Crm) -> None:
    run = crm.enrol(crm.published(drawn(ending("done"))).id)
    assert crm.timeline(run.id) == []


def test_viewers_watch_and_do_not_intervene(crm: Crm) -> None:
    run = crm.enrol(crm.published(PAPERS).id)
    viewer = crm.by(crm.houses.someone("viewer"))
    assert viewer.run(run.id) == run
    assert len(viewer.timeline(run.id)) == 3
    for method, request in (
        (crm.runs.CancelPipelineRun, pb.CancelPipelineRunRequest(id=run.id, reason="x")),
        (crm.runs.PausePipelineRun, pb.PausePipelineRunRequest(id=run.id)),
        (crm.runs.ResumePipelineRun, pb.ResumePipelineRunRequest(id=run.id)),
        (crm.runs.RestartPipelineRun, pb.RestartPipelineRunRequest(id=run.id, from_stage_key="review")),
        (crm.runs.UpdateChecklistAction, pb.UpdateChecklistActionRequest(run_id=run.id, action_id=1)),
        (crm.runs.SkipPipelineRunAction, pb.SkipPipelineRunActionRequest(run_id=run.id, action_id=1)),
    ):
        assert failing(method, request, viewer.who).code == grpc.StatusCode.PERMISSION_DENIED


def test_lists_are_newest_first_and_can_be_filtered(crm: Crm) -> None:
    first, other = crm.published(), crm.published(name="Other")
    made = [crm.enrol(first.id, 1), crm.enrol(other.id, 1), crm.enrol(first.id, 2)]
    crm.cancel(made[0].id)

    def ids(**filters: Any) -> list[int]:
        return [run.id for run in crm.find_runs(**filters).data]

    assert ids() == [made[2].id, made[1].id, made[0].id]
    assert ids(pipeline_definition_id=first.id) == [made[2].id, made[0].id]
    assert ids(subject_type="contact", subject_id=1) == [made[1].id, made[0].id]
    assert ids(status="cancelled") == [made[0].id]
    assert ids(status="running", pipeline_definition_id=first.id, subject_id=2) == [made[2].id]
    assert ids(subject_type="deal") == []
    assert crm.find_runs(include_total=True, per_page=2).meta.total == 3


def test_lists_are_walked_by_page_and_by_token(crm: Crm) -> None:
    pipeline = crm.published()
    made = [crm.enrol(pipeline.id, contact_id).id for contact_id in range(1, 6)]
    walked, token = list[pipeline_run_pb2.PipelineRun](), ""
    while True:
        page = crm.find_runs(per_page=2, page_token=token)
        walked += page.data
        token = page.meta.next_page_token
        if not page.meta.has_more:
            break
    assert [run.id for run in walked] == made[::-1]
    assert [run.id for run in crm.find_runs(per_page=2, page=3).data] == [made[0]]


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ({"status": "open"}, ["status"]),
        ({"subject_type": "lead"}, ["subject_type"]),
        ({"per_page": -1}, ["per_page"]),
        ({"page_token": "nonsense"}, ["page_token"]),
    ],
)
def test_a_list_refuses_what_it_does_not_know(crm: Crm, members: dict[str, Any], fields: list[str]) -> None:
    refused = crm.failing(crm.runs.ListPipelineRuns, pb.ListPipelineRunsRequest(**members))
    assert refused == (INVALID, "INVALID_ARGUMENT", fields)


def test_a_repeated_enrolment_under_its_key_is_one_run(crm: Crm) -> None:
    pipeline = crm.published()
    metadata = crm.who.metadata(idempotency_key="once")
    first = crm.runs.EnrollContact(enrolment(pipeline.id), metadata=metadata)
    assert crm.runs.EnrollContact(enrolment(pipeline.id), metadata=metadata) == first
    assert len(crm.find_runs().data) == 1


def test_statements_per_call_stay_within_their_bounds(crm: Crm, statements: Counter[str]) -> None:
    """However far a run walks."""
    hall = [stage(f"s{number}", form(f"f{number}", required=False), to=f"s{number + 1}") for number in range(20)]
    far = crm.published(drawn(stage("review", form()), ending("done")))
    walk = crm.published(drawn(stage("start", form(), to="s0"), *hall, ending("s20")), name="Walk")
    statements.clear()
    run = crm.enrol(far.id)
    assert statements == {"EnrollContact": 3}
    crm.pause(run.id)
    crm.resume(run.id)
    crm.cancel(run.id)
    crm.restart(run.id)
    long = crm.enrol(walk.id)
    crm.submitted(crm.timeline(long.id)[0].id)
    assert crm.run(long.id).status == "completed"
    assert len(crm.timeline(long.id)) == 21
    crm.find_runs(include_total=True)
    assert statements == {
        "EnrollContact": 6,  # two calls
        "PausePipelineRun": 3,
        "ResumePipelineRun": 3,
        "CancelPipelineRun": 4,
        "RestartPipelineRun": 4,
        "ListPipelineRunActions": 2,  # two calls
        "CompleteFormAction": 4,
        "GetPipelineRun": 1,
        "ListPipelineRuns": 2,
    }
