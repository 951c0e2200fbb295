"""How a run goes, decided without a database (spec v1 §5.3–§5.9, D89–D99, D105)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.pipelines import progression
from services.pipelines.definition import CONTACT, PUBLISHED, Pipeline
from services.pipelines.errors import (
    PipelineRunEnded,
    PipelineRunNotPaused,
    PipelineRunNotRunning,
    RunActionMismatch,
    RunActionNotChecklist,
    RunActionNotFound,
    RunActionNotOpen,
    RunActionNotPending,
    RunActionRequired,
    StageUnknown,
)
from services.pipelines.run import MANUAL, Journey, RunAction
from services.runtime.errors import Invalid
from tests.pipelines.drawings import Drawing, checklist, deal, drawn, ending, form, kyc, notice, stage

BEGAN = datetime(2026, 3, 1, 9, tzinfo=UTC)
LATER = BEGAN + timedelta(hours=1)
CONTACT_ID, USER_ID = 501, 17


def pipeline_of(drawing: Drawing) -> Pipeline:
    return Pipeline(
        id=5,
        organization_id=7,
        name="KYC Onboarding",
        description="",
        subject_type=CONTACT,
        version=1,
        status=PUBLISHED,
        schema=drawing,
        auto_enroll_contact_stage_id=0,
        created_by=USER_ID,
        published_at=BEGAN,
        archived_at=None,
        created_at=BEGAN,
        updated_at=BEGAN,
    )


def stored(journey: Journey) -> Journey:
    """The journey as it is read back: every action has an id."""
    rows = (row if row.id else replace(row, id=1000 + row.position) for row in journey.timeline)
    return replace(journey, timeline=tuple(rows))


def begun(*stages: Drawing, drawing: Drawing | None = None) -> Journey:
    pipeline = pipeline_of(drawing or drawn(*stages))
    return stored(
        progression.enrol(pipeline, run_id=301, subject_id=CONTACT_ID, user_id=USER_ID, source=MANUAL, at=BEGAN)
    )


def row(journey: Journey, key: str) -> RunAction:
    """The newest row of this key."""
    return [each for each in journey.timeline if each.action_key == key][-1]


def submit(journey: Journey, key: str = "kyc_form", *, form_id: int = 10, **values: Any) -> Journey:
    return stored(
        progression.complete_form(
            journey,
            row(journey, key).id,
            submission_id=99,
            form_definition_id=form_id,
            contact_id=CONTACT_ID,
            values=values,
            user_id=18,
            at=LATER,
        )
    )


def tick(journey: Journey, key: str, **items: bool) -> Journey:
    return stored(progression.tick(journey, row(journey, key).id, items=items, user_id=18, at=LATER))


def short(journey: Journey) -> tuple[str, str, list[str]]:
    """Status, stage, and each row as key=status."""
    rows = [f"{each.action_key}={each.status}" for each in journey.timeline]
    return journey.run.status, journey.run.current_stage_key, rows


def test_a_run_begins_on_the_entry_stage_with_its_actions_in_order() -> None:
    journey = begun(stage("review", form("b"), checklist("a", "x")), ending("done"))
    assert short(journey) == ("running", "review", ["b=pending", "a=pending"])
    assert [each.position for each in journey.timeline] == [1, 2]
    assert (row(journey, "b").form_definition_id, row(journey, "a").checklist) == (10, {"x": False})
    run = journey.run
    assert (run.id, run.organization_id, run.pipeline_definition_id, run.definition_version) == (301, 7, 5, 1)
    assert (run.family, run.subject_type, run.subject_id) == ("KYC Onboarding", "contact", CONTACT_ID)
    assert (run.enrolled_by_user_id, run.enroll_source, run.started_at) == (USER_ID, "manual", BEGAN)


def test_a_terminal_entry_stage_completes_at_once() -> None:
    journey = begun(ending("done"))
    assert short(journey) == ("completed", "done", [])
    assert journey.run.completed_at == BEGAN


def test_stages_that_wait_for_nothing_are_passed_at_once() -> None:
    journey = begun(stage("a", form("opinion", required=False), to="b"), stage("b", to="done"), ending("done"))
    assert short(journey) == ("completed", "done", ["opinion=skipped"])
    assert row(journey, "opinion").completed_by_user_id == 0


def test_the_first_branch_that_holds_is_taken() -> None:
    ways = [
        ("{{kyc_form.amount}} > 100", "large"),
        ("{{kyc_form.amount}} > 10", "medium"),
        ("default", "small"),
    ]
    for amount, expected in ((500, "large"), (50, "medium"), (5, "small")):
        journey = begun(stage("review", form(), to=ways), ending("large"), ending("medium"), ending("small"))
        assert submit(journey, amount=amount).run.current_stage_key == expected


def test_a_branch_that_cannot_be_evaluated_is_not_taken_and_leaves_a_note() -> None:
    ways = [("{{kyc_form.amount}} > 100", "large"), ("default", "small")]
    journey = submit(begun(stage("review", form(), to=ways), ending("large"), ending("small")))
    assert journey.run.current_stage_key == "small"
    (note,) = journey.run.branch_notes
    assert (note["stage_key"], note["expression"]) == ("review", "{{kyc_form.amount}} > 100")
    assert "null" in note["message"]
    restarted = progression.restart(journey, "review", at=LATER)
    assert restarted.run.branch_notes == []


def test_a_stage_waits_for_all_required_actions() -> None:
    journey = begun(stage("review", form("a"), checklist("b", "x", "y"), form("c", required=False)), ending("done"))
    journey = submit(journey, "a", name="Ada")
    assert short(journey) == ("running", "review", ["a=completed", "b=pending", "c=pending"])
    journey = tick(journey, "b", x=True)
    assert short(journey) == ("running", "review", ["a=completed", "b=in_progress", "c=pending"])
    assert journey.run.variables == {"a": {"name": "Ada"}}
    journey = tick(journey, "b", y=True)
    assert short(journey) == ("completed", "done", ["a=completed", "b=completed", "c=skipped"])
    assert journey.run.variables == {"a": {"name": "Ada"}, "b": {"x": True, "y": True}}
    assert (row(journey, "b").completed_by_user_id, row(journey, "b").completed_at) == (18, LATER)
    assert row(journey, "b").form_submission_id == 0


def test_a_checklist_can_be_unticked_while_it_is_open() -> None:
    journey = tick(begun(stage("review", checklist("b", "x", "y")), ending("done")), "b", x=True)
    journey = tick(journey, "b", x=False)
    assert (row(journey, "b").status, row(journey, "b").checklist) == ("pending", {"x": False, "y": False})


def test_what_a_checklist_refuses() -> None:
    journey = begun(stage("review", form("a"), checklist("b", "x"), checklist("c", "x")), ending("done"))
    with pytest.raises(RunActionNotFound):
        progression.tick(journey, 1, items={"x": True}, user_id=18, at=LATER)
    with pytest.raises(RunActionNotChecklist):
        tick(journey, "a", x=True)
    with pytest.raises(Invalid) as refused:
        tick(journey, "b", x=True, z=True, y=False)
    assert [each.field for each in refused.value.violations] == ["items.y", "items.z"]
    with pytest.raises(RunActionNotOpen):
        tick(tick(journey, "b", x=True), "b", x=False)


def test_a_submission_completes_the_action_it_fits_once() -> None:
    journey = submit(begun(drawing=kyc()), kyc_status="approved")
    assert short(journey) == ("completed", "done", ["kyc_form=completed"])
    done = row(journey, "kyc_form")
    assert (done.form_submission_id, done.completed_by_user_id, done.completed_at) == (99, 18, LATER)
    assert done.result == journey.run.variables["kyc_form"] == {"kyc_status": "approved"}
    assert submit(journey, kyc_status="rejected") == journey


def test_a_submission_that_does_not_fit_changes_nothing() -> None:
    journey = begun(stage("review", form(), checklist("papers", "x")), ending("done"))
    assert submit(journey, form_id=11) == journey
    assert submit(journey, "papers") == journey
    other = replace(journey, run=replace(journey.run, subject_id=7))
    assert submit(other) == other
    gone = replace(journey, timeline=())
    at_nobody = {"form_definition_id": 10, "contact_id": CONTACT_ID, "values": {}, "user_id": 18, "at": LATER}
    assert progression.complete_form(gone, 1001, submission_id=99, **at_nobody) is gone  # type: ignore[arg-type]


def test_why_a_submission_is_refused() -> None:
    journey = begun(stage("review", form(), checklist("papers", "x")), ending("done"))

    def refusal(action: RunAction, form_id: int = 10, contact_id: int = CONTACT_ID) -> tuple[type, list[str]]:
        found = progression.refusal(action, "contact", CONTACT_ID, form_definition_id=form_id, contact_id=contact_id)
        return type(found), [each.field for each in found.violations] if found else []

    waiting = row(journey, "kyc_form")
    assert refusal(waiting) == (type(None), [])
    assert refusal(waiting, form_id=11) == (RunActionMismatch, ["context_id"])
    assert refusal(row(journey, "papers")) == (RunActionMismatch, ["context_id"])
    assert refusal(waiting, contact_id=7) == (RunActionMismatch, ["contact_id"])
    assert refusal(waiting, contact_id=0) == (RunActionMismatch, ["contact_id"])
    assert refusal(replace(waiting, status="skipped")) == (RunActionNotPending, [])


def test_a_later_completion_of_the_same_key_counts() -> None:
    """spec v1 D82."""
    journey = begun(stage("a", form("x"), to="b"), stage("b", form("x"), to="c"), stage("c", form("y")), ending("done"))
    journey = submit(submit(journey, "x", n=1), "x", n=2)
    assert journey.run.variables == {"x": {"n": 2}}
    assert progression.restart(journey, "b", at=LATER).run.variables == {"x": {"n": 1}}


def test_a_paused_run_takes_results_and_does_not_move() -> None:
    journey = progression.pause(begun(drawing=kyc()), at=LATER)
    assert (journey.run.status, journey.run.paused_at) == ("paused", LATER)
    journey = submit(journey, kyc_status="approved")
    assert short(journey) == ("paused", "review", ["kyc_form=completed"])
    assert journey.run.variables == {"kyc_form": {"kyc_status": "approved"}}
    journey = progression.resume(journey, at=LATER)
    assert short(journey) == ("completed", "done", ["kyc_form=completed"])
    assert journey.run.paused_at is None


def test_pause_and_resume_are_refused_out_of_turn() -> None:
    journey = begun(drawing=kyc())
    with pytest.raises(PipelineRunNotPaused):
        progression.resume(journey, at=LATER)
    paused = progression.pause(journey, at=LATER)
    with pytest.raises(PipelineRunNotRunning):
        progression.pause(paused, at=LATER)
    ended = submit(journey)
    with pytest.raises(PipelineRunNotRunning):
        progression.pause(ended, at=LATER)
    with pytest.raises(PipelineRunNotPaused):
        progression.resume(ended, at=LATER)


def test_cancelling_skips_what_is_open() -> None:
    journey = tick(begun(stage("a", form(), checklist("b", "x", "y")), ending("done")), "b", x=True)
    for each in (journey, progression.pause(journey, at=LATER)):
        cancelled = progression.cancel(each, reason="moved away", at=LATER)
        assert short(cancelled) == ("cancelled", "a", ["kyc_form=skipped", "b=skipped"])
        assert (cancelled.run.cancel_reason, cancelled.run.cancelled_at) == ("moved away", LATER)
        assert cancelled.run.paused_at is None
        with pytest.raises(PipelineRunEnded):
            progression.cancel(cancelled, reason="again", at=LATER)


def test_optional_actions_can_be_skipped_and_no_others() -> None:
    journey = begun(stage("a", form(), form("more", required=False)), ending("done"))
    skipped = progression.skip(journey, row(journey, "more").id, at=LATER)
    assert short(skipped) == ("running", "a", ["kyc_form=pending", "more=skipped"])
    with pytest.raises(RunActionNotOpen):
        progression.skip(skipped, row(journey, "more").id, at=LATER)
    with pytest.raises(RunActionRequired):
        progression.skip(journey, row(journey, "kyc_form").id, at=LATER)
    with pytest.raises(RunActionNotFound):
        progression.skip(journey, 1, at=LATER)


DIAMOND = drawn(
    stage("start", form("a"), to=[("{{a.left}}", "left"), ("default", "right")]),
    stage("left", form("b"), to="join"),
    stage("right", form("c"), to="join"),
    stage("join", form("d")),
    ending("done"),
)


def test_restart_removes_the_rows_of_the_stage_and_of_all_reachable_from_it() -> None:
    journey = submit(submit(begun(drawing=DIAMOND), "a", left=True), "b", n=1)
    assert short(journey) == ("running", "join", ["a=completed", "b=completed", "d=pending"])
    again = progression.restart(journey, "left", at=LATER)
    assert short(again) == ("running", "left", ["a=completed", "b=pending"])
    assert again.run.variables == {"a": {"left": True}}
    assert row(again, "b").id == 0


def test_restart_on_a_stage_that_was_never_visited_skips_what_is_open_elsewhere() -> None:
    journey = submit(begun(drawing=DIAMOND), "a", left=True)
    again = progression.restart(journey, "right", at=LATER)
    assert short(again) == ("running", "right", ["a=completed", "b=skipped", "c=pending"])
    assert [each.position for each in again.timeline] == [1, 2, 3]


def test_restart_revives_an_ended_run_and_keeps_when_it_began() -> None:
    journey = progression.cancel(begun(drawing=kyc()), reason="x", at=LATER)
    again = progression.restart(journey, "review", at=LATER)
    assert short(again) == ("running", "review", ["kyc_form=pending"])
    assert (again.run.cancel_reason, again.run.cancelled_at, again.run.started_at) == ("", None, BEGAN)
    completed = progression.restart(again, "done", at=LATER)
    assert (completed.run.status, completed.run.completed_at) == ("completed", LATER)
    assert progression.restart(completed, "review", at=LATER).run.completed_at is None


def test_restart_needs_a_stage_of_the_runs_own_version() -> None:
    with pytest.raises(StageUnknown) as refused:
        progression.restart(begun(drawing=kyc()), "elsewhere", at=LATER)
    assert [each.field for each in refused.value.violations] == ["from_stage_key"]


def automatic(*, required: bool = False) -> Journey:
    return begun(
        stage("review", form(required=False), deal(required=required), notice(required=required), to="won"),
        ending("won", notice("bye")),
    )


def test_automatic_actions_run_one_after_the_other() -> None:
    journey = automatic()
    assert short(journey) == ("running", "review", ["kyc_form=pending", "deal=in_progress", "notice=pending"])
    made = {"deal_id": 9, "title": "New deal", "value": 0}
    journey = progression.succeed(journey, row(journey, "deal").id, result=made, deal_id=9, at=LATER)
    assert short(journey) == ("running", "review", ["kyc_form=pending", "deal=completed", "notice=in_progress"])
    assert (row(journey, "deal").deal_id, journey.run.variables) == (9, {"deal": made})
    sent = {"engagement_id": 4, "status": "queued"}
    journey = progression.succeed(journey, row(journey, "notice").id, result=sent, engagement_id=4, at=LATER)
    assert short(journey) == (
        "running",
        "won",
        ["kyc_form=skipped", "deal=completed", "notice=completed", "bye=in_progress"],
    )
    journey = stored(journey)
    journey = progression.succeed(journey, row(journey, "bye").id, result=sent, engagement_id=5, at=LATER)
    assert (journey.run.status, journey.run.completed_at) == ("completed", LATER)


def test_a_failed_action_that_is_not_required_does_not_stop_the_run() -> None:
    journey = automatic()
    journey = progression.fail(journey, row(journey, "deal").id, error="the title is empty", at=LATER)
    assert (row(journey, "deal").status, row(journey, "deal").error_message) == ("failed", "the title is empty")
    assert (journey.run.status, journey.run.variables) == ("running", {})
    assert row(journey, "notice").status == "in_progress"


def test_a_failed_required_action_fails_the_run() -> None:
    journey = automatic(required=True)
    failed = progression.fail(journey, row(journey, "deal").id, error="the title is empty", at=LATER)
    assert short(failed) == ("failed", "review", ["kyc_form=skipped", "deal=failed", "notice=skipped"])
    assert failed.run.failure_reason == "stage review, action deal: the title is empty"
    assert failed.run.failed_at == LATER
    again = progression.restart(failed, "review", at=LATER)
    assert (again.run.status, again.run.failure_reason, again.run.failed_at) == ("running", "", None)


def test_a_required_action_that_fails_while_paused_fails_the_run_on_resume() -> None:
    journey = progression.pause(automatic(required=True), at=LATER)
    journey = progression.fail(journey, row(journey, "deal").id, error="no", at=LATER)
    assert (journey.run.status, row(journey, "notice").status) == ("paused", "pending")
    assert progression.resume(journey, at=LATER).run.status == "failed"


def test_results_of_automatic_actions_count_once() -> None:
    journey = automatic()
    journey = progression.succeed(journey, row(journey, "deal").id, result={"deal_id": 9}, at=LATER)
    assert progression.succeed(journey, row(journey, "deal").id, result={}, at=LATER) is journey
    assert progression.fail(journey, row(journey, "deal").id, error="late", at=LATER) is journey
    assert progression.fail(journey, row(journey, "kyc_form").id, error="not automatic", at=LATER) is journey
    assert progression.succeed(journey, 1, result={}, at=LATER) is journey


def test_an_automatic_action_that_hangs_can_be_skipped() -> None:
    journey = automatic()
    journey = progression.skip(journey, row(journey, "deal").id, at=LATER)
    assert row(journey, "notice").status == "in_progress"
