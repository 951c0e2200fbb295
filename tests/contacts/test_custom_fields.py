"""Values of custom fields on contacts and accounts (spec v1 §1.5, D29)."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
from crm.contacts.v1 import account_service_pb2 as account_pb
from crm.contacts.v1 import contact_service_pb2 as pb
from crm.fields.v1 import custom_field_service_pb2 as fields_pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc import StatusCode

from services.runtime.values import struct_of
from tests.contacts.conftest import Crm, outcome
from tests.harness import at_once

pytestmark = pytest.mark.usefixtures("custom_fields")


class Kind:
    """Contacts or accounts: their values are kept alike."""

    def __init__(self, crm: Crm, kind: str) -> None:
        self._crm, self._is_contact = crm, kind == "contact"

    def create(self, **values: Any) -> int:
        if self._is_contact:
            return self._crm.contact(custom_fields=struct_of(values)).id
        return self._crm.account(custom_fields=struct_of(values)).id

    def change(self, record_id: int, **values: Any) -> dict[str, Any]:
        change = self._crm.change if self._is_contact else self._crm.change_account
        return MessageToDict(change(record_id, custom_fields=struct_of(values)).custom_fields)

    def read(self, record_id: int) -> dict[str, Any]:
        read = self._crm.read if self._is_contact else self._crm.read_account
        return MessageToDict(read(record_id).custom_fields)

    def creation(self, **values: Any) -> Message:
        if self._is_contact:
            return pb.CreateContactRequest(first_name="Ada", custom_fields=struct_of(values))
        return account_pb.CreateAccountRequest(name="Acme", custom_fields=struct_of(values))

    def patch(self, record_id: int, **values: Any) -> Message:
        if self._is_contact:
            return pb.UpdateContactRequest(id=record_id, custom_fields=struct_of(values))
        return account_pb.UpdateAccountRequest(id=record_id, custom_fields=struct_of(values))


@pytest.fixture(params=["contact", "account"])
def kind(crm: Crm, request: pytest.FixtureRequest) -> Kind:
    return Kind(crm, request.param)


def test_values_are_stored_and_answered(kind: Kind) -> None:
    made = kind.create(note="hello", score=5, tier="gold")
    assert kind.read(made) == {"note": "hello", "score": 5, "tier": "gold"}


def test_values_are_merged_per_key_and_null_removes(kind: Kind) -> None:
    made = kind.create(note="hello", score=5)
    assert kind.change(made, score=6, tier="gold") == {"note": "hello", "score": 6, "tier": "gold"}
    assert kind.change(made, note=None, tier=None) == {"score": 6}
    assert kind.change(made, note=None) == {"score": 6}
    assert kind.change(made) == {"score": 6}
    assert kind.read(made) == {"score": 6}


def test_a_new_record_has_nothing_to_remove(kind: Kind) -> None:
    assert kind.read(kind.create(note=None, score=1)) == {"score": 1}


def test_everything_wrong_is_said_at_once_and_nothing_is_written(crm: Crm, kind: Kind) -> None:
    wrong = {"note": 1, "score": "5", "tier": "gold", "nonsense": True}
    fields = ["custom_fields.nonsense", "custom_fields.note", "custom_fields.score"]
    made = kind.create(note="hello")
    for request in (kind.creation(**wrong), kind.patch(made, **wrong)):
        failure = crm.refusal(request)
        assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert sorted(failure.fields) == fields
    assert kind.read(made) == {"note": "hello"}
    assert kind.create() == made + 1


def test_what_is_wrong_with_members_and_values_is_said_together(crm: Crm) -> None:
    request = pb.CreateContactRequest(first_name="Ada", email="ada", custom_fields=struct_of({"score": "5"}))
    assert crm.refusal(request).fields == ["email", "custom_fields.score"]


def test_other_changes_keep_the_values(crm: Crm) -> None:
    made = crm.contact(custom_fields=struct_of({"note": "hello"}))
    assert MessageToDict(crm.change(made.id, last_name="King").custom_fields) == {"note": "hello"}
    account = crm.account(custom_fields=struct_of({"note": "hello"}))
    assert MessageToDict(crm.change_account(account.id, name="Acme II").custom_fields) == {"note": "hello"}


def test_changes_of_different_keys_at_once_all_stay(kind: Kind) -> None:
    made = kind.create()
    changes: list[dict[str, Any]] = [{"note": "hello"}, {"score": 7}, {"tier": "gold"}]
    outcomes = at_once([partial(kind.change, made, **each) for each in changes])
    assert not [each for each in outcomes if isinstance(each, Exception)]
    assert kind.read(made) == {"note": "hello", "score": 7, "tier": "gold"}


def test_fields_are_asked_once_and_only_about_values(crm: Crm, kind: Kind, statements: Counter[str]) -> None:
    kind.create(note="hello", score=5, tier="gold")
    assert statements["JudgeValues"] == 1
    made = kind.create()
    kind.change(made)
    assert statements["JudgeValues"] == 1
    kind.change(made, note="hello", score=5)
    assert statements["JudgeValues"] == 2


def test_values_stay_when_their_field_is_archived_but_take_no_more(crm: Crm, kind: Kind) -> None:
    made = kind.create(note="hello")
    fields = CrmCustomFieldServiceStub(crm.houses.channel("fields"))
    for field_id in (1, 4):
        fields.ArchiveCustomField(fields_pb.ArchiveCustomFieldRequest(id=field_id), metadata=crm.who.metadata())
    assert kind.read(made) == {"note": "hello"}
    failure = crm.refusal(kind.patch(made, note="bye", score=5))
    assert outcome(failure) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", ["custom_fields.note"])


def test_a_repeat_is_answered_as_the_first_time_though_its_field_is_archived(crm: Crm) -> None:
    request = pb.CreateContactRequest(first_name="Ada", custom_fields=struct_of({"note": "hello"}))
    metadata = crm.who.metadata(idempotency_key="once")
    first = crm.contacts.CreateContact(request, metadata=metadata)
    fields = CrmCustomFieldServiceStub(crm.houses.channel("fields"))
    fields.ArchiveCustomField(fields_pb.ArchiveCustomFieldRequest(id=1), metadata=crm.who.metadata())
    assert crm.contacts.CreateContact(request, metadata=metadata) == first


def test_another_organizations_fields_do_not_count(stranger: Crm) -> None:
    request = pb.CreateContactRequest(first_name="Ada", custom_fields=struct_of({"note": "hello"}))
    assert stranger.refusal(request).fields == ["custom_fields.note"]


def test_fields_being_down_stops_only_writes_of_values(crm: Crm, kind: Kind) -> None:
    crm.houses.stop("fields")
    assert crm.refusal(kind.creation(note="hello")).code == StatusCode.UNAVAILABLE
    assert kind.read(kind.create()) == {}
