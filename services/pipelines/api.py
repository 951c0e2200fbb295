"""Pipelines, their runs, and what other services tell of, over gRPC."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import structlog
from crm.pipelines.v1 import pipeline_run_service_pb2 as run_pb
from crm.pipelines.v1 import pipeline_run_service_pb2_grpc as run_service
from crm.pipelines.v1 import pipeline_service_pb2 as pb
from crm.pipelines.v1 import pipeline_service_pb2_grpc as service
from crm.pipelines.v1 import run_event_service_pb2 as event_pb
from crm.pipelines.v1 import run_event_service_pb2_grpc as event_service
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from services.pipelines import lifecycle, progression, rules, store
from services.pipelines.clients import Contacts, Forms
from services.pipelines.definition import CONTACT, DRAFT, Pipeline
from services.pipelines.errors import PipelineAlreadyEnrolled, RunActionNotFound
from services.pipelines.messages import action_message, pipeline_message, run_message, schema_of
from services.pipelines.run import AUTO, MANUAL, Journey
from services.runtime.callers import Caller, caller
from services.runtime.db import Database
from services.runtime.errors import Violation, report
from services.runtime.messages import refuse_immutable
from services.runtime.server import meta
from services.runtime.values import plain

log = structlog.get_logger()

IMMUTABLE = ("name", "subject_type")
MUTABLE = ("description", "schema", "auto_enroll_contact_stage_id")
FILTERS = ("status", "subject_type", "name")
RUN_FILTERS = ("pipeline_definition_id", "subject_type", "subject_id", "status")


class Pipelines(service.CrmPipelineServiceServicer):
    """spec v1 §4, §6.5."""

    def __init__(self, db: Database, forms: Forms, contacts: Contacts) -> None:
        self._db, self._forms, self._contacts = db, forms, contacts

    def CreatePipeline(
        self, request: pb.CreatePipelineRequest, context: grpc.ServicerContext
    ) -> pb.CreatePipelineResponse:
        """Starts a family."""
        who = caller(context)
        draft = _drafted(who, request)
        with self._db.checks(who):
            self._check(who, draft, MUTABLE)
        with self._db.transaction(who) as tx:
            version = store.new_family(tx, draft.name)
            made = store.create(tx, replace(draft, id=tx.new_id("pipeline"), version=version))
            return tx.reply(pb.CreatePipelineResponse(data=pipeline_message(made), meta=meta(who)))

    def GetPipeline(self, request: pb.GetPipelineRequest, context: grpc.ServicerContext) -> pb.GetPipelineResponse:
        """Reads one version."""
        who = caller(context)
        with self._db.reading(who) as tx:
            found = store.get(tx, request.id)
        return pb.GetPipelineResponse(data=pipeline_message(found), meta=meta(who))

    def ListPipelines(
        self, request: pb.ListPipelinesRequest, context: grpc.ServicerContext
    ) -> pb.ListPipelinesResponse:
        """Lists versions."""
        with self._db.reading(caller(context)) as tx:
            found, about = store.LIVE.page(tx, request, **_given(request, FILTERS))
        return pb.ListPipelinesResponse(data=map(pipeline_message, found), meta=about)

    def UpdatePipeline(
        self, request: pb.UpdatePipelineRequest, context: grpc.ServicerContext
    ) -> pb.UpdatePipelineResponse:
        """Changes a draft."""
        who = caller(context)
        refuse_immutable(request, IMMUTABLE, MUTABLE)
        with self._db.checks(who):
            with self._db.reading(who) as tx:
                draft = store.get(tx, request.id)
            lifecycle.check_draft(draft)
            self._check(who, _changed(draft, request), [name for name in MUTABLE if _has(request, name)])
        with self._db.transaction(who) as tx:
            draft = store.lock(tx, request.id)
            lifecycle.check_draft(draft)
            saved = store.save(tx, _changed(draft, request))
            return tx.reply(pb.UpdatePipelineResponse(data=pipeline_message(saved), meta=meta(who)))

    def PublishPipeline(
        self, request: pb.PublishPipelineRequest, context: grpc.ServicerContext
    ) -> pb.PublishPipelineResponse:
        """Freezes a draft and opens it for enrolments."""
        who = caller(context)
        with self._db.checks(who):
            with self._db.reading(who) as tx:
                judged = store.get(tx, request.id)
            lifecycle.check_publishable(judged, self._forms.named_in(who, judged.graph))
        with self._db.transaction(who) as tx:
            published = lifecycle.publish(store.lock(tx, request.id), judged, _now())
            store.save(tx, published)
            return tx.reply(pb.PublishPipelineResponse(data=pipeline_message(published), meta=meta(who)))

    def CreatePipelineDraft(
        self, request: pb.CreatePipelineDraftRequest, context: grpc.ServicerContext
    ) -> pb.CreatePipelineDraftResponse:
        """Forks a published version."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            source = store.get(tx, request.id)
            lifecycle.check_forkable(source)
            number, version = tx.new_id("pipeline"), store.next_version(tx, source.name)
            draft = lifecycle.fork(source, number=number, version=version, user_id=who.user_id, at=_now())
            made = store.create(tx, draft)
            return tx.reply(pb.CreatePipelineDraftResponse(data=pipeline_message(made), meta=meta(who)))

    def ArchivePipeline(
        self, request: pb.ArchivePipelineRequest, context: grpc.ServicerContext
    ) -> pb.ArchivePipelineResponse:
        """Closes a version for enrolments, for good."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            pipeline = store.lock(tx, request.id)
            archived = lifecycle.archive(pipeline, _now())
            if archived is not pipeline:
                store.save(tx, archived)
            return tx.reply(pb.ArchivePipelineResponse(data=pipeline_message(archived), meta=meta(who)))

    def DeletePipeline(
        self, request: pb.DeletePipelineRequest, context: grpc.ServicerContext
    ) -> pb.DeletePipelineResponse:
        """Takes a version out of sight."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            pipeline = store.lock(tx, request.id)
            lifecycle.check_deletable(pipeline, has_runs=store.has_runs(tx, pipeline.id))
            store.drop(tx, pipeline, _now())
            return tx.reply(pb.DeletePipelineResponse(data=Empty(), meta=meta(who)))

    def _check(self, who: Caller, pipeline: Pipeline, given: Collection[str]) -> None:
        """Everything that can be wrong with what an author gave. Raises Invalid, ContactStageNotFound."""
        found = list[Violation]()
        if "schema" in given:
            found += rules.wrong_schema(pipeline.graph, self._forms.named_in(who, pipeline.graph))
        if "auto_enroll_contact_stage_id" in given:
            found += rules.wrong_trigger(pipeline)
        report(found)
        if "auto_enroll_contact_stage_id" in given:
            self._contacts.check_stage(who, pipeline.auto_enroll_contact_stage_id)


class PipelineRuns(run_service.CrmPipelineRunServiceServicer):
    """spec v1 §5, §6.6, §6.8."""

    def __init__(self, db: Database, contacts: Contacts) -> None:
        self._db, self._contacts = db, contacts

    def EnrollContact(
        self, request: run_pb.EnrollContactRequest, context: grpc.ServicerContext
    ) -> run_pb.EnrollContactResponse:
        """Starts a run for a contact."""
        who = caller(context)
        with self._db.checks(who):
            self._contacts.check_write_access(who, request.contact_id)
        with self._db.transaction(who) as tx:
            pipeline, enrolled = store.to_enrol(tx, request.pipeline_definition_id, request.contact_id)
            lifecycle.check_enrollable(pipeline, CONTACT, enrolled=enrolled)
            begun = _enrolled(pipeline, tx.new_id("pipeline_run"), request.contact_id, who, MANUAL)
            if not store.add_runs(tx, [begun]):
                raise PipelineAlreadyEnrolled()
            return tx.reply(run_pb.EnrollContactResponse(data=run_message(begun.run), meta=meta(who)))

    def GetPipelineRun(
        self, request: run_pb.GetPipelineRunRequest, context: grpc.ServicerContext
    ) -> run_pb.GetPipelineRunResponse:
        """Reads one run."""
        who = caller(context)
        with self._db.reading(who) as tx:
            found = store.get_run(tx, request.id)
        return run_pb.GetPipelineRunResponse(data=run_message(found), meta=meta(who))

    def ListPipelineRuns(
        self, request: run_pb.ListPipelineRunsRequest, context: grpc.ServicerContext
    ) -> run_pb.ListPipelineRunsResponse:
        """Lists runs."""
        with self._db.reading(caller(context)) as tx:
            found, about = store.RUNS.page(tx, request, **_given(request, RUN_FILTERS))
        return run_pb.ListPipelineRunsResponse(data=map(run_message, found), meta=about)

    def ListPipelineRunActions(
        self, request: run_pb.ListPipelineRunActionsRequest, context: grpc.ServicerContext
    ) -> run_pb.ListPipelineRunActionsResponse:
        """Lists a run's actions whole."""
        who = caller(context)
        with self._db.reading(who) as tx:
            found = store.timeline(tx, request.run_id)
        return run_pb.ListPipelineRunActionsResponse(data=map(action_message, found), meta=meta(who))

    def CancelPipelineRun(
        self, request: run_pb.CancelPipelineRunRequest, context: grpc.ServicerContext
    ) -> run_pb.CancelPipelineRunResponse:
        """Ends an open run."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            journey = store.lock_run(tx, request.id)
            moved = store.save_run(tx, journey, progression.cancel(journey, reason=request.reason, at=_now()))
            return tx.reply(run_pb.CancelPipelineRunResponse(data=run_message(moved.run), meta=meta(who)))

    def PausePipelineRun(
        self, request: run_pb.PausePipelineRunRequest, context: grpc.ServicerContext
    ) -> run_pb.PausePipelineRunResponse:
        """Freezes a running run."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            journey = store.lock_run(tx, request.id)
            moved = store.save_run(tx, journey, progression.pause(journey, at=_now()))
            return tx.reply(run_pb.PausePipelineRunResponse(data=run_message(moved.run), meta=meta(who)))

    def ResumePipelineRun(
        self, request: run_pb.ResumePipelineRunRequest, context: grpc.ServicerContext
    ) -> run_pb.ResumePipelineRunResponse:
        """Sets a paused run going again."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            journey = store.lock_run(tx, request.id)
            moved = store.save_run(tx, journey, progression.resume(journey, at=_now()))
            return tx.reply(run_pb.ResumePipelineRunResponse(data=run_message(moved.run), meta=meta(who)))

    def RestartPipelineRun(
        self, request: run_pb.RestartPipelineRunRequest, context: grpc.ServicerContext
    ) -> run_pb.RestartPipelineRunResponse:
        """Rewinds a run to a stage."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            journey = store.lock_run_to_restart(tx, request.id)
            moved = store.save_run(tx, journey, progression.restart(journey, request.from_stage_key, at=_now()))
            return tx.reply(run_pb.RestartPipelineRunResponse(data=run_message(moved.run), meta=meta(who)))

    def UpdateChecklistAction(
        self, request: run_pb.UpdateChecklistActionRequest, context: grpc.ServicerContext
    ) -> run_pb.UpdateChecklistActionResponse:
        """Ticks items of a checklist."""
        who, action_id = caller(context), request.action_id
        with self._db.transaction(who) as tx:
            journey = store.lock_run(tx, request.run_id)
            moved = progression.tick(journey, action_id, items=request.items, user_id=who.user_id, at=_now())
            row = store.save_run(tx, journey, moved).known_action(action_id)
            return tx.reply(run_pb.UpdateChecklistActionResponse(data=action_message(row), meta=meta(who)))

    def SkipPipelineRunAction(
        self, request: run_pb.SkipPipelineRunActionRequest, context: grpc.ServicerContext
    ) -> run_pb.SkipPipelineRunActionResponse:
        """Passes over an action the stage does not wait for."""
        who, action_id = caller(context), request.action_id
        with self._db.transaction(who) as tx:
            journey = store.lock_run(tx, request.run_id)
            row = store.save_run(tx, journey, progression.skip(journey, action_id, at=_now())).known_action(action_id)
            return tx.reply(run_pb.SkipPipelineRunActionResponse(data=action_message(row), meta=meta(who)))


class RunEvents(event_service.RunEventServiceServicer):
    """What other services ask and tell; not reachable through the gateway."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def CheckFormAction(
        self, request: event_pb.CheckFormActionRequest, context: grpc.ServicerContext
    ) -> event_pb.CheckFormActionResponse:
        """Whether a form may be submitted for an action."""
        with self._db.reading(caller(context)) as tx:
            found = store.action_with_subject(tx, request.action_id)
        if found is None:
            raise RunActionNotFound(field="context_id")
        refused = progression.refusal(
            *found, form_definition_id=request.form_definition_id, contact_id=request.contact_id
        )
        if refused:
            raise refused
        return event_pb.CheckFormActionResponse()

    def CompleteFormAction(
        self, request: event_pb.CompleteFormActionRequest, context: grpc.ServicerContext
    ) -> event_pb.CompleteFormActionResponse:
        """A submission completed a form action."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            journey = store.lock_run_of_action(tx, request.action_id)
            if journey is None or (moved := _with_submission(journey, request, who)) is journey:
                _log_unused(who, request)
            else:
                store.save_run(tx, journey, moved)
            return tx.reply(event_pb.CompleteFormActionResponse())

    def EnterContactStage(
        self, request: event_pb.EnterContactStageRequest, context: grpc.ServicerContext
    ) -> event_pb.EnterContactStageResponse:
        """A contact entered a stage."""
        who, contact_id = caller(context), request.contact_id
        with self._db.transaction(who) as tx:
            wanted = store.triggered(tx, request.contact_stage_id, contact_id)
            store.add_runs(tx, [_enrolled(each, tx.new_id("pipeline_run"), contact_id, who, AUTO) for each in wanted])
            return tx.reply(event_pb.EnterContactStageResponse())

    def CancelSubjectRuns(
        self, request: event_pb.CancelSubjectRunsRequest, context: grpc.ServicerContext
    ) -> event_pb.CancelSubjectRunsResponse:
        """A contact or deal was deleted (spec v1 D71)."""
        who, reason = caller(context), f"{request.subject_type} deleted"
        with self._db.transaction(who) as tx:
            journeys = store.lock_open_runs(tx, request.subject_type, request.subject_id)
            store.save_runs(tx, journeys, [progression.cancel(each, reason=reason, at=_now()) for each in journeys])
            return tx.reply(event_pb.CancelSubjectRunsResponse())


def _drafted(who: Caller, request: pb.CreatePipelineRequest) -> Pipeline:
    """The first version of a family, without its numbers."""
    at = _now()
    return Pipeline(
        id=0,
        organization_id=who.organization_id,
        name=request.name,
        description=request.description,
        subject_type=request.subject_type,
        version=0,
        status=DRAFT,
        schema=schema_of(request.schema).document(),
        auto_enroll_contact_stage_id=request.auto_enroll_contact_stage_id,
        created_by=who.user_id,
        published_at=None,
        archived_at=None,
        created_at=at,
        updated_at=at,
    )


def _changed(pipeline: Pipeline, request: pb.UpdatePipelineRequest) -> Pipeline:
    changed: dict[str, Any] = {name: getattr(request, name) for name in MUTABLE if _has(request, name)}
    if "schema" in changed:
        changed["schema"] = schema_of(request.schema).document()
    return replace(pipeline, **changed, updated_at=_now())


def _enrolled(pipeline: Pipeline, run_id: int, contact_id: int, who: Caller, source: str) -> Journey:
    return progression.enrol(
        pipeline, run_id=run_id, subject_id=contact_id, user_id=who.user_id, source=source, at=_now()
    )


def _with_submission(journey: Journey, request: event_pb.CompleteFormActionRequest, who: Caller) -> Journey:
    return progression.complete_form(
        journey,
        request.action_id,
        submission_id=request.form_submission_id,
        form_definition_id=request.form_definition_id,
        contact_id=request.contact_id,
        values=plain(request.values),
        user_id=who.user_id,
        at=_now(),
    )


def _log_unused(who: Caller, request: event_pb.CompleteFormActionRequest) -> None:
    """The submission stands for itself; somebody may ask why the run did not move."""
    log.warning(
        "run.submission_not_used",
        organization_id=who.organization_id,
        action_id=request.action_id,
        form_submission_id=request.form_submission_id,
        request_id=who.request_id,
    )


def _has(request: Message, name: str) -> bool:
    return request.HasField(name)


def _given(request: Any, names: Sequence[str]) -> dict[str, Any]:
    """The filters of a list that are set."""
    return {name: value for name in names if (value := getattr(request, name))}


def _now() -> datetime:
    return datetime.now(UTC)
