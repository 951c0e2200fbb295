"""Custom field definitions over the wire (spec v1 §1, §6.1)."""

from typing import Any

import grpc
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub

from tests.harness import Houses, Someone, failing

KYC = {"options": [{"value": v, "label": v.title()} for v in ("pending", "approved", "rejected")]}


@pytest.fixture
def fields(houses: Houses) -> CrmCustomFieldServiceStub:
    return CrmCustomFieldServiceStub(houses.start("fields").channel("fields"))


@pytest.fixture
def admin(houses: Houses) -> Someone:
    return houses.someone()


def kyc_status(**changed: Any) -> pb.CreateCustomFieldRequest:
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


def test_a_field_is_answered_as_it_was_defined(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    made = fields.CreateCustomField(kyc_status(), metadata=admin.metadata(x_request_id="req-1"))
    assert made.meta.request_id == "req-1"
    assert made.data.id == 1
    assert made.data.organization_id == 1
    assert made.data.is_active
    assert [option.value for option in made.data.picklist_options.options] == ["pending", "approved", "rejected"]
    assert not made.data.HasField("validation_rules")
    read = fields.GetCustomField(pb.GetCustomFieldRequest(id=made.data.id), metadata=admin.metadata())
    assert read.data == made.data


def test_a_taken_key_is_refused(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    fields.CreateCustomField(kyc_status(), metadata=admin.metadata())
    failure = failing(fields.CreateCustomField, kyc_status(), admin)
    assert (failure.code, failure.reason, failure.fields) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ErrCustomFieldKeyTaken",
        ["key"],
    )
