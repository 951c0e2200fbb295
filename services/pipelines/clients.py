"""What pipelines asks other services, one question each."""

import grpc
from crm.contacts.v1 import record_service_pb2 as records_pb
from crm.contacts.v1.record_service_pb2_grpc import RecordServiceStub
from crm.forms.v1 import form_catalog_service_pb2 as forms_pb
from crm.forms.v1 import form_pb2
from crm.forms.v1.form_catalog_service_pb2_grpc import FormCatalogServiceStub

from services.pipelines.actions import MOST_FORMS, Form, form_ids, kind_of
from services.pipelines.definition import Schema
from services.pipelines.errors import ContactStageNotFound
from services.runtime.callers import Caller
from services.runtime.channels import ask


class Forms:
    """The forms service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._catalog = FormCatalogServiceStub(channel)

    def named_in(self, who: Caller, schema: Schema) -> dict[int, Form]:
        """Those of the forms a pipeline names that exist; nobody is asked when it names none."""
        ids = form_ids(schema)[:MOST_FORMS]
        if not ids:
            return {}
        found = ask(self._catalog.BatchGetForms, who, forms_pb.BatchGetFormsRequest(ids=ids))
        return {each.id: _form(each) for each in found.forms}


class Contacts:
    """The contacts service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._records = RecordServiceStub(channel)

    def check_write_access(self, who: Caller, contact_id: int) -> None:
        """Raises what contacts refuses: no such contact, or not the caller's to write."""
        ask(self._records.CheckWriteAccess, who, records_pb.CheckWriteAccessRequest(contact_id=contact_id))

    def check_stage(self, who: Caller, stage_id: int) -> None:
        """The stage that enrols by itself must exist; 0 is none. Raises ContactStageNotFound."""
        if not stage_id:
            return
        found = ask(self._records.BatchGetContactStages, who, records_pb.BatchGetContactStagesRequest(ids=[stage_id]))
        if not found.stages:
            raise ContactStageNotFound(field="auto_enroll_contact_stage_id")


def _form(form: form_pb2.Form) -> Form:
    return Form(
        published=form.status == "published",
        fields={each.key: kind_of(each.type) for each in form.schema.fields if each.kind != "section_header"},
    )
