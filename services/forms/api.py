"""Forms over gRPC: versions and submissions for people, a catalogue for pipelines."""

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from crm.forms.v1 import form_catalog_service_pb2 as catalog_pb
from crm.forms.v1 import form_catalog_service_pb2_grpc as catalog_service
from crm.forms.v1 import form_pb2 as form_pb
from crm.forms.v1 import form_service_pb2 as pb
from crm.forms.v1 import form_service_pb2_grpc as service
from crm.forms.v1 import form_submission_pb2 as submission_pb
from crm.pipelines.v1.run_event_service_pb2 import CompleteFormActionRequest
from google.protobuf.empty_pb2 import Empty

from services.forms import answers, lifecycle, store, write_back
from services.forms.clients import COMPLETE_FORM_ACTION, Fields, Records, Runs
from services.forms.lifecycle import Form
from services.forms.schema import Entry, Field, Schema, drafted, violations
from services.forms.store import RUN_ACTION, Submission
from services.forms.write_back import Decision
from services.runtime.callers import Caller, caller
from services.runtime.db import Database, Transaction
from services.runtime.errors import Violation, report
from services.runtime.messages import refuse_immutable, timestamp
from services.runtime.server import meta
from services.runtime.values import plain, struct_of, value_of

FORM_FILTERS = ("status", "name")
SUBMISSION_FILTERS = ("form_definition_id", "contact_id", "account_id", "context_type", "context_id")


class Forms(service.CrmFormServiceServicer):
    """spec v1 §2, §6.2."""

    def __init__(self, db: Database, fields: Fields, records: Records, runs: Runs) -> None:
        self._db = db
        self._fields = fields
        self._records = records
        self._runs = runs

    def CreateForm(self, request: pb.CreateFormRequest, context: grpc.ServicerContext) -> pb.CreateFormResponse:
        """Begins a family."""
        who = caller(context)
        schema = self._checked(who, request.schema)
        with self._db.transaction(who) as tx:
            made = store.create(tx, name=request.name, description=request.description, schema=schema.document())
            return tx.reply(pb.CreateFormResponse(data=message(made), meta=meta(who)))

    def GetForm(self, request: pb.GetFormRequest, context: grpc.ServicerContext) -> pb.GetFormResponse:
        """Reads one version."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.GetFormResponse(data=message(store.get(tx, request.id)), meta=meta(who))

    def ListForms(self, request: pb.ListFormsRequest, context: grpc.ServicerContext) -> pb.ListFormsResponse:
        """Lists versions."""
        with self._db.reading(caller(context)) as tx:
            found, about = store.LIVE.page(tx, request, **_given(request, FORM_FILTERS))
        return pb.ListFormsResponse(data=map(message, found), meta=about)

    def UpdateForm(self, request: pb.UpdateFormRequest, context: grpc.ServicerContext) -> pb.UpdateFormResponse:
        """Changes a draft."""
        who = caller(context)
        refuse_immutable(request, ("name",), ("description", "schema"))
        description = request.description if request.HasField("description") else None
        schema = self._checked(who, request.schema) if request.HasField("schema") else None
        with self._db.transaction(who) as tx:
            changed = lifecycle.change(store.lock(tx, request.id), description=description, schema=schema)
            saved = store.save(tx, changed)
            return tx.reply(pb.UpdateFormResponse(data=message(saved), meta=meta(who)))

    def PublishForm(self, request: pb.PublishFormRequest, context: grpc.ServicerContext) -> pb.PublishFormResponse:
        """Freezes a draft and opens it for submissions."""
        who = caller(context)
        with self._db.checks(who):
            with self._db.reading(who) as tx:
                judged = store.get(tx, request.id).schema
            definitions = self._fields.definitions(who, Schema.of(judged).definition_ids())
        with self._db.transaction(who) as tx:
            published = lifecycle.publish(store.lock(tx, request.id), judged, definitions)
            saved = store.save(tx, published)
            return tx.reply(pb.PublishFormResponse(data=message(saved), meta=meta(who)))

    def CreateDraftFromPublished(
        self, request: pb.CreateDraftFromPublishedRequest, context: grpc.ServicerContext
    ) -> pb.CreateDraftFromPublishedResponse:
        """Forks a published version."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            source = store.lock(tx, request.id)
            lifecycle.refuse_unless_published(source)
            made = store.fork(tx, source)
            return tx.reply(pb.CreateDraftFromPublishedResponse(data=message(made), meta=meta(who)))

    def ArchiveForm(self, request: pb.ArchiveFormRequest, context: grpc.ServicerContext) -> pb.ArchiveFormResponse:
        """Closes a version for submissions, for good."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            form = store.lock(tx, request.id)
            archived = lifecycle.archive(form)
            if archived is not form:
                archived = store.save(tx, archived)
            return tx.reply(pb.ArchiveFormResponse(data=message(archived), meta=meta(who)))

    def DeleteForm(self, request: pb.DeleteFormRequest, context: grpc.ServicerContext) -> pb.DeleteFormResponse:
        """Takes a version out of sight."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            form = store.lock(tx, request.id)
            lifecycle.refuse_deletion(form, submitted=store.is_submitted(tx, form))
            store.delete(tx, form)
            return tx.reply(pb.DeleteFormResponse(data=Empty(), meta=meta(who)))

    def SubmitForm(self, request: pb.SubmitFormRequest, context: grpc.ServicerContext) -> pb.SubmitFormResponse:
        """Takes answers, writes them back, and completes the run action they are for."""
        who = caller(context)
        with self._db.checks(who):
            form, values = self._answered(who, request)
            self._ask_for_consent(who, request)
            decisions = self._decided(who, form, request, values)
        with self._db.transaction(who) as tx:
            rows = _write_back(tx, request, decisions)
            made = store.submit(tx, form, values=values, write_back_result=rows, **_subject_and_context(request))
            if request.context_type == RUN_ACTION:
                tx.emit(COMPLETE_FORM_ACTION, _completion(made))
            return tx.reply(pb.SubmitFormResponse(data=submission_message(made), meta=meta(who)))

    def GetFormSubmission(
        self, request: pb.GetFormSubmissionRequest, context: grpc.ServicerContext
    ) -> pb.GetFormSubmissionResponse:
        """Reads one submission."""
        who = caller(context)
        with self._db.reading(who) as tx:
            found = store.get_submission(tx, request.id)
        return pb.GetFormSubmissionResponse(data=submission_message(found), meta=meta(who))

    def ListFormSubmissions(
        self, request: pb.ListFormSubmissionsRequest, context: grpc.ServicerContext
    ) -> pb.ListFormSubmissionsResponse:
        """Lists submissions."""
        with self._db.reading(caller(context)) as tx:
            found, about = store.LIVE_SUBMISSIONS.page(tx, request, **_given(request, SUBMISSION_FILTERS))
        return pb.ListFormSubmissionsResponse(data=map(submission_message, found), meta=about)

    def DeleteFormSubmission(
        self, request: pb.DeleteFormSubmissionRequest, context: grpc.ServicerContext
    ) -> pb.DeleteFormSubmissionResponse:
        """Takes a submission out of sight."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            store.delete_submission(tx, request.id)
            return tx.reply(pb.DeleteFormSubmissionResponse(data=Empty(), meta=meta(who)))

    def _checked(self, who: Caller, given: form_pb.FormSchema) -> Schema:
        """The schema an author gave, in the form it is kept. Raises Invalid."""
        schema = drafted(_schema(given))
        with self._db.checks(who):
            report(violations(schema, self._fields.definitions(who, schema.definition_ids())))
        return schema

    def _answered(self, who: Caller, request: pb.SubmitFormRequest) -> tuple[Form, dict[str, Any]]:
        """The published form and the values as they are to be stored. Raises all that is wrong with the request."""
        with self._db.reading(who) as tx:
            form = store.get(tx, request.form_definition_id)
        lifecycle.refuse_unless_published(form)
        values, wrong = answers.judge(Schema.of(form.schema), plain(request.values))
        report([*_wrong_subject(request), *wrong])
        return form, values

    def _ask_for_consent(self, who: Caller, request: pb.SubmitFormRequest) -> None:
        """Raises what contacts and pipelines have against it."""
        subject = {"contact_id": request.contact_id, "account_id": request.account_id}
        self._records.check_write_access(who, **subject)
        if request.context_type == RUN_ACTION:
            self._runs.check_form_action(
                who, request.context_id, form_definition_id=request.form_definition_id, **subject
            )

    def _decided(
        self, who: Caller, form: Form, request: pb.SubmitFormRequest, values: dict[str, Any]
    ) -> list[Decision]:
        """What is to become of each write-back entry, by the live definitions."""
        entries = Schema.of(form.schema).write_back
        target, _ = _subject(request)
        asked = write_back.entries_of(entries, target)
        verdicts = self._fields.verdicts(
            who, [(each.custom_field_definition_id, values.get(each.field_key)) for each in asked]
        )
        return write_back.decide(entries, target, values, verdicts)


class FormCatalog(catalog_service.FormCatalogServiceServicer):
    """What pipelines asks; not reachable through the gateway."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def BatchGetForms(
        self, request: catalog_pb.BatchGetFormsRequest, context: grpc.ServicerContext
    ) -> catalog_pb.BatchGetFormsResponse:
        """Reads form versions by id."""
        with self._db.reading(caller(context)) as tx:
            return catalog_pb.BatchGetFormsResponse(forms=map(message, store.get_many(tx, request.ids)))


def message(form: Form) -> form_pb.Form:
    """A form version as the contract shows it."""
    return form_pb.Form(
        id=form.id,
        organization_id=form.organization_id,
        name=form.name,
        description=form.description,
        version=form.version,
        status=form.status,
        schema=form_pb.FormSchema(**form.schema),
        created_by=form.created_by,
        published_at=timestamp(form.published_at),
        archived_at=timestamp(form.archived_at),
        created_at=timestamp(form.created_at),
        updated_at=timestamp(form.updated_at),
    )


def submission_message(submission: Submission) -> submission_pb.FormSubmission:
    """A submission as the contract shows it."""
    snapshot = submission.schema_snapshot
    return submission_pb.FormSubmission(
        id=submission.id,
        organization_id=submission.organization_id,
        form_definition_id=submission.form_definition_id,
        form_version=submission.form_version,
        schema_snapshot=None if snapshot is None else form_pb.FormSchema(**snapshot),
        values=struct_of(submission.values),
        contact_id=submission.contact_id or 0,
        account_id=submission.account_id or 0,
        context_type=submission.context_type or "",
        context_id=submission.context_id or 0,
        write_back_result=map(_result, submission.write_back_result),
        submitted_by_user_id=submission.submitted_by_user_id,
        submitted_at=timestamp(submission.submitted_at),
    )


def _result(row: dict[str, Any]) -> submission_pb.WriteBackResult:
    values = {name: value_of(row[name]) for name in ("old_value", "new_value")}
    return submission_pb.WriteBackResult(**{**row, **values})


def _schema(given: form_pb.FormSchema) -> Schema:
    return Schema(tuple(map(_field, given.fields)), tuple(map(_entry, given.write_back)))


def _field(given: form_pb.FormField) -> Field:
    return Field(
        key=given.key,
        kind=given.kind,
        label=given.label,
        label_override=given.label_override,
        required=given.required,
        type=given.type,
        validation=plain(given.validation),
        custom_field_definition_id=given.custom_field_definition_id,
        picklist_options=[{"value": each.value, "label": each.label} for each in given.picklist_options],
    )


def _entry(given: form_pb.WriteBackEntry) -> Entry:
    return Entry(given.field_key, given.target, given.custom_field_definition_id)


def _given(request: pb.ListFormsRequest | pb.ListFormSubmissionsRequest, filters: Sequence[str]) -> dict[str, Any]:
    """The filters that are given: empty and 0 are none."""
    return {name: value for name in filters if (value := getattr(request, name))}


def _wrong_subject(request: pb.SubmitFormRequest) -> Iterator[Violation]:
    if bool(request.contact_id) == bool(request.account_id):
        yield Violation("contact_id", "give exactly one of contact_id and account_id")
    if request.context_type == RUN_ACTION and not request.context_id:
        yield Violation("context_id", "must name the run action")


def _subject(request: pb.SubmitFormRequest) -> tuple[str, int]:
    return ("contact", request.contact_id) if request.contact_id else ("account", request.account_id)


def _subject_and_context(request: pb.SubmitFormRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("contact_id", "account_id", "context_type", "context_id")}


def _write_back(tx: Transaction, request: pb.SubmitFormRequest, decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Writes what is to be applied, and tells what became of every entry. Asks even with nothing to write: the rows
    tell the values of before."""
    old = None
    if any(each.key for each in decisions):
        old = store.write_custom_fields(tx, *_subject(request), write_back.changes(decisions))
    return write_back.results(decisions, old)


def _completion(submission: Submission) -> CompleteFormActionRequest:
    return CompleteFormActionRequest(
        action_id=submission.context_id or 0,
        form_submission_id=submission.id,
        values=struct_of(submission.values),
        form_definition_id=submission.form_definition_id,
        contact_id=submission.contact_id or 0,
        account_id=submission.account_id or 0,
    )
