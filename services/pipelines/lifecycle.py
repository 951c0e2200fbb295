"""From draft to published to archived: what each version of a pipeline allows (spec v1 §4.8, D84)."""

from dataclasses import replace
from datetime import datetime

from services.pipelines import actions, rules
from services.pipelines.actions import Forms
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
from services.runtime.errors import Aborted, report


def check_draft(pipeline: Pipeline) -> None:
    """Only a draft can be changed. Raises PipelineNotDraft."""
    if pipeline.status != DRAFT:
        raise PipelineNotDraft()


def check_publishable(pipeline: Pipeline, forms: Forms) -> None:
    """Every rule again (spec v1 D75, D83). Raises PipelineNotDraft, PipelineSchemaInvalid, ActionTypeUnavailable."""
    check_draft(pipeline)
    broken = [*rules.wrong_schema(pipeline.graph, forms, publishing=True), *rules.wrong_trigger(pipeline)]
    report(broken, PipelineSchemaInvalid)
    report(actions.unavailable(pipeline.graph), ActionTypeUnavailable)


def publish(pipeline: Pipeline, judged: Pipeline, at: datetime) -> Pipeline:
    """The draft, published; `judged` is what the rules were checked on. Raises PipelineNotDraft, Aborted."""
    check_draft(pipeline)
    if pipeline != judged:
        raise Aborted()
    return replace(pipeline, status=PUBLISHED, published_at=at, updated_at=at)


def archive(pipeline: Pipeline, at: datetime) -> Pipeline:
    """The version, archived; archived once is archived for good (spec v1 D42)."""
    if pipeline.status == ARCHIVED:
        return pipeline
    return replace(pipeline, status=ARCHIVED, archived_at=at, updated_at=at)


def check_forkable(pipeline: Pipeline) -> None:
    """Only what is published is forked (spec v1 D40). Raises PipelineNotPublished."""
    if pipeline.status != PUBLISHED:
        raise PipelineNotPublished()


def fork(pipeline: Pipeline, *, number: int, version: int, user_id: int, at: datetime) -> Pipeline:
    """A new draft like this version."""
    return replace(
        pipeline,
        id=number,
        version=version,
        status=DRAFT,
        created_by=user_id,
        published_at=None,
        archived_at=None,
        created_at=at,
        updated_at=at,
    )


def check_deletable(pipeline: Pipeline, *, has_runs: bool) -> None:
    """What was never enrolled in and is not live can go (spec v1 D42). Raises PipelineHasRuns, PipelinePublished."""
    if has_runs:
        raise PipelineHasRuns()
    if pipeline.status == PUBLISHED:
        raise PipelinePublished()


def check_enrollable(pipeline: Pipeline, subject_type: str, *, enrolled: bool) -> None:
    """Published, for this kind of record, and no run of its family open for it (spec v1 D87, D88).

    Raises PipelineSubjectMismatch, PipelineNotPublished, PipelineAlreadyEnrolled.
    """
    if pipeline.subject_type != subject_type:
        raise PipelineSubjectMismatch(field="pipeline_definition_id")
    if pipeline.status != PUBLISHED:
        raise PipelineNotPublished()
    if enrolled:
        raise PipelineAlreadyEnrolled()
