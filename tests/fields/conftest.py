"""Custom fields as a real server, and the people who use it."""

from typing import Any

import pytest
from crm.fields.v1 import custom_field_pb2 as field_pb
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from crm.fields.v1.field_rules_service_pb2_grpc import FieldRulesServiceStub

from tests.harness import Houses, Someone

KYC = {"options": [{"value": v, "label": v.title()} for v in ("pending", "approved", "rejected")]}


@pytest.fixture
def fields(houses: Houses) -> CrmCustomFieldServiceStub:
    """What people call."""
    return CrmCustomFieldServiceStub(houses.start("fields").channel("fields"))


@pytest.fixture
def rules(fields: CrmCustomFieldServiceStub, houses: Houses) -> FieldRulesServiceStub:
    """What services call."""
    return FieldRulesServiceStub(houses.channel("fields"))


@pytest.fixture
def admin(houses: Houses) -> Someone:
    return houses.someone()


def kyc_status(**changed: Any) -> pb.CreateCustomFieldRequest:
    """The definition of the walkthrough (spec v1 §7)."""
    members: dict[str, Any] = {
        "object_type": "contact",
        "key": "kyc_status",
        "label": "KYC Status",
        "field_type": "picklist",
        "picklist_options": KYC,
        "section": "Compliance",
        **changed,
    }
    return pb.CreateCustomFieldRequest(**members)


def a_field(key: str, **changed: Any) -> pb.CreateCustomFieldRequest:
    """A text field of contacts."""
    members: dict[str, Any] = {"object_type": "contact", "label": key.title(), "field_type": "text", **changed}
    return pb.CreateCustomFieldRequest(key=key, **members)


class Definitions:
    """Definitions made one after the other by one person."""

    def __init__(self, stub: CrmCustomFieldServiceStub, who: Someone) -> None:
        self._stub, self._who = stub, who

    def make(self, request: pb.CreateCustomFieldRequest) -> field_pb.CustomField:
        return self._stub.CreateCustomField(request, metadata=self._who.metadata()).data

    def get(self, field_id: int) -> field_pb.CustomField:
        return self._stub.GetCustomField(pb.GetCustomFieldRequest(id=field_id), metadata=self._who.metadata()).data

    def update(self, field_id: int, **members: Any) -> field_pb.CustomField:
        request = pb.UpdateCustomFieldRequest(id=field_id, **members)
        return self._stub.UpdateCustomField(request, metadata=self._who.metadata()).data

    def archive(self, field_id: int) -> field_pb.CustomField:
        request = pb.ArchiveCustomFieldRequest(id=field_id)
        return self._stub.ArchiveCustomField(request, metadata=self._who.metadata()).data

    def reorder(self, *placements: pb.FieldPlacement) -> list[field_pb.CustomField]:
        request = pb.ReorderCustomFieldsRequest(fields=placements)
        return list(self._stub.ReorderCustomFields(request, metadata=self._who.metadata()).data)

    def keys(self, **filters: Any) -> list[str]:
        request = pb.ListCustomFieldsRequest(**filters)
        return [each.key for each in self._stub.ListCustomFields(request, metadata=self._who.metadata()).data]


@pytest.fixture
def definitions(fields: CrmCustomFieldServiceStub, admin: Someone) -> Definitions:
    return Definitions(fields, admin)
