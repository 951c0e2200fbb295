"""Any sequence of events and interventions against a plain model of what spec v1 §5 says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.pipelines import progression
from services.pipelines.graph import reachable
from services.pipelines.run import Journey, RunAction
from services.runtime.errors import ServiceError
from tests.pipelines.drawings import checklist, deal, drawn, ending, form, notice, stage
from tests.pipelines.test_progression import BEGAN, CONTACT_ID, LATER, begun

DRAWING = drawn(
    stage(
        "intake",
        form("f1"),
        checklist("c1", "x", "y", required=False),
        to=[("{{f1.go}}", "left"), ("default", "right")],
    ),
    stage("left", deal("d1"), form("f2"), checklist("c2", "x"), to="join"),
    stage("right", notice("n1", required=True), form("f2", required=False), to="join"),
    stage("join", form("f1"), to=[("{{f1.go}} == true", "done"), ("default", "lost")]),
    ending("done", deal("d2")),
    ending("lost"),
)
ENDED = {"completed", "cancelled", "failed"}
STAGES = [each["key"] for each in DRAWING["stages"]]
KEYS = ["f1", "f2", "c1", "c2", "d1", "n1", "d2"]


class RunMachine(RuleBasedStateMachine):
    """Every rule is an event; the model is what has been completed on which stage, and the run's status."""

    def __init__(self) -> None:
        super().__init__()
        self.next_id = 2001
        self.journey = self.stored(begun(drawing=DRAWING))
        self.done: dict[tuple[str, str], dict[str, Any]] = {}
        """What each action that was completed gave, by stage and key, in the order of completion."""

    def stored(self, journey: Journey) -> Journey:
        """Gives ids that were never used before, as the database does."""
        rows = list(journey.timeline)
        for index, row in enumerate(rows):
            if row.id == 0:
                rows[index] = replace(row, id=self.next_id)
                self.next_id += 1
        return replace(journey, timeline=tuple(rows))

    def newest(self, key: str) -> RunAction | None:
        found = [row for row in self.journey.timeline if row.action_key == key]
        return found[-1] if found else None

    def attempt(self, change: Callable[[], Journey]) -> bool:
        """Makes a change; a refusal must leave no trace, which values guarantee."""
        try:
            self.journey = self.stored(change())
        except ServiceError:
            return False
        return True

    @rule(key=st.sampled_from(["f1", "f2"]), go=st.sampled_from([True, False, None]))
    def submit(self, key: str, go: bool | None) -> None:
        row = self.newest(key)
        if row is None:
            return
        values: dict[str, Any] = {} if go is None else {"go": go}
        before = self.journey
        self.attempt(
            lambda: progression.complete_form(
                self.journey,
                row.id,
                submission_id=99,
                form_definition_id=10,
                contact_id=CONTACT_ID,
                values=values,
                user_id=1,
                at=LATER,
            )
        )
        if row.status == "pending":
            self.done[row.stage_key, key] = values
        else:
            assert self.journey == before

    @rule(key=st.sampled_from(["c1", "c2"]), item=st.sampled_from(["x", "y"]), ticked=st.booleans())
    def tick(self, key: str, item: str, ticked: bool) -> None:
        row = self.newest(key)
        if row is None:
            return
        change = self.attempt(lambda: progression.tick(self.journey, row.id, items={item: ticked}, user_id=1, at=LATER))
        assert change == (row.is_open and item in row.checklist)
        if change and all({**row.checklist, item: ticked}.values()):
            self.done[row.stage_key, key] = dict.fromkeys(row.checklist, True)

    @rule(key=st.sampled_from(["d1", "n1", "d2"]), works=st.booleans())
    def automatic_action_ran(self, key: str, works: bool) -> None:
        row = self.newest(key)
        if row is None:
            return
        result = {"deal_id": self.next_id}
        if works:
            self.attempt(lambda: progression.succeed(self.journey, row.id, result=result, at=LATER))
        else:
            self.attempt(lambda: progression.fail(self.journey, row.id, error="no", at=LATER))
        if works and row.status == "in_progress":
            self.done[row.stage_key, key] = result

    @rule(key=st.sampled_from(KEYS))
    def skip(self, key: str) -> None:
        row = self.newest(key)
        if row is not None:
            skipped = self.attempt(lambda: progression.skip(self.journey, row.id, at=LATER))
            assert skipped == (row.is_open and not row.required)

    @rule()
    def pause(self) -> None:
        before = self.journey.run.status
        assert self.attempt(lambda: progression.pause(self.journey, at=LATER)) == (before == "running")

    @rule()
    def resume(self) -> None:
        before = self.journey.run.status
        assert self.attempt(lambda: progression.resume(self.journey, at=LATER)) == (before == "paused")

    @rule()
    def cancel(self) -> None:
        before = self.journey.run.status
        cancelled = self.attempt(lambda: progression.cancel(self.journey, reason="x", at=LATER))
        assert cancelled == (before not in ENDED)

    @rule(key=st.sampled_from(STAGES))
    def restart(self, key: str) -> None:
        gone = reachable(self.journey.schema, key)
        kept = [row for row in self.journey.timeline if row.stage_key not in gone]
        assert self.attempt(lambda: progression.restart(self.journey, key, at=LATER))
        self.done = {place: result for place, result in self.done.items() if place[0] not in gone}
        assert [row.id for row in kept] == [row.id for row in self.journey.timeline[: len(kept)]]

    @invariant()
    def variables_are_what_completed_actions_gave(self) -> None:
        completed = [row for row in self.journey.timeline if row.status == "completed"]
        assert {(row.stage_key, row.action_key): row.result for row in completed} == self.done
        # Of two with the same key the later completion counts.
        assert self.journey.run.variables == {key: result for (_, key), result in self.done.items()}

    @invariant()
    def an_ended_run_has_no_open_action_and_one_time_of_its_end(self) -> None:
        run = self.journey.run
        times = {"completed": run.completed_at, "cancelled": run.cancelled_at, "failed": run.failed_at}
        assert {status for status, at in times.items() if at} == ({run.status} & ENDED)
        assert (run.paused_at is not None) == (run.status == "paused")
        assert bool(run.cancel_reason) == (run.status == "cancelled")
        assert bool(run.failure_reason) == (run.status == "failed")
        assert run.started_at == BEGAN
        if run.status in ENDED:
            assert not any(row.is_open for row in self.journey.timeline)

    @invariant()
    def only_the_stage_the_run_stands_on_has_open_actions(self) -> None:
        run = self.journey.run
        assert {row.stage_key for row in self.journey.timeline if row.is_open} <= {run.current_stage_key}

    @invariant()
    def each_stage_is_materialised_once_and_whole_in_order(self) -> None:
        rows = self.journey.timeline
        assert [row.position for row in rows] == sorted({row.position for row in rows})
        for each in {row.stage_key for row in rows}:
            drawn_stage = self.journey.schema.stage(each)
            assert drawn_stage is not None
            keys = [row.action_key for row in rows if row.stage_key == each]
            assert keys == [action.key for action in drawn_stage.actions]

    @invariant()
    def a_running_run_waits_for_something(self) -> None:
        run = self.journey.run
        if run.status != "running":
            return
        here = [row for row in self.journey.timeline if row.stage_key == run.current_stage_key]
        assert any(row.is_open and (row.required or row.status == "in_progress") for row in here)

    @invariant()
    def automatic_actions_run_one_at_a_time(self) -> None:
        assert sum(row.status == "in_progress" and row.action_type != "checklist" for row in self.journey.timeline) <= 1


TestRunMachine = RunMachine.TestCase
