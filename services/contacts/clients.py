"""What the contacts service asks and tells other services."""

from typing import Any, NamedTuple

import grpc
from crm.fields.v1 import field_rules_service_pb2 as rules_pb
from crm.fields.v1.field_rules_service_pb2_grpc import FieldRulesServiceStub
from crm.identity.v1 import identity_admin_service_pb2 as identity_pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from crm.pipelines.v1 import run_event_service_pb2 as events_pb
from google.protobuf.struct_pb2 import Struct

from services.contacts.errors import OwnerNotFound
from services.runtime.callers import Caller
from services.runtime.channels import ask
from services.runtime.db import Event, Transaction
from services.runtime.errors import Violation
from services.runtime.values import plain

ENTER_CONTACT_STAGE = Event("pipelines", "/crm.pipelines.v1.RunEventService/EnterContactStage")
CANCEL_SUBJECT_RUNS = Event("pipelines", "/crm.pipelines.v1.RunEventService/CancelSubjectRuns")


class Judgement(NamedTuple):
    """Custom field values as they are to be stored, None asking for removal, or all that is wrong with them."""

    values: dict[str, Any]
    violations: list[Violation]

    @property
    def present(self) -> dict[str, Any]:
        """The values of a new record: there is nothing to remove yet."""
        return {key: value for key, value in self.values.items() if value is not None}


class Fields:
    """The fields service, which alone knows the rules of custom field values."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._rules = FieldRulesServiceStub(channel)

    def judge(self, who: Caller, object_type: str, values: Struct) -> Judgement:
        """Judges a whole custom_fields map in one call, an empty one in none (spec v1 §1.5)."""
        if not values.fields:
            return Judgement({}, [])
        answer = ask(self._rules.JudgeValues, who, rules_pb.JudgeValuesRequest(object_type=object_type, values=values))
        found = [Violation(f"custom_fields.{each.key}", each.message) for each in answer.violations]
        return Judgement(plain(answer.values), found)


class Users:
    """The identity service, which knows the people of an organisation."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._identity = IdentityAdminServiceStub(channel)

    def check_owner(self, who: Caller, owner_id: int | None) -> None:
        """Raises OwnerNotFound. The caller and nobody are known without asking."""
        if owner_id in (None, who.user_id):
            return
        answer = ask(self._identity.BatchGetUsers, who, identity_pb.BatchGetUsersRequest(ids=[owner_id]))
        if not answer.users:
            raise OwnerNotFound(field="owner_id")


def tell_stage_entered(tx: Transaction, contact_id: int, contact_stage_id: int) -> None:
    """Has pipelines start the runs that this stage triggers (spec v1 §5.10, D100)."""
    tx.emit(
        ENTER_CONTACT_STAGE,
        events_pb.EnterContactStageRequest(contact_id=contact_id, contact_stage_id=contact_stage_id),
    )


def tell_contact_deleted(tx: Transaction, contact_id: int) -> None:
    """Has pipelines cancel the contact's open runs (spec v1 D71)."""
    tx.emit(CANCEL_SUBJECT_RUNS, events_pb.CancelSubjectRunsRequest(subject_type="contact", subject_id=contact_id))
