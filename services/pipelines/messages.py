"""Pipelines and runs as the contract shows them, and schemas as it takes them."""

from crm.pipelines.v1 import pipeline_pb2, pipeline_run_pb2

from services.pipelines.definition import Action, Branch, Pipeline, Schema, Stage
from services.pipelines.run import Run, RunAction
from services.runtime.messages import timestamp
from services.runtime.values import plain, struct_of


def pipeline_message(pipeline: Pipeline) -> pipeline_pb2.Pipeline:
    """A version."""
    return pipeline_pb2.Pipeline(
        id=pipeline.id,
        organization_id=pipeline.organization_id,
        name=pipeline.name,
        description=pipeline.description,
        subject_type=pipeline.subject_type,
        version=pipeline.version,
        status=pipeline.status,
        schema=_schema_message(pipeline.graph),
        auto_enroll_contact_stage_id=pipeline.auto_enroll_contact_stage_id,
        created_by=pipeline.created_by,
        published_at=timestamp(pipeline.published_at),
        archived_at=timestamp(pipeline.archived_at),
        created_at=timestamp(pipeline.created_at),
        updated_at=timestamp(pipeline.updated_at),
    )


def run_message(run: Run) -> pipeline_run_pb2.PipelineRun:
    """A run."""
    return pipeline_run_pb2.PipelineRun(
        id=run.id,
        organization_id=run.organization_id,
        pipeline_definition_id=run.pipeline_definition_id,
        definition_version=run.definition_version,
        subject_type=run.subject_type,
        subject_id=run.subject_id,
        status=run.status,
        current_stage_key=run.current_stage_key,
        variables=struct_of(run.variables),
        enrolled_by_user_id=run.enrolled_by_user_id,
        enroll_source=run.enroll_source,
        cancel_reason=run.cancel_reason,
        failure_reason=run.failure_reason,
        paused_at=timestamp(run.paused_at),
        started_at=timestamp(run.started_at),
        completed_at=timestamp(run.completed_at),
        cancelled_at=timestamp(run.cancelled_at),
        failed_at=timestamp(run.failed_at),
        branch_notes=[pipeline_run_pb2.BranchNote(**note) for note in run.branch_notes],
    )


def action_message(action: RunAction) -> pipeline_run_pb2.PipelineRunAction:
    """An action of a run."""
    return pipeline_run_pb2.PipelineRunAction(
        id=action.id,
        pipeline_run_id=action.pipeline_run_id,
        stage_key=action.stage_key,
        action_key=action.action_key,
        action_type=action.action_type,
        required=action.required,
        status=action.status,
        form_submission_id=action.form_submission_id,
        deal_id=action.deal_id,
        engagement_id=action.engagement_id,
        result=struct_of(action.result),
        completed_by_user_id=action.completed_by_user_id,
        completed_at=timestamp(action.completed_at),
        error_message=action.error_message,
        checklist=action.checklist,
    )


def schema_of(given: pipeline_pb2.PipelineSchema) -> Schema:
    """A graph as an author sent it."""
    return Schema(given.entry_stage_key, tuple(map(_stage, given.stages)))


def _stage(given: pipeline_pb2.PipelineStage) -> Stage:
    actions = tuple(Action(each.key, each.type, each.required, plain(each.config)) for each in given.actions)
    branches = tuple(Branch(each.expression, each.target) for each in given.branches)
    return Stage(given.key, given.name, given.terminal, actions, branches)


def _schema_message(schema: Schema) -> pipeline_pb2.PipelineSchema:
    return pipeline_pb2.PipelineSchema(
        entry_stage_key=schema.entry_stage_key, stages=map(_stage_message, schema.stages)
    )


def _stage_message(stage: Stage) -> pipeline_pb2.PipelineStage:
    return pipeline_pb2.PipelineStage(
        key=stage.key,
        name=stage.name,
        terminal=stage.terminal,
        actions=[
            pipeline_pb2.PipelineAction(
                key=each.key, type=each.type, required=each.required, config=struct_of(each.config)
            )
            for each in stage.actions
        ],
        branches=[
            pipeline_pb2.PipelineBranch(expression=each.expression, target=each.target) for each in stage.branches
        ],
    )
