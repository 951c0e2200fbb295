"""A run as values: its row, its timeline of actions, and both together with the graph it follows (spec v1 §5)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.pipelines.definition import Schema
from services.pipelines.errors import RunActionNotFound

RUNNING, PAUSED, COMPLETED, CANCELLED, FAILED = "running", "paused", "completed", "cancelled", "failed"
OPEN = frozenset({RUNNING, PAUSED})
"""Statuses of a run that has not ended; a family has one such run per record."""

PENDING, IN_PROGRESS, SKIPPED = "pending", "in_progress", "skipped"
OPEN_ACTION = frozenset({PENDING, IN_PROGRESS})
"""Statuses of an action that may still be completed. Actions of a run that has ended are never open."""

MANUAL, AUTO = "manual", "auto"


@dataclass(frozen=True, slots=True)
class Run:
    """One contact or deal on its way. `family` is the pipeline's name, `branch_notes` a list of plain BranchNotes."""

    id: int
    organization_id: int
    pipeline_definition_id: int
    definition_version: int
    family: str
    subject_type: str
    subject_id: int
    status: str
    current_stage_key: str
    enrolled_by_user_id: int
    enroll_source: str
    started_at: datetime
    variables: dict[str, Any] = field(default_factory=dict)
    branch_notes: list[dict[str, str]] = field(default_factory=list)
    cancel_reason: str = ""
    failure_reason: str = ""
    paused_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    failed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class RunAction:
    """One action of a run. `position` orders the timeline; an id of 0 is one that is not stored yet."""

    id: int
    organization_id: int
    pipeline_run_id: int
    position: int
    stage_key: str
    action_key: str
    action_type: str
    required: bool
    status: str = PENDING
    form_definition_id: int = 0
    form_submission_id: int = 0
    deal_id: int = 0
    engagement_id: int = 0
    checklist: dict[str, bool] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    completed_by_user_id: int = 0
    completed_at: datetime | None = None
    error_message: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it may still be completed."""
        return self.status in OPEN_ACTION


@dataclass(frozen=True, slots=True)
class Journey:
    """A run with the graph it is pinned to and its timeline in order: all that decides what happens next."""

    run: Run
    schema: Schema
    timeline: tuple[RunAction, ...] = ()

    def action(self, action_id: int) -> RunAction | None:
        """The action of this id, if the run has it."""
        return next((each for each in self.timeline if each.id == action_id), None)

    def known_action(self, action_id: int) -> RunAction:
        """The action of this id, which the run has. Raises RunActionNotFound."""
        found = self.action(action_id)
        if found is None:
            raise RunActionNotFound()
        return found


def variables(timeline: Iterable[RunAction]) -> dict[str, Any]:
    """What completed actions gave, by action key; of two with the same key the later one counts (spec v1 D82)."""
    return {each.action_key: each.result for each in timeline if each.status == COMPLETED}
