"""What each rpc of the walkthrough costs the database: statements per call, counted where they are run.

A get is one statement, a list two, a create three, a change of state four, outbox rows included. An Idempotency-Key
adds at most two.
"""

from collections import defaultdict
from typing import Any

import pytest
from crm.contacts.v1 import contact_service_pb2 as contacts_pb
from crm.contacts.v1.contact_service_pb2_grpc import CrmContactServiceStub
from crm.contacts.v1.record_service_pb2 import SeedOrganizationRequest
from crm.contacts.v1.record_service_pb2_grpc import RecordServiceStub
from crm.fields.v1 import custom_field_service_pb2 as fields_pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from crm.forms.v1 import form_service_pb2 as forms_pb
from crm.forms.v1.form_service_pb2_grpc import CrmFormServiceStub
from crm.pipelines.v1 import pipeline_run_service_pb2 as runs_pb
from crm.pipelines.v1 import pipeline_service_pb2 as pipelines_pb
from crm.pipelines.v1.pipeline_run_service_pb2_grpc import CrmPipelineRunServiceStub
from crm.pipelines.v1.pipeline_service_pb2_grpc import CrmPipelineServiceStub
from google.protobuf.json_format import ParseDict

from services import SERVICES
from services.runtime import server
from tests.harness import Houses, Someone
from tests.journeys.kyc import FIELD, form_body, pipeline_body

BOUNDS = {"Get": 1, "List": 2, "Check": 1, "Judge": 1, "Batch": 1, "Create": 3, "Enroll": 3}
"""By the rpc's first word; any other changes a state."""
CHANGE = 4
WITH_KEY = 2

Counted = dict[str, list[int]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Statements of every call, by rpc, as the servers log them."""
    seen: Counted = defaultdict(list)

    def log(*, rpc: str, statements: int, **_members: Any) -> None:
        seen[rpc.rpartition("/")[2]].append(statements)

    monkeypatch.setattr(server, "access_log", lambda: log)
    return seen


@pytest.fixture
def system(counted: Counted, houses: Houses) -> Houses:
    """Every service in this process, and the organisation's stages."""
    houses.start(*SERVICES)
    RecordServiceStub(houses.channel("contacts")).SeedOrganization(
        SeedOrganizationRequest(), metadata=houses.service().metadata()
    )
    return houses


def test_no_call_of_the_walkthrough_runs_more_statements_than_its_kind_may(system: Houses, counted: Counted) -> None:
    _walk(system, system.someone())
    over = {rpc: most for rpc, all_of in counted.items() if (most := max(all_of)) > _bound(rpc)}
    assert over == {}
    assert counted["UpdateContact"] != [0]
    assert {"CreateCustomField", "SubmitForm", "CompleteFormAction", "EnterContactStage", "PublishPipeline"} <= set(
        counted
    )


def test_an_idempotency_key_adds_at_most_two(system: Houses, counted: Counted) -> None:
    contacts = CrmContactServiceStub(system.channel("contacts"))
    who = system.someone()
    request = contacts_pb.CreateContactRequest(first_name="Ada", contact_stage_id=3)
    first = contacts.CreateContact(request, metadata=who.metadata(idempotency_key="once"))
    again = contacts.CreateContact(request, metadata=who.metadata(idempotency_key="once"))
    assert first == again
    made, repeated = counted["CreateContact"]
    assert made <= BOUNDS["Create"] + WITH_KEY
    assert repeated <= WITH_KEY


def _bound(rpc: str) -> int:
    # Events arrive with an idempotency key of their own.
    events = {"CompleteFormAction", "EnterContactStage", "CancelSubjectRuns", "SeedOrganization"}
    bound = next((bound for word, bound in BOUNDS.items() if rpc.startswith(word)), CHANGE)
    return bound + (WITH_KEY if rpc in events else 0)


def _walk(system: Houses, me: Someone) -> None:
    """Every rpc that the walkthrough and its variants call."""
    contacts = CrmContactServiceStub(system.channel("contacts"))
    fields = CrmCustomFieldServiceStub(system.channel("fields"))
    forms = CrmFormServiceStub(system.channel("forms"))
    pipelines = CrmPipelineServiceStub(system.channel("pipelines"))
    runs = CrmPipelineRunServiceStub(system.channel("pipelines"))
    said = me.metadata()

    field = fields.CreateCustomField(ParseDict(FIELD, fields_pb.CreateCustomFieldRequest()), metadata=said).data
    fields.GetCustomField(fields_pb.GetCustomFieldRequest(id=field.id), metadata=said)
    fields.ListCustomFields(fields_pb.ListCustomFieldsRequest(object_type="contact"), metadata=said)
    fields.UpdateCustomField(fields_pb.UpdateCustomFieldRequest(id=field.id, label="KYC"), metadata=said)
    form = forms.CreateForm(ParseDict(form_body(field.id), forms_pb.CreateFormRequest()), metadata=said).data
    forms.UpdateForm(forms_pb.UpdateFormRequest(id=form.id, description="Who is it?"), metadata=said)
    forms.PublishForm(forms_pb.PublishFormRequest(id=form.id), metadata=said)
    forms.GetForm(forms_pb.GetFormRequest(id=form.id), metadata=said)
    forms.ListForms(forms_pb.ListFormsRequest(include_total=True), metadata=said)
    drawn = ParseDict(pipeline_body(form.id, 3), pipelines_pb.CreatePipelineRequest())
    pipeline = pipelines.CreatePipeline(drawn, metadata=said).data
    pipelines.PublishPipeline(pipelines_pb.PublishPipelineRequest(id=pipeline.id), metadata=said)
    pipelines.GetPipeline(pipelines_pb.GetPipelineRequest(id=pipeline.id), metadata=said)
    pipelines.ListPipelines(pipelines_pb.ListPipelinesRequest(include_total=True), metadata=said)

    contact = contacts.CreateContact(contacts_pb.CreateContactRequest(first_name="Ada"), metadata=said).data
    contacts.GetContact(contacts_pb.GetContactRequest(id=contact.id), metadata=said)
    contacts.ListContacts(contacts_pb.ListContactsRequest(include_total=True), metadata=said)
    contacts.ListContactStages(contacts_pb.ListContactStagesRequest(), metadata=said)
    contacts.UpdateContact(contacts_pb.UpdateContactRequest(id=contact.id, contact_stage_id=3), metadata=said)
    wanted = runs_pb.ListPipelineRunsRequest(subject_id=contact.id, include_total=True)
    (run,) = runs.ListPipelineRuns(wanted, metadata=said).data
    timeline = runs_pb.ListPipelineRunActionsRequest(run_id=run.id)
    (action,) = runs.ListPipelineRunActions(timeline, metadata=said).data
    submission = forms_pb.SubmitFormRequest(
        form_definition_id=form.id, contact_id=contact.id, context_type="pipeline_run_action", context_id=action.id
    )
    submission.values.update({"kyc_status": "approved", "id_type": "passport"})
    sent = forms.SubmitForm(submission, metadata=said).data
    forms.GetFormSubmission(forms_pb.GetFormSubmissionRequest(id=sent.id), metadata=said)
    forms.ListFormSubmissions(forms_pb.ListFormSubmissionsRequest(include_total=True), metadata=said)
    assert runs.GetPipelineRun(runs_pb.GetPipelineRunRequest(id=run.id), metadata=said).data.status == "completed"

    runs.RestartPipelineRun(runs_pb.RestartPipelineRunRequest(id=run.id, from_stage_key="review"), metadata=said)
    runs.PausePipelineRun(runs_pb.PausePipelineRunRequest(id=run.id), metadata=said)
    runs.ResumePipelineRun(runs_pb.ResumePipelineRunRequest(id=run.id), metadata=said)
    runs.CancelPipelineRun(runs_pb.CancelPipelineRunRequest(id=run.id, reason="enough"), metadata=said)
    enrol = runs_pb.EnrollContactRequest(contact_id=contact.id, pipeline_definition_id=pipeline.id)
    runs.EnrollContact(enrol, metadata=said)
    draft = pipelines.CreatePipelineDraft(pipelines_pb.CreatePipelineDraftRequest(id=pipeline.id), metadata=said).data
    pipelines.UpdatePipeline(pipelines_pb.UpdatePipelineRequest(id=draft.id, description="Again"), metadata=said)
    pipelines.DeletePipeline(pipelines_pb.DeletePipelineRequest(id=draft.id), metadata=said)
    pipelines.ArchivePipeline(pipelines_pb.ArchivePipelineRequest(id=pipeline.id), metadata=said)
    forms.CreateDraftFromPublished(forms_pb.CreateDraftFromPublishedRequest(id=form.id), metadata=said)
    forms.ArchiveForm(forms_pb.ArchiveFormRequest(id=form.id), metadata=said)
    forms.DeleteFormSubmission(forms_pb.DeleteFormSubmissionRequest(id=sent.id), metadata=said)
    fields.ArchiveCustomField(fields_pb.ArchiveCustomFieldRequest(id=field.id), metadata=said)
    contacts.DeleteContact(contacts_pb.DeleteContactRequest(id=contact.id), metadata=said)
