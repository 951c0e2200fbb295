"""What forms asks other services, one question each."""

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from crm.contacts.v1 import record_service_pb2 as records_pb
from crm.contacts.v1.record_service_pb2_grpc import RecordServiceStub
from crm.fields.v1 import custom_field_pb2
from crm.fields.v1 import field_rules_service_pb2 as rules_pb
from crm.fields.v1.field_rules_service_pb2_grpc import FieldRulesServiceStub
from crm.pipelines.v1 import run_event_service_pb2 as runs_pb
from crm.pipelines.v1.run_event_service_pb2_grpc import RunEventServiceStub

from services.forms.schema import Definition
from services.forms.write_back import Verdict
from services.runtime.callers import Caller
from services.runtime.channels import ask
from services.runtime.db import Event
from services.runtime.errors import DeadlineExceeded, Unavailable
from services.runtime.values import plain, plain_value, value_of

COMPLETE_FORM_ACTION = Event("pipelines", "/crm.pipelines.v1.RunEventService/CompleteFormAction")
"""Tells pipelines that a submission completed an action; its payload is a CompleteFormActionRequest."""
PATIENCE = 2.0
"""Seconds that pipelines has to say whether a form may be submitted; the caller's own time is for more than that."""


class Fields:
    """The fields service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._rules = FieldRulesServiceStub(channel)

    def definitions(self, who: Caller, ids: Sequence[int]) -> dict[int, Definition]:
        """Those of the definitions that exist, by id; nobody is asked when there are none to ask for."""
        if not ids:
            return {}
        found = ask(self._rules.BatchGetCustomFields, who, rules_pb.BatchGetCustomFieldsRequest(ids=ids))
        return {each.id: _definition(each) for each in found.definitions}

    def verdicts(self, who: Caller, values: Iterable[tuple[int, Any]]) -> list[Verdict]:
        """What the live definitions say of values, given and answered in order; None stands for no value."""
        entries = [
            rules_pb.DefinitionValue(custom_field_definition_id=definition_id, value=value_of(value))
            for definition_id, value in values
        ]
        if not entries:
            return []
        found = ask(self._rules.JudgeDefinitionValues, who, rules_pb.JudgeDefinitionValuesRequest(entries=entries))
        return [
            Verdict(each.object_type, each.key, each.is_active, plain_value(each.value), each.error)
            for each in found.verdicts
        ]


class Records:
    """The contacts service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._records = RecordServiceStub(channel)

    def check_write_access(self, who: Caller, *, contact_id: int, account_id: int) -> None:
        """Raises what contacts refuses: no such record, or not the caller's to write."""
        asked = records_pb.CheckWriteAccessRequest(contact_id=contact_id, account_id=account_id)
        ask(self._records.CheckWriteAccess, who, asked)


class Runs:
    """The pipelines service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._events = RunEventServiceStub(channel)

    def check_form_action(
        self, who: Caller, action_id: int, *, form_definition_id: int, contact_id: int, account_id: int
    ) -> None:
        """Raises what pipelines refuses: no such action, not pending, another form's or another subject's.

        While pipelines does not answer nobody can say, and what people filled in must not be lost for that: the
        submission is taken, and pipelines judges it when it learns of it.
        """
        asked = runs_pb.CheckFormActionRequest(
            action_id=action_id, form_definition_id=form_definition_id, contact_id=contact_id, account_id=account_id
        )
        try:
            ask(self._events.CheckFormAction, who, asked, patience=PATIENCE)
        except (Unavailable, DeadlineExceeded):
            return


def _definition(field: custom_field_pb2.CustomField) -> Definition:
    return Definition(
        id=field.id,
        object_type=field.object_type,
        is_active=field.is_active,
        type=field.field_type,
        validation=plain(field.validation_rules),
        picklist_options=[{"value": each.value, "label": each.label} for each in field.picklist_options.options],
    )
