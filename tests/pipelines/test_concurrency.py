"""Many callers at once: one open run per family and contact, one writer per run (spec v1 D88, D106)."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import grpc
import psycopg
import pytest

from services.pipelines import progression
from services.pipelines.run import Journey
from tests.harness import Failure, at_once
from tests.pipelines.conftest import Crm, variables
from tests.pipelines.drawings import checklist, drawn, ending, form, stage

STAGE = 3


def race(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each of the calls gave or raised, made at the same time."""
    return at_once(list(calls))


def succeeded(outcomes: Sequence[Any]) -> list[Any]:
    return [each for each in outcomes if not isinstance(each, Exception)]


def reasons(outcomes: Sequence[Any]) -> set[str]:
    failures = [Failure(each) for each in outcomes if isinstance(each, grpc.RpcError)]
    assert len(failures) + len(succeeded(outcomes)) == len(outcomes)
    return {each.reason for each in failures}


def test_of_ten_enrolments_of_one_contact_one_is_made(crm: Crm) -> None:
    first = crm.published()
    second = crm.publish(crm.fork(first.id).id)
    outcomes = race([partial(crm.enrol, first.id), partial(crm.enrol, second.id)] * 5)
    assert len(succeeded(outcomes)) == 1
    assert reasons(outcomes) == {"ErrPipelineAlreadyEnrolled"}
    (run,) = crm.find_runs().data
    assert len(crm.timeline(run.id)) == 1


def test_events_and_people_that_enrol_at_once_make_one_run_of_each_family(crm: Crm) -> None:
    pipelines = [crm.published(name=name, auto_enroll_contact_stage_id=STAGE) for name in "ABC"]
    outcomes = race([partial(crm.entered, 1, STAGE)] * 4 + [partial(crm.enrol, pipelines[1].id)] * 4)
    assert reasons(outcomes) <= {"ErrPipelineAlreadyEnrolled"}
    assert not any(isinstance(each, Exception) for each in outcomes[:4])
    runs = crm.find_runs().data
    assert sorted(run.pipeline_definition_id for run in runs) == [each.id for each in pipelines]


def test_two_submissions_for_one_action_at_once_count_as_one(crm: Crm) -> None:
    answers = {98: "approved", 99: "rejected"}
    for contact_id in range(1, 6):
        run = crm.enrol(crm.published(name=f"P{contact_id}").id, contact_id)
        (row,) = crm.timeline(run.id)
        race(
            partial(crm.submitted, row.id, number, contact_id, values={"kyc_status": answer})
            for number, answer in answers.items()
        )
        ended, (done,) = crm.run(run.id), crm.timeline(run.id)
        answer = answers[done.form_submission_id]
        assert variables(ended) == {"kyc_form": {"kyc_status": answer}}
        assert ended.current_stage_key == {"approved": "done", "rejected": "rejected"}[answer]


def test_a_submission_that_races_a_cancellation_leaves_a_run_that_agrees_with_its_rows(crm: Crm) -> None:
    pipeline = crm.published()
    for contact_id in range(1, 9):
        run = crm.enrol(pipeline.id, contact_id)
        (row,) = crm.timeline(run.id)
        _, cancelled = race([partial(crm.submitted, row.id, contact_id=contact_id), partial(crm.cancel, run.id)])
        now, (then,) = crm.run(run.id), crm.timeline(run.id)
        if isinstance(cancelled, Exception):
            assert (now.status, then.status) == ("completed", "completed")
        else:
            assert (now.status, then.status, variables(now)) == ("cancelled", "skipped", {})


def test_actions_completed_at_once_are_all_kept_and_the_stage_is_left_once(crm: Crm) -> None:
    keys = [f"f{number}" for number in range(6)]
    drawing = drawn(
        stage("review", *(form(key) for key in keys), to="check"), stage("check", form("last")), ending("done")
    )
    run = crm.enrol(crm.published(drawing).id)
    rows = crm.timeline(run.id)
    race(partial(crm.submitted, row.id, submission_id=row.id) for row in rows)
    now = crm.run(run.id)
    assert (now.status, now.current_stage_key) == ("running", "check")
    assert sorted(variables(now)) == keys
    assert [row.status for row in crm.timeline(run.id)] == ["completed"] * 6 + ["pending"]


def test_ticks_at_once_are_all_kept(crm: Crm) -> None:
    items = [f"i{number}" for number in range(8)]
    run = crm.enrol(crm.published(drawn(stage("review", checklist("papers", *items)), ending("done"))).id)
    (row,) = crm.timeline(run.id)
    outcomes = race(partial(crm.tick, run.id, row.id, **{item: True}) for item in items)
    assert len(succeeded(outcomes)) == len(items)
    assert crm.run(run.id).status == "completed"


def test_restarts_and_submissions_at_once_leave_one_pending_row_or_a_completed_run(crm: Crm) -> None:
    run = crm.enrol(crm.published().id)
    for _ in range(5):
        (row,) = crm.timeline(run.id)
        race([partial(crm.submitted, row.id), *[partial(crm.restart, run.id)] * 2])
        (left,) = crm.timeline(run.id)
        assert crm.run(run.id).status == {"pending": "running", "completed": "completed"}[left.status]


def test_of_two_ended_runs_revived_at_once_one_is_open(crm: Crm) -> None:
    pipeline = crm.published()
    ended = [crm.cancel(crm.enrol(pipeline.id).id) for _ in range(3)]
    outcomes = race(partial(crm.restart, run.id) for run in ended)
    assert len(succeeded(outcomes)) == 1
    assert reasons(outcomes) == {"ErrPipelineAlreadyEnrolled"}
    assert len(crm.find_runs(status="running").data) == 1


@pytest.mark.parametrize("attempt", range(3))
def test_a_version_deleted_while_somebody_enrols_has_no_run_or_is_kept(crm: Crm, attempt: int) -> None:
    pipeline = crm.published()

    def bury() -> None:
        crm.archive(pipeline.id)
        crm.delete(pipeline.id)

    enrolled, buried = race([partial(crm.enrol, pipeline.id, 1 + attempt), bury])
    kept = isinstance(buried, Exception)
    assert kept == (not isinstance(enrolled, Exception))
    assert len(crm.find().data) == len(crm.find_runs().data) == int(kept)


def test_a_version_is_kept_from_the_look_at_it_to_the_first_row_of_its_run(
    crm: Crm, admin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, enrol = crm.published(), progression.enrol
    free: list[Any] = []

    def enrol_while_somebody_deletes(*values: Any, **named: Any) -> Journey:
        with psycopg.connect(admin_url) as other:
            free.extend(other.execute("select id from pipelines.pipelines for update skip locked"))
        return enrol(*values, **named)

    monkeypatch.setattr(progression, "enrol", enrol_while_somebody_deletes)
    assert crm.enrol(pipeline.id).status == "running"
    assert free == []
