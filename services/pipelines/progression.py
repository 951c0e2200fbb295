"""How a run goes: pure functions from a journey, and what happened, to the journey after it (spec v1 §5.3–§5.9).

Each walks as far as the run can go: the stage's actions are materialised, automatic ones run one after the other in
their order, and once every required action is completed the first branch that holds leads to the next stage, until the
run waits for somebody or ends. The graph has no loops, so a walk ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.pipelines.actions import AUTOMATIC, CHECKLIST, FORM
from services.pipelines.branching import holds
from services.pipelines.definition import CONTACT, Action, Pipeline, Stage
from services.pipelines.errors import (
    PipelineRunEnded,
    PipelineRunNotPaused,
    PipelineRunNotRunning,
    RunActionMismatch,
    RunActionNotChecklist,
    RunActionNotOpen,
    RunActionNotPending,
    RunActionRequired,
    StageUnknown,
)
from services.pipelines.graph import reachable
from services.pipelines.run import (
    CANCELLED,
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    PAUSED,
    PENDING,
    RUNNING,
    SKIPPED,
    Journey,
    Run,
    RunAction,
    variables,
)
from services.runtime.errors import ServiceError, Violation, report


def enrol(pipeline: Pipeline, *, run_id: int, subject_id: int, user_id: int, source: str, at: datetime) -> Journey:
    """A new run of this version, as far as it comes by itself (spec v1 §5.4, D105)."""
    graph = pipeline.graph
    run = Run(
        id=run_id,
        organization_id=pipeline.organization_id,
        pipeline_definition_id=pipeline.id,
        definition_version=pipeline.version,
        family=pipeline.name,
        subject_type=pipeline.subject_type,
        subject_id=subject_id,
        status=RUNNING,
        current_stage_key=graph.entry_stage_key,
        enrolled_by_user_id=user_id,
        enroll_source=source,
        started_at=at,
    )
    return _advance(_enter(Journey(run, graph), run.current_stage_key), at)


def refusal(
    row: RunAction, subject_type: str, subject_id: int, *, form_definition_id: int, contact_id: int
) -> ServiceError | None:
    """Why a submission can not complete an action of a run about this record, or None (spec v1 D57)."""
    if row.action_type != FORM or row.form_definition_id != form_definition_id:
        return RunActionMismatch("The action does not wait for this form.", field="context_id")
    if (subject_type, subject_id) != (CONTACT, contact_id):
        return RunActionMismatch("The run is about another record.", field="contact_id")
    return None if row.is_open else RunActionNotPending()


def complete_form(
    journey: Journey,
    action_id: int,
    *,
    submission_id: int,
    form_definition_id: int,
    contact_id: int,
    values: dict[str, Any],
    user_id: int,
    at: datetime,
) -> Journey:
    """A submission completes a form action; while the run is paused it moves no further (spec v1 D95).

    The journey stays as it is when the action is gone, not pending any more, or not for this submission.
    """
    row, subject = journey.action(action_id), (journey.run.subject_type, journey.run.subject_id)
    if row is None or refusal(row, *subject, form_definition_id=form_definition_id, contact_id=contact_id):
        return journey
    done = replace(_completed(row, values, at), form_submission_id=submission_id, completed_by_user_id=user_id)
    return _advance(_put(journey, done), at)


def tick(journey: Journey, action_id: int, *, items: Mapping[str, bool], user_id: int, at: datetime) -> Journey:
    """Ticks and unticks items of a checklist; the last tick completes it (spec v1 D92).

    Raises RunActionNotFound, RunActionNotChecklist, RunActionNotOpen, Invalid for an unknown item.
    """
    row = journey.known_action(action_id)
    if row.action_type != CHECKLIST:
        raise RunActionNotChecklist()
    report(
        Violation(f"items.{key}", "is not an item of this checklist") for key in sorted(items.keys() - row.checklist)
    )
    if not row.is_open:
        raise RunActionNotOpen()
    ticked = {**row.checklist, **items}
    row = replace(row, checklist=ticked, status=IN_PROGRESS if any(ticked.values()) else PENDING)
    if all(ticked.values()):
        row = replace(_completed(row, ticked, at), completed_by_user_id=user_id)
    return _advance(_put(journey, row), at)


def skip(journey: Journey, action_id: int, *, at: datetime) -> Journey:
    """Passes over an open action that is not required (spec v1 D93).

    Raises RunActionNotFound, RunActionNotOpen, RunActionRequired.
    """
    row = journey.known_action(action_id)
    if not row.is_open:
        raise RunActionNotOpen()
    if row.required:
        raise RunActionRequired()
    return _advance(_put(journey, replace(row, status=SKIPPED)), at)


def succeed(
    journey: Journey, action_id: int, *, result: dict[str, Any], at: datetime, deal_id: int = 0, engagement_id: int = 0
) -> Journey:
    """An automatic action has run. A row that is not in progress any more stays as it is."""
    row = journey.action(action_id)
    if row is None or row.action_type not in AUTOMATIC or row.status != IN_PROGRESS:
        return journey
    done = replace(_completed(row, result, at), deal_id=deal_id, engagement_id=engagement_id)
    return _advance(_put(journey, done), at)


def fail(journey: Journey, action_id: int, *, error: str, at: datetime) -> Journey:
    """An automatic action can not be run; if the stage waits for it the run fails (spec v1 D91)."""
    row = journey.action(action_id)
    if row is None or row.action_type not in AUTOMATIC or row.status != IN_PROGRESS:
        return journey
    return _advance(_put(journey, replace(row, status=FAILED, error_message=error)), at)


def pause(journey: Journey, *, at: datetime) -> Journey:
    """Freezes a running run. Raises PipelineRunNotRunning."""
    if journey.run.status != RUNNING:
        raise PipelineRunNotRunning()
    return _with(journey, status=PAUSED, paused_at=at)


def resume(journey: Journey, *, at: datetime) -> Journey:
    """Sets a paused run running and evaluates its stage again. Raises PipelineRunNotPaused."""
    if journey.run.status != PAUSED:
        raise PipelineRunNotPaused()
    return _advance(_with(journey, status=RUNNING, paused_at=None), at)


def cancel(journey: Journey, *, reason: str, at: datetime) -> Journey:
    """Ends an open run (spec v1 D97). Raises PipelineRunEnded."""
    if not journey.run.is_open:
        raise PipelineRunEnded()
    return _with(_without_open(journey), status=CANCELLED, cancel_reason=reason, cancelled_at=at, paused_at=None)


def restart(journey: Journey, stage_key: str, *, at: datetime) -> Journey:
    """Rewinds to a stage: its rows and those of every stage reachable from it go (spec v1 §5.9, D98).

    Raises StageUnknown.
    """
    if journey.schema.stage(stage_key) is None:
        raise StageUnknown(field="from_stage_key")
    gone = reachable(journey.schema, stage_key)
    kept = tuple(row for row in journey.timeline if row.stage_key not in gone)
    rewound = _with(
        _without_open(replace(journey, timeline=kept)),
        status=RUNNING,
        variables=variables(kept),
        branch_notes=[note for note in journey.run.branch_notes if note["stage_key"] not in gone],
        cancel_reason="",
        failure_reason="",
        paused_at=None,
        completed_at=None,
        cancelled_at=None,
        failed_at=None,
    )
    return _advance(_enter(rewound, stage_key), at)


def _advance(journey: Journey, at: datetime) -> Journey:
    """Goes on until the run waits or ends. A paused or ended run stands still."""
    moved: Journey | None = journey
    while moved is not None:
        journey = moved
        moved = _step(journey, at) if journey.run.status == RUNNING else None
    return journey


def _step(journey: Journey, at: datetime) -> Journey | None:
    """The next thing that happens by itself; None while the run waits."""
    stage = _stage(journey, journey.run.current_stage_key)
    rows = [row for row in journey.timeline if row.stage_key == stage.key]
    failed = next((row for row in rows if row.required and row.status == FAILED), None)
    if failed is not None:
        return _failed(journey, failed, at)
    automatic = next((row for row in rows if row.action_type in AUTOMATIC and row.is_open), None)
    if automatic is not None:
        return _put(journey, replace(automatic, status=IN_PROGRESS)) if automatic.status == PENDING else None
    if any(row.required and row.status != COMPLETED for row in rows):
        return None
    if stage.terminal:
        return _with(journey, status=COMPLETED, completed_at=at)
    return _leave(journey, stage)


def _leave(journey: Journey, stage: Stage) -> Journey:
    """Takes the first branch that holds; what is still open on the stage is skipped (spec v1 D90)."""
    notes = list(journey.run.branch_notes)
    for branch in stage.branches:
        verdict = holds(branch.expression, journey.run.variables)
        if verdict.note:
            notes.append({"stage_key": stage.key, "expression": branch.expression, "message": verdict.note})
        if verdict.taken:
            left = _without_open(journey, lambda row: row.stage_key == stage.key)
            return _enter(_with(left, branch_notes=notes), branch.target)
    raise AssertionError(f"stage {stage.key} has no default branch")


def _enter(journey: Journey, stage_key: str) -> Journey:
    """Stands on a stage, with its actions materialised in their order."""
    position = max((row.position for row in journey.timeline), default=0)
    actions = _stage(journey, stage_key).actions
    fresh = tuple(
        _materialised(journey.run, stage_key, action, position + number) for number, action in enumerate(actions, 1)
    )
    return _with(replace(journey, timeline=journey.timeline + fresh), current_stage_key=stage_key)


def _materialised(run: Run, stage_key: str, action: Action, position: int) -> RunAction:
    return RunAction(
        id=0,
        organization_id=run.organization_id,
        pipeline_run_id=run.id,
        position=position,
        stage_key=stage_key,
        action_key=action.key,
        action_type=action.type,
        required=action.required,
        form_definition_id=action.config["form_definition_id"] if action.type == FORM else 0,
        checklist={item["key"]: False for item in action.config["items"]} if action.type == CHECKLIST else {},
    )


def _failed(journey: Journey, row: RunAction, at: datetime) -> Journey:
    reason = f"stage {row.stage_key}, action {row.action_key}: {row.error_message}"
    return _with(_without_open(journey), status=FAILED, failure_reason=reason, failed_at=at)


def _completed(row: RunAction, result: dict[str, Any], at: datetime) -> RunAction:
    return replace(row, status=COMPLETED, result=result, completed_at=at)


def _put(journey: Journey, row: RunAction) -> Journey:
    """The journey with one row of the timeline replaced, and its variables in step with it."""
    timeline = tuple(row if each.position == row.position else each for each in journey.timeline)
    return _with(replace(journey, timeline=timeline), variables=variables(timeline))


def _without_open(journey: Journey, among: Callable[[RunAction], bool] = lambda _row: True) -> Journey:
    """The journey with its open actions skipped."""
    timeline = tuple(replace(row, status=SKIPPED) if row.is_open and among(row) else row for row in journey.timeline)
    return replace(journey, timeline=timeline)


def _with(journey: Journey, **changed: Any) -> Journey:
    return replace(journey, run=replace(journey.run, **changed))


def _stage(journey: Journey, key: str) -> Stage:
    stage = journey.schema.stage(key)
    assert stage is not None, f"run {journey.run.id} has no stage {key}"
    return stage
