"""The customer-onboarding walkthrough by generated stubs, through the same port (spec v1 §7)."""

from collections.abc import Iterator

import grpc
import pytest
from crm.contacts.v1 import contact_service_pb2 as contacts_pb
from crm.contacts.v1.contact_service_pb2_grpc import CrmContactServiceStub
from crm.fields.v1 import custom_field_service_pb2 as fields_pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from crm.forms.v1 import form_service_pb2 as forms_pb
from crm.forms.v1.form_service_pb2_grpc import CrmFormServiceStub
from crm.pipelines.v1 import pipeline_run_service_pb2 as runs_pb
from crm.pipelines.v1 import pipeline_service_pb2 as pipelines_pb
from crm.pipelines.v1.pipeline_run_service_pb2_grpc import CrmPipelineRunServiceStub
from crm.pipelines.v1.pipeline_service_pb2_grpc import CrmPipelineServiceStub
from google.protobuf.json_format import MessageToDict, ParseDict

from tests.harness import Someone, failing
from tests.journeys.conftest import Organization
from tests.journeys.kyc import FIELD, form_body, pipeline_body


@pytest.fixture
def channel(organization: Organization) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(organization.system.grpc) as made:
        yield made


def test_the_walkthrough_by_stubs(organization: Organization, channel: grpc.Channel) -> None:
    me = Someone(organization.token, organization.id, organization.user_id)
    contacts, fields, forms = (
        CrmContactServiceStub(channel),
        CrmCustomFieldServiceStub(channel),
        CrmFormServiceStub(channel),
    )
    pipelines, runs = CrmPipelineServiceStub(channel), CrmPipelineRunServiceStub(channel)
    said = me.metadata()

    stages = contacts.ListContactStages(contacts_pb.ListContactStagesRequest(), metadata=said).data
    stage = next(each.id for each in stages if each.name == "engaged")
    field = fields.CreateCustomField(ParseDict(FIELD, fields_pb.CreateCustomFieldRequest()), metadata=said).data
    form = forms.CreateForm(ParseDict(form_body(field.id), forms_pb.CreateFormRequest()), metadata=said).data
    forms.PublishForm(forms_pb.PublishFormRequest(id=form.id), metadata=said)
    drawn = ParseDict(pipeline_body(form.id, stage), pipelines_pb.CreatePipelineRequest())
    pipeline = pipelines.CreatePipeline(drawn, metadata=said).data
    pipelines.PublishPipeline(pipelines_pb.PublishPipelineRequest(id=pipeline.id), metadata=said)

    contact = contacts.CreateContact(contacts_pb.CreateContactRequest(first_name="Ada"), metadata=said).data
    contacts.UpdateContact(contacts_pb.UpdateContactRequest(id=contact.id, contact_stage_id=stage), metadata=said)
    wanted = runs_pb.ListPipelineRunsRequest(subject_type="contact", subject_id=contact.id)
    (run,) = runs.ListPipelineRuns(wanted, metadata=said).data
    (action,) = runs.ListPipelineRunActions(runs_pb.ListPipelineRunActionsRequest(run_id=run.id), metadata=said).data
    assert (run.status, run.enroll_source, action.status) == ("running", "auto", "pending")

    again = runs_pb.EnrollContactRequest(contact_id=contact.id, pipeline_definition_id=pipeline.id)
    failure = failing(runs.EnrollContact, again, me)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ErrPipelineAlreadyEnrolled")

    submission = forms_pb.SubmitFormRequest(
        form_definition_id=form.id,
        contact_id=contact.id,
        context_type="pipeline_run_action",
        context_id=action.id,
    )
    submission.values.update({"kyc_status": "approved", "id_type": "passport", "id_number": "AB123456"})
    sent = forms.SubmitForm(submission, metadata=said).data
    assert [row.status for row in sent.write_back_result] == ["applied"]

    ended = runs.GetPipelineRun(runs_pb.GetPipelineRunRequest(id=run.id), metadata=said).data
    assert (ended.status, ended.current_stage_key) == ("completed", "done")
    assert MessageToDict(ended.variables)["kyc_form"]["id_number"] == "AB123456"


def test_a_call_without_a_token_is_refused_at_the_gateway_and_behind_it(
    organization: Organization, channel: grpc.Channel
) -> None:
    request = contacts_pb.GetContactRequest(id=1)
    assert failing(CrmContactServiceStub(channel).GetContact, request).code == grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(organization.system.address("contacts")) as direct:
        failure = failing(CrmContactServiceStub(direct).GetContact, request)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        forged = Someone(organization.token[:-4] + "AAAA", organization.id, 1)
        assert (
            failing(CrmContactServiceStub(direct).GetContact, request, forged).code == grpc.StatusCode.UNAUTHENTICATED
        )
