"""The forms service among real neighbours, pipelines excepted, and the tiny verbs the tests speak in."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from crm.contacts.v1 import account_service_pb2 as accounts_pb
from crm.contacts.v1 import contact_pb2
from crm.contacts.v1 import contact_service_pb2 as contacts_pb
from crm.contacts.v1.account_service_pb2_grpc import CrmAccountServiceStub
from crm.contacts.v1.contact_service_pb2_grpc import CrmContactServiceStub
from crm.fields.v1 import custom_field_service_pb2 as fields_pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from crm.forms.v1 import form_pb2, form_submission_pb2
from crm.forms.v1 import form_service_pb2 as pb
from crm.forms.v1.form_catalog_service_pb2_grpc import FormCatalogServiceStub
from crm.forms.v1.form_service_pb2_grpc import CrmFormServiceStub
from crm.pipelines.v1 import run_event_service_pb2 as runs_pb
from crm.pipelines.v1 import run_event_service_pb2_grpc as runs_service
from google.protobuf.message import Message

from services.runtime.db import Transaction
from services.runtime.errors import Invalid, NotFound, Refused
from services.runtime.server import Wiring, start
from services.runtime.statements import Statement
from services.runtime.values import plain, plain_value, struct_of
from tests.harness import Failure, Houses, Someone, failing

STATUSES = ("pending", "approved", "rejected")


class RunActionNotFound(NotFound):
    """No such run action."""


class RunActionNotPending(Refused):
    """The run action is not pending."""


class RunActionMismatch(Invalid):
    """The run action is another form's or subject's."""

    status = Invalid.status
    reason = "ErrRunActionMismatch"


def options(*values: str) -> list[dict[str, str]]:
    """Choices whose labels follow from their values."""
    return [{"value": each, "label": each.title()} for each in values]


def inline(key: str, kind_of_value: str = "text", **members: Any) -> dict[str, Any]:
    """An inline field."""
    return {"key": key, "kind": "inline", "label": key.title(), "type": kind_of_value, **members}


def reference(key: str, definition_id: int, **members: Any) -> dict[str, Any]:
    """A field taken from a custom field."""
    return {
        "key": key,
        "kind": "reference",
        "label": key.title(),
        "custom_field_definition_id": definition_id,
        **members,
    }


def entry(field_key: str, definition_id: int, target: str = "contact") -> dict[str, Any]:
    """A write-back entry."""
    return {"field_key": field_key, "target": target, "custom_field_definition_id": definition_id}


def schema(*fields: dict[str, Any], write_back: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What a form asks."""
    return {"fields": list(fields), "write_back": list(write_back)}


def kyc(definition_id: int) -> dict[str, Any]:
    """The walkthrough's form (spec v1 §7)."""
    return schema(
        reference("kyc_status", definition_id, required=True),
        inline("id_type", "picklist", required=True, picklist_options=options("passport", "national_id", "drivers")),
        inline("id_number", required=True, validation={"max_length": 50}),
        write_back=[entry("kyc_status", definition_id)],
    )


ANSWERS = {"kyc_status": "approved", "id_type": "passport", "id_number": "AB123456"}


@dataclass
class Pipelines(runs_service.RunEventServiceServicer):
    """Pipelines, played: it knows form actions by id, and notes what it is told."""

    actions: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Pending actions: the form, contact and account each is for."""
    done: set[int] = field(default_factory=set)
    completed: list[runs_pb.CompleteFormActionRequest] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Idempotency keys of the completions."""
    while_checking: Callable[[], object] = lambda: None
    """Called inside CheckFormAction, for what comes in between."""

    def CheckFormAction(
        self, request: runs_pb.CheckFormActionRequest, context: grpc.ServicerContext
    ) -> runs_pb.CheckFormActionResponse:
        self.while_checking()
        if request.action_id in self.done:
            raise RunActionNotPending(field="context_id")
        if request.action_id not in self.actions:
            raise RunActionNotFound(field="context_id")
        if self.actions[request.action_id] != (request.form_definition_id, request.contact_id, request.account_id):
            raise RunActionMismatch(field="context_id")
        return runs_pb.CheckFormActionResponse()

    def CompleteFormAction(
        self, request: runs_pb.CompleteFormActionRequest, context: grpc.ServicerContext
    ) -> runs_pb.CompleteFormActionResponse:
        self.completed.append(request)
        self.keys.append(str(dict(context.invocation_metadata())["idempotency-key"]))
        self.done.add(request.action_id)
        return runs_pb.CompleteFormActionResponse()

    def EnterContactStage(
        self, request: runs_pb.EnterContactStageRequest, context: grpc.ServicerContext
    ) -> runs_pb.EnterContactStageResponse:
        return runs_pb.EnterContactStageResponse()

    def CancelSubjectRuns(
        self, request: runs_pb.CancelSubjectRunsRequest, context: grpc.ServicerContext
    ) -> runs_pb.CancelSubjectRunsResponse:
        return runs_pb.CancelSubjectRunsResponse()

    @contextmanager
    def open(self, houses: Houses) -> Iterator[None]:
        """Serves at pipelines' own address, behind the real guard."""

        def register(server: grpc.Server) -> list[str]:
            runs_service.add_RunEventServiceServicer_to_server(self, server)
            return [runs_pb.DESCRIPTOR.services_by_name["RunEventService"].full_name]

        server, _, _ = start(houses.settings("pipelines"), Wiring(register))
        try:
            yield
        finally:
            server.stop(None).wait()


class World:
    """What one caller does with forms; `by` answers the same for another caller."""

    def __init__(self, houses: Houses, pipelines: Pipelines, who: Someone) -> None:
        self.houses, self.pipelines, self.who = houses, pipelines, who
        self.forms = CrmFormServiceStub(houses.channel("forms"))
        self.catalog = FormCatalogServiceStub(houses.channel("forms"))
        self._fields = CrmCustomFieldServiceStub(houses.channel("fields"))
        self._contacts = CrmContactServiceStub(houses.channel("contacts"))
        self._accounts = CrmAccountServiceStub(houses.channel("contacts"))

    def by(self, role: str = "admin", **identity: int) -> "World":
        return World(self.houses, self.pipelines, self.houses.someone(role, **identity))

    def failing(self, rpc: str, request: Message, **extra: str) -> Failure:
        return failing(getattr(self.forms, rpc), request, self.who, **extra)

    # Forms

    def create(self, asked: dict[str, Any] | None = None, name: str = "KYC Verification", **rest: Any) -> form_pb2.Form:
        request = pb.CreateFormRequest(name=name, schema=form_pb2.FormSchema(**asked or {}), **rest)
        return self.forms.CreateForm(request, metadata=self.who.metadata()).data

    def get(self, form_id: int) -> form_pb2.Form:
        return self.forms.GetForm(pb.GetFormRequest(id=form_id), metadata=self.who.metadata()).data

    def update(self, form_id: int, **members: Any) -> form_pb2.Form:
        request = pb.UpdateFormRequest(id=form_id, **members)
        return self.forms.UpdateForm(request, metadata=self.who.metadata()).data

    def publish(self, form_id: int) -> form_pb2.Form:
        return self.forms.PublishForm(pb.PublishFormRequest(id=form_id), metadata=self.who.metadata()).data

    def fork(self, form_id: int) -> form_pb2.Form:
        request = pb.CreateDraftFromPublishedRequest(id=form_id)
        return self.forms.CreateDraftFromPublished(request, metadata=self.who.metadata()).data

    def archive(self, form_id: int) -> form_pb2.Form:
        return self.forms.ArchiveForm(pb.ArchiveFormRequest(id=form_id), metadata=self.who.metadata()).data

    def delete(self, form_id: int) -> pb.DeleteFormResponse:
        return self.forms.DeleteForm(pb.DeleteFormRequest(id=form_id), metadata=self.who.metadata())

    def list(self, **members: Any) -> pb.ListFormsResponse:
        return self.forms.ListForms(pb.ListFormsRequest(**members), metadata=self.who.metadata())

    def published(self, asked: dict[str, Any], name: str = "KYC Verification") -> form_pb2.Form:
        return self.publish(self.create(asked, name).id)

    # Submissions

    def submit(self, form_id: int, values: dict[str, Any], **members: Any) -> form_submission_pb2.FormSubmission:
        request = pb.SubmitFormRequest(form_definition_id=form_id, values=struct_of(values), **members)
        return self.forms.SubmitForm(request, metadata=self.who.metadata()).data

    def refused(self, form_id: int, values: dict[str, Any], **members: Any) -> Failure:
        return self.failing(
            "SubmitForm", pb.SubmitFormRequest(form_definition_id=form_id, values=struct_of(values), **members)
        )

    def submission(self, submission_id: int) -> form_submission_pb2.FormSubmission:
        request = pb.GetFormSubmissionRequest(id=submission_id)
        return self.forms.GetFormSubmission(request, metadata=self.who.metadata()).data

    def delete_submission(self, submission_id: int) -> pb.DeleteFormSubmissionResponse:
        request = pb.DeleteFormSubmissionRequest(id=submission_id)
        return self.forms.DeleteFormSubmission(request, metadata=self.who.metadata())

    def submissions(self, **members: Any) -> pb.ListFormSubmissionsResponse:
        return self.forms.ListFormSubmissions(pb.ListFormSubmissionsRequest(**members), metadata=self.who.metadata())

    # Neighbours

    def definition(self, key: str = "kyc_status", **members: Any) -> int:
        """A new custom field; a picklist of STATUSES on contacts unless told."""
        said: dict[str, Any] = {"object_type": "contact", "key": key, "label": key.title(), "field_type": "picklist"}
        said |= members
        if said["field_type"] in ("picklist", "multiselect"):
            said.setdefault("picklist_options", {"options": options(*STATUSES)})
        return self._fields.CreateCustomField(
            fields_pb.CreateCustomFieldRequest(**said), metadata=self.who.metadata()
        ).data.id

    def archive_definition(self, definition_id: int) -> None:
        request = fields_pb.ArchiveCustomFieldRequest(id=definition_id)
        self._fields.ArchiveCustomField(request, metadata=self.who.metadata())

    def change_options(self, definition_id: int, *values: str) -> None:
        members: dict[str, Any] = {"picklist_options": {"options": options(*values)}}
        request = fields_pb.UpdateCustomFieldRequest(id=definition_id, **members)
        self._fields.UpdateCustomField(request, metadata=self.who.metadata())

    def contact(self, **members: Any) -> int:
        request = contacts_pb.CreateContactRequest(**{"first_name": "Ada", **members})
        return self._contacts.CreateContact(request, metadata=self.who.metadata()).data.id

    def delete_contact(self, contact_id: int) -> None:
        self._contacts.DeleteContact(contacts_pb.DeleteContactRequest(id=contact_id), metadata=self.who.metadata())

    def account(self, **members: Any) -> int:
        request = accounts_pb.CreateAccountRequest(**{"name": "Acme", **members})
        return self._accounts.CreateAccount(request, metadata=self.who.metadata()).data.id

    def person(self, contact_id: int) -> contact_pb2.Contact:
        request = contacts_pb.GetContactRequest(id=contact_id)
        return self._contacts.GetContact(request, metadata=self.who.metadata()).data

    def fields_of(self, contact_id: int) -> dict[str, Any]:
        """A contact's custom fields."""
        return plain(self.person(contact_id).custom_fields)

    def fields_of_account(self, account_id: int) -> dict[str, Any]:
        """An account's custom fields."""
        request = accounts_pb.GetAccountRequest(id=account_id)
        return plain(self._accounts.GetAccount(request, metadata=self.who.metadata()).data.custom_fields)


def rows(submission: form_submission_pb2.FormSubmission) -> list[tuple[str, str, Any, Any]]:
    """A write_back_result in short: field, status, old and new value. Both values must be on the wire, null or not."""
    result = submission.write_back_result
    assert all(each.HasField("old_value") and each.HasField("new_value") for each in result)
    assert all(bool(each.error) == (each.status != "applied") for each in result)
    return [(each.field_key, each.status, plain_value(each.old_value), plain_value(each.new_value)) for each in result]


@contextmanager
def statements() -> Iterator[list[str]]:
    """The SQL that transactions of this process run meanwhile."""
    run: list[str] = []
    execute = Transaction._execute

    def noting(tx: Transaction, wanted: Statement[Any], parameters: dict[str, Any]) -> Any:
        run.append(wanted.sql)
        return execute(tx, wanted, parameters)

    Transaction._execute = noting  # type: ignore[assignment,method-assign]
    try:
        yield run
    finally:
        Transaction._execute = execute  # type: ignore[method-assign]
