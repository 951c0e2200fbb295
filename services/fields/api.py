"""Custom fields over gRPC: definitions for people, judgements for the services that keep values."""

from dataclasses import replace

import grpc
from crm.fields.v1 import custom_field_pb2 as field_pb
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1 import custom_field_service_pb2_grpc as service
from crm.fields.v1 import field_rules_service_pb2 as rules_pb
from crm.fields.v1 import field_rules_service_pb2_grpc as rules_service

from services.fields import definition, judgement, store
from services.fields.definition import CustomField
from services.runtime.callers import caller
from services.runtime.db import Database
from services.runtime.errors import report
from services.runtime.messages import named_twice, refuse_immutable, timestamp
from services.runtime.server import meta
from services.runtime.values import plain, plain_value, struct_of, value_of

IMMUTABLE = ("object_type", "key", "field_type")
MUTABLE = ("label", "picklist_options", "validation_rules", "section", "position")


class CustomFields(service.CrmCustomFieldServiceServicer):
    """spec v1 §1, §6.1."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def CreateCustomField(
        self, request: pb.CreateCustomFieldRequest, context: grpc.ServicerContext
    ) -> pb.CreateCustomFieldResponse:
        """Defines a field."""
        who = caller(context)
        options, rules = _options(request), _rules(request)
        report(definition.violations(request.field_type, options, rules))
        with self._db.transaction(who) as tx:
            made = store.create(
                tx,
                object_type=request.object_type,
                key=request.key,
                label=request.label,
                field_type=request.field_type,
                picklist_options=options,
                validation_rules=rules or None,
                section=request.section,
                position=request.position,
                deal_pipeline_id=request.deal_pipeline_id,
                document_template_id=request.document_template_id,
            )
            return tx.reply(pb.CreateCustomFieldResponse(data=message(made), meta=meta(who)))

    def GetCustomField(
        self, request: pb.GetCustomFieldRequest, context: grpc.ServicerContext
    ) -> pb.GetCustomFieldResponse:
        """Reads one definition."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.GetCustomFieldResponse(data=message(store.get(tx, request.id)), meta=meta(who))

    def ListCustomFields(
        self, request: pb.ListCustomFieldsRequest, context: grpc.ServicerContext
    ) -> pb.ListCustomFieldsResponse:
        """Lists definitions whole."""
        who = caller(context)
        equal = {"object_type": request.object_type} if request.object_type else {}
        if request.HasField("section"):
            equal["section"] = request.section
        with self._db.reading(who) as tx:
            found = store.find(tx, include_archived=request.include_archived, **equal)
            return pb.ListCustomFieldsResponse(data=map(message, found), meta=meta(who))

    def UpdateCustomField(
        self, request: pb.UpdateCustomFieldRequest, context: grpc.ServicerContext
    ) -> pb.UpdateCustomFieldResponse:
        """Changes what may change of a definition."""
        who = caller(context)
        refuse_immutable(request, IMMUTABLE, MUTABLE)
        with self._db.transaction(who) as tx:
            changed = _changed(store.lock(tx, request.id), request)
            report(definition.violations(changed.field_type, changed.picklist_options, changed.validation_rules))
            saved = store.save(tx, changed)
            return tx.reply(pb.UpdateCustomFieldResponse(data=message(saved), meta=meta(who)))

    def ArchiveCustomField(
        self, request: pb.ArchiveCustomFieldRequest, context: grpc.ServicerContext
    ) -> pb.ArchiveCustomFieldResponse:
        """Takes a field out of use, for good."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            field = store.lock(tx, request.id)
            if field.is_active:
                field = store.save(tx, replace(field, is_active=False))
            return tx.reply(pb.ArchiveCustomFieldResponse(data=message(field), meta=meta(who)))

    def ReorderCustomFields(
        self, request: pb.ReorderCustomFieldsRequest, context: grpc.ServicerContext
    ) -> pb.ReorderCustomFieldsResponse:
        """Moves fields, all or nothing."""
        who = caller(context)
        report(named_twice("fields", [each.id for each in request.fields]))
        placements = [
            store.Placement(
                each.id,
                each.section if each.HasField("section") else None,
                each.position if each.HasField("position") else None,
            )
            for each in request.fields
        ]
        with self._db.transaction(who) as tx:
            placed = store.place(tx, placements)
            return tx.reply(pb.ReorderCustomFieldsResponse(data=map(message, placed), meta=meta(who)))


class FieldRules(rules_service.FieldRulesServiceServicer):
    """What the services that keep values ask; not reachable through the gateway."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def JudgeValues(
        self, request: rules_pb.JudgeValuesRequest, context: grpc.ServicerContext
    ) -> rules_pb.JudgeValuesResponse:
        """Judges a whole custom_fields map."""
        with self._db.reading(caller(context)) as tx:
            found = store.of_object_type(tx, request.object_type)
        scope = request.deal_pipeline_id, request.document_template_id
        definitions = [each for each in found if each.belongs_to(*scope)]
        values, problems = judgement.judge_all(definitions, plain(request.values))
        violations = [rules_pb.ValueViolation(key=each.key, message=each.message) for each in problems]
        return rules_pb.JudgeValuesResponse(values=None if problems else struct_of(values), violations=violations)

    def JudgeDefinitionValues(
        self, request: rules_pb.JudgeDefinitionValuesRequest, context: grpc.ServicerContext
    ) -> rules_pb.JudgeDefinitionValuesResponse:
        """Judges values addressed by definition id."""
        with self._db.reading(caller(context)) as tx:
            found = store.get_many(tx, [each.custom_field_definition_id for each in request.entries])
        definitions = {each.id: each for each in found}
        verdicts = [_verdict(definitions.get(each.custom_field_definition_id), each) for each in request.entries]
        return rules_pb.JudgeDefinitionValuesResponse(verdicts=verdicts)

    def BatchGetCustomFields(
        self, request: rules_pb.BatchGetCustomFieldsRequest, context: grpc.ServicerContext
    ) -> rules_pb.BatchGetCustomFieldsResponse:
        """Reads definitions by id."""
        with self._db.reading(caller(context)) as tx:
            return rules_pb.BatchGetCustomFieldsResponse(definitions=map(message, store.get_many(tx, request.ids)))


def message(field: CustomField) -> field_pb.CustomField:
    """A definition as the contract shows it."""
    return field_pb.CustomField(
        id=field.id,
        organization_id=field.organization_id,
        object_type=field.object_type,
        key=field.key,
        label=field.label,
        field_type=field.field_type,
        picklist_options=_choices(field.picklist_options),
        validation_rules=struct_of(field.validation_rules) if field.validation_rules else None,
        section=field.section,
        position=field.position,
        is_active=field.is_active,
        created_at=timestamp(field.created_at),
        updated_at=timestamp(field.updated_at),
        deal_pipeline_id=field.deal_pipeline_id,
        document_template_id=field.document_template_id,
    )


def _choices(options: list[dict[str, str]] | None) -> field_pb.PicklistOptions | None:
    if options is None:
        return None
    return field_pb.PicklistOptions(options=[field_pb.PicklistOption(**option) for option in options])


def _changed(field: CustomField, request: pb.UpdateCustomFieldRequest) -> CustomField:
    return replace(
        field,
        label=request.label if request.HasField("label") else field.label,
        picklist_options=_options(request) if request.HasField("picklist_options") else field.picklist_options,
        validation_rules=(_rules(request) or None) if request.HasField("validation_rules") else field.validation_rules,
        section=request.section if request.HasField("section") else field.section,
        position=request.position if request.HasField("position") else field.position,
    )


def _options(request: pb.CreateCustomFieldRequest | pb.UpdateCustomFieldRequest) -> list[dict[str, str]] | None:
    if not request.HasField("picklist_options"):
        return None
    return [{"value": each.value, "label": each.label} for each in request.picklist_options.options]


def _rules(request: pb.CreateCustomFieldRequest | pb.UpdateCustomFieldRequest) -> dict[str, object]:
    return plain(request.validation_rules)


def _verdict(field: CustomField | None, entry: rules_pb.DefinitionValue) -> rules_pb.DefinitionVerdict:
    if field is None:
        return rules_pb.DefinitionVerdict(custom_field_definition_id=entry.custom_field_definition_id)
    verdict = judgement.judge(field, plain_value(entry.value))
    return rules_pb.DefinitionVerdict(
        custom_field_definition_id=field.id,
        object_type=field.object_type,
        key=field.key,
        is_active=field.is_active,
        value=value_of(verdict.value),
        error=verdict.error,
    )
