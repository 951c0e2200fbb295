"""What each version of a pipeline allows (spec v1 §4.8, D40–D43, D84)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.pipelines import lifecycle
from services.pipelines.actions import Form
from services.pipelines.definition import ARCHIVED, DRAFT, PUBLISHED, Pipeline
from services.pipelines.errors import (
    ActionTypeUnavailable,
    PipelineAlreadyEnrolled,
    PipelineHasRuns,
    PipelineNotDraft,
    PipelineNotPublished,
    PipelinePublished,
    PipelineSchemaInvalid,
    PipelineSubjectMismatch,
)
from services.pipelines.references import TEXT
from services.runtime.errors import Aborted
from tests.pipelines.drawings import deal, drawn, ending, kyc
from tests.pipelines.test_progression import BEGAN, LATER, pipeline_of

FORMS = {10: Form(published=True, fields={"kyc_status": TEXT})}
DRAFTED = replace(pipeline_of(kyc()), status=DRAFT, published_at=None)
LIVE = pipeline_of(kyc())
CLOSED = replace(LIVE, status=ARCHIVED, archived_at=LATER)


def test_only_a_draft_is_changed_and_published() -> None:
    lifecycle.check_draft(DRAFTED)
    lifecycle.check_publishable(DRAFTED, FORMS)
    for other in (LIVE, CLOSED):
        with pytest.raises(PipelineNotDraft):
            lifecycle.check_draft(other)
        with pytest.raises(PipelineNotDraft):
            lifecycle.check_publishable(other, FORMS)


def test_publishing_freezes_what_was_judged() -> None:
    published = lifecycle.publish(DRAFTED, DRAFTED, LATER)
    assert (published.status, published.published_at, published.updated_at) == (PUBLISHED, LATER, LATER)
    assert published.schema == DRAFTED.schema
    with pytest.raises(Aborted):
        lifecycle.publish(replace(DRAFTED, updated_at=BEGAN + timedelta(seconds=1)), DRAFTED, LATER)
    with pytest.raises(PipelineNotDraft):
        lifecycle.publish(LIVE, DRAFTED, LATER)


def test_publishing_checks_every_rule_again() -> None:
    unpublished = {10: Form(published=False, fields={"kyc_status": TEXT})}
    for forms in (unpublished, {}):
        with pytest.raises(PipelineSchemaInvalid) as refused:
            lifecycle.check_publishable(DRAFTED, forms)
        path = "schema.stages[0].actions[0].config.form_definition_id"
        assert [each.field for each in refused.value.violations] == [path]
    trigger_on_deals = replace(DRAFTED, subject_type="deal", auto_enroll_contact_stage_id=3)
    with pytest.raises(PipelineSchemaInvalid):
        lifecycle.check_publishable(trigger_on_deals, FORMS)


def test_what_nothing_can_run_yet_is_not_published() -> None:
    waiting = replace(DRAFTED, schema=drawn(ending("done", deal())))
    with pytest.raises(ActionTypeUnavailable) as refused:
        lifecycle.check_publishable(waiting, {})
    assert [each.field for each in refused.value.violations] == ["schema.stages[0].actions[0].type"]


@pytest.mark.parametrize("pipeline", [DRAFTED, LIVE], ids=["draft", "published"])
def test_drafts_and_published_versions_are_archived_once(pipeline: Pipeline) -> None:
    archived = lifecycle.archive(pipeline, LATER)
    assert (archived.status, archived.archived_at) == (ARCHIVED, LATER)
    assert lifecycle.archive(archived, LATER + timedelta(hours=1)) is archived


def test_only_a_published_version_is_forked() -> None:
    lifecycle.check_forkable(LIVE)
    draft = lifecycle.fork(LIVE, number=6, version=2, user_id=18, at=LATER)
    assert (draft.id, draft.version, draft.status, draft.created_by) == (6, 2, DRAFT, 18)
    assert (draft.published_at, draft.archived_at, draft.created_at) == (None, None, LATER)
    assert (draft.name, draft.schema) == (LIVE.name, LIVE.schema)
    for other in (DRAFTED, CLOSED):
        with pytest.raises(PipelineNotPublished):
            lifecycle.check_forkable(other)


def test_only_what_is_not_live_and_was_never_enrolled_in_is_deleted() -> None:
    lifecycle.check_deletable(DRAFTED, has_runs=False)
    lifecycle.check_deletable(CLOSED, has_runs=False)
    with pytest.raises(PipelinePublished):
        lifecycle.check_deletable(LIVE, has_runs=False)
    for pipeline in (LIVE, CLOSED):
        with pytest.raises(PipelineHasRuns):
            lifecycle.check_deletable(pipeline, has_runs=True)


def test_only_a_published_version_for_such_a_record_is_enrolled_in() -> None:
    lifecycle.check_enrollable(LIVE, "contact", enrolled=False)
    with pytest.raises(PipelineSubjectMismatch):
        lifecycle.check_enrollable(replace(DRAFTED, subject_type="deal"), "contact", enrolled=True)
    for other in (DRAFTED, CLOSED):
        with pytest.raises(PipelineNotPublished):
            lifecycle.check_enrollable(other, "contact", enrolled=True)
    with pytest.raises(PipelineAlreadyEnrolled):
        lifecycle.check_enrollable(LIVE, "contact", enrolled=True)
