"""A pipelines service with its neighbours, and tiny verbs to call it with."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from crm.pipelines.v1 import pipeline_pb2, pipeline_run_pb2
from crm.pipelines.v1 import pipeline_run_service_pb2 as run_pb
from crm.pipelines.v1 import pipeline_service_pb2 as pb
from crm.pipelines.v1 import run_event_service_pb2 as event_pb
from crm.pipelines.v1.pipeline_run_service_pb2_grpc import CrmPipelineRunServiceStub
from crm.pipelines.v1.pipeline_service_pb2_grpc import CrmPipelineServiceStub
from crm.pipelines.v1.run_event_service_pb2_grpc import RunEventServiceStub
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from services.runtime.db import Transaction
from services.runtime.values import plain, struct_of
from tests.harness import Failure, Houses, Someone, failing
from tests.pipelines.drawings import Drawing, kyc
from tests.pipelines.neighbours import Contacts, Forms, moved_in

Outcome = tuple[grpc.StatusCode, str, list[str]]


def outcome(failure: Failure) -> Outcome:
    """A failure as the contract tells it: code, reason, fields."""
    return failure.code, failure.reason, failure.fields


class Crm:
    """The pipelines service as one caller uses it; `by` answers it as another caller does."""

    def __init__(self, houses: Houses, who: Someone, forms: Forms, contacts: Contacts) -> None:
        self.houses, self.who, self.forms, self.contacts = houses, who, forms, contacts
        self.pipelines = CrmPipelineServiceStub(houses.channel("pipelines"))
        self.runs = CrmPipelineRunServiceStub(houses.channel("pipelines"))
        self.events = RunEventServiceStub(houses.channel("pipelines"))

    def by(self, who: Someone) -> "Crm":
        return Crm(self.houses, who, self.forms, self.contacts)

    def failing(self, method: Any, request: Message) -> Outcome:
        return outcome(failing(method, request, self.who))

    def draft(self, schema: Drawing | None = None, **members: Any) -> pipeline_pb2.Pipeline:
        return self.pipelines.CreatePipeline(new_pipeline(schema, **members), metadata=self.who.metadata()).data

    def publish(self, pipeline_id: int) -> pipeline_pb2.Pipeline:
        request = pb.PublishPipelineRequest(id=pipeline_id)
        return self.pipelines.PublishPipeline(request, metadata=self.who.metadata()).data

    def published(self, schema: Drawing | None = None, **members: Any) -> pipeline_pb2.Pipeline:
        return self.publish(self.draft(schema, **members).id)

    def fork(self, pipeline_id: int) -> pipeline_pb2.Pipeline:
        request = pb.CreatePipelineDraftRequest(id=pipeline_id)
        return self.pipelines.CreatePipelineDraft(request, metadata=self.who.metadata()).data

    def change(self, pipeline_id: int, schema: Drawing | None = None, **members: Any) -> pipeline_pb2.Pipeline:
        request = changed_pipeline(pipeline_id, schema, **members)
        return self.pipelines.UpdatePipeline(request, metadata=self.who.metadata()).data

    def archive(self, pipeline_id: int) -> pipeline_pb2.Pipeline:
        request = pb.ArchivePipelineRequest(id=pipeline_id)
        return self.pipelines.ArchivePipeline(request, metadata=self.who.metadata()).data

    def delete(self, pipeline_id: int) -> pb.DeletePipelineResponse:
        return self.pipelines.DeletePipeline(pb.DeletePipelineRequest(id=pipeline_id), metadata=self.who.metadata())

    def read(self, pipeline_id: int) -> pipeline_pb2.Pipeline:
        return self.pipelines.GetPipeline(pb.GetPipelineRequest(id=pipeline_id), metadata=self.who.metadata()).data

    def find(self, **members: Any) -> pb.ListPipelinesResponse:
        return self.pipelines.ListPipelines(pb.ListPipelinesRequest(**members), metadata=self.who.metadata())

    def enrol(self, pipeline_id: int, contact_id: int = 1) -> pipeline_run_pb2.PipelineRun:
        request = run_pb.EnrollContactRequest(contact_id=contact_id, pipeline_definition_id=pipeline_id)
        return self.runs.EnrollContact(request, metadata=self.who.metadata()).data

    def run(self, run_id: int) -> pipeline_run_pb2.PipelineRun:
        return self.runs.GetPipelineRun(run_pb.GetPipelineRunRequest(id=run_id), metadata=self.who.metadata()).data

    def find_runs(self, **members: Any) -> run_pb.ListPipelineRunsResponse:
        return self.runs.ListPipelineRuns(run_pb.ListPipelineRunsRequest(**members), metadata=self.who.metadata())

    def timeline(self, run_id: int) -> list[pipeline_run_pb2.PipelineRunAction]:
        request = run_pb.ListPipelineRunActionsRequest(run_id=run_id)
        return list(self.runs.ListPipelineRunActions(request, metadata=self.who.metadata()).data)

    def pause(self, run_id: int) -> pipeline_run_pb2.PipelineRun:
        return self.runs.PausePipelineRun(run_pb.PausePipelineRunRequest(id=run_id), metadata=self.who.metadata()).data

    def resume(self, run_id: int) -> pipeline_run_pb2.PipelineRun:
        return self.runs.ResumePipelineRun(
            run_pb.ResumePipelineRunRequest(id=run_id), metadata=self.who.metadata()
        ).data

    def cancel(self, run_id: int, reason: str = "no longer needed") -> pipeline_run_pb2.PipelineRun:
        request = run_pb.CancelPipelineRunRequest(id=run_id, reason=reason)
        return self.runs.CancelPipelineRun(request, metadata=self.who.metadata()).data

    def restart(self, run_id: int, stage_key: str = "review") -> pipeline_run_pb2.PipelineRun:
        request = run_pb.RestartPipelineRunRequest(id=run_id, from_stage_key=stage_key)
        return self.runs.RestartPipelineRun(request, metadata=self.who.metadata()).data

    def tick(self, run_id: int, action_id: int, **items: bool) -> pipeline_run_pb2.PipelineRunAction:
        request = run_pb.UpdateChecklistActionRequest(run_id=run_id, action_id=action_id, items=items)
        return self.runs.UpdateChecklistAction(request, metadata=self.who.metadata()).data

    def skip(self, run_id: int, action_id: int) -> pipeline_run_pb2.PipelineRunAction:
        request = run_pb.SkipPipelineRunActionRequest(run_id=run_id, action_id=action_id)
        return self.runs.SkipPipelineRunAction(request, metadata=self.who.metadata()).data

    def _service(self) -> Someone:
        """Millrace itself, acting for this caller."""
        return self.houses.service(organization_id=self.who.organization_id, user_id=self.who.user_id)

    def submitted(self, action_id: int, submission_id: int = 99, contact_id: int = 1, **members: Any) -> None:
        """Forms tells of a submission; of form 10 and with kyc_status approved unless members say otherwise."""
        values = members.pop("values", {"kyc_status": "approved"})
        request = event_pb.CompleteFormActionRequest(
            action_id=action_id,
            form_submission_id=submission_id,
            contact_id=contact_id,
            values=struct_of(values),
            **{"form_definition_id": 10, **members},
        )
        self.events.CompleteFormAction(request, metadata=self._service().metadata())

    def entered(self, contact_id: int, contact_stage_id: int, **metadata: str) -> None:
        """Contacts tells of a contact that entered a stage."""
        request = event_pb.EnterContactStageRequest(contact_id=contact_id, contact_stage_id=contact_stage_id)
        self.events.EnterContactStage(request, metadata=self._service().metadata(**metadata))

    def deleted(self, contact_id: int) -> None:
        """Contacts tells of a contact that is gone."""
        request = event_pb.CancelSubjectRunsRequest(subject_type="contact", subject_id=contact_id)
        self.events.CancelSubjectRuns(request, metadata=self._service().metadata())


def new_pipeline(schema: Drawing | None = None, **members: Any) -> pb.CreatePipelineRequest:
    """The walkthrough's pipeline, unless drawn otherwise."""
    made = pb.CreatePipelineRequest(**{"name": "KYC Onboarding", "subject_type": "contact", **members})
    ParseDict(kyc() if schema is None else schema, made.schema)
    made.schema.SetInParent()
    return made


def changed_pipeline(pipeline_id: int, schema: Drawing | None = None, **members: Any) -> pb.UpdatePipelineRequest:
    made = pb.UpdatePipelineRequest(id=pipeline_id, **members)
    if schema is not None:
        ParseDict(schema, made.schema)
    return made


def variables(run: pipeline_run_pb2.PipelineRun) -> dict[str, Any]:
    assert run.HasField("variables")
    return plain(run.variables)


def ticket(row: pipeline_run_pb2.PipelineRunAction) -> tuple[str, str, str]:
    """What a row is, in short."""
    return row.stage_key, row.action_key, row.status


@pytest.fixture
def forms(houses: Houses) -> Iterator[Forms]:
    made = Forms()
    made.add(10)
    with moved_in(houses, "forms", made.register):
        yield made


@pytest.fixture
def contacts(houses: Houses) -> Iterator[Contacts]:
    made = Contacts()
    with moved_in(houses, "contacts", made.register):
        yield made


@pytest.fixture
def crm(houses: Houses, forms: Forms, contacts: Contacts) -> Crm:
    """The pipelines service as an administrator of organisation 1 uses it."""
    houses.start("pipelines")
    return Crm(houses, houses.someone(), forms, contacts)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many statements each rpc has run, by the rpc's short name."""
    counted: Counter[str] = Counter()
    execute = Transaction._execute

    def counting(tx: Transaction, wanted: Any, parameters: dict[str, Any]) -> Any:
        counted[tx.who.rpc.rpartition("/")[2]] += 1
        return execute(tx, wanted, parameters)

    monkeypatch.setattr(Transaction, "_execute", counting)
    return counted
