"""A contacts service with its neighbours, and tiny verbs to call it with."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from crm.contacts.v1 import account_pb2, contact_pb2, contact_stage_pb2
from crm.contacts.v1 import account_service_pb2 as account_pb
from crm.contacts.v1 import contact_service_pb2 as pb
from crm.contacts.v1 import record_service_pb2 as record_pb
from crm.contacts.v1.account_service_pb2_grpc import CrmAccountServiceStub
from crm.contacts.v1.contact_service_pb2_grpc import CrmContactServiceStub
from crm.contacts.v1.record_service_pb2_grpc import RecordServiceStub
from crm.fields.v1 import custom_field_service_pb2 as fields_pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from google.protobuf.message import Message

from services.runtime.db import Transaction
from tests.contacts.neighbours import Identity, Pipelines, moved_in
from tests.harness import Failure, Houses, Someone, failing

Outcome = tuple[grpc.StatusCode, str, list[str]]


def outcome(failure: Failure) -> Outcome:
    """A failure as the contract tells it: code, reason, fields."""
    return failure.code, failure.reason, failure.fields


class Crm:
    """The contacts service as one caller uses it; `by` answers it as another caller does."""

    def __init__(self, houses: Houses, who: Someone) -> None:
        self.houses, self.who = houses, who
        self.contacts = CrmContactServiceStub(houses.channel("contacts"))
        self.accounts = CrmAccountServiceStub(houses.channel("contacts"))
        self.records = RecordServiceStub(houses.channel("contacts"))

    def by(self, who: Someone) -> "Crm":
        return Crm(self.houses, who)

    def contact(self, **members: Any) -> contact_pb2.Contact:
        request = pb.CreateContactRequest(**{"first_name": "Ada", **members})
        return self.contacts.CreateContact(request, metadata=self.who.metadata()).data

    def change(self, contact_id: int, **members: Any) -> contact_pb2.Contact:
        request = pb.UpdateContactRequest(id=contact_id, **members)
        return self.contacts.UpdateContact(request, metadata=self.who.metadata()).data

    def read(self, contact_id: int) -> contact_pb2.Contact:
        return self.contacts.GetContact(pb.GetContactRequest(id=contact_id), metadata=self.who.metadata()).data

    def delete(self, contact_id: int) -> pb.DeleteContactResponse:
        return self.contacts.DeleteContact(pb.DeleteContactRequest(id=contact_id), metadata=self.who.metadata())

    def list(self, **members: Any) -> pb.ListContactsResponse:
        return self.contacts.ListContacts(pb.ListContactsRequest(**members), metadata=self.who.metadata())

    def account(self, **members: Any) -> account_pb2.Account:
        request = account_pb.CreateAccountRequest(**{"name": "Acme", **members})
        return self.accounts.CreateAccount(request, metadata=self.who.metadata()).data

    def change_account(self, account_id: int, **members: Any) -> account_pb2.Account:
        request = account_pb.UpdateAccountRequest(id=account_id, **members)
        return self.accounts.UpdateAccount(request, metadata=self.who.metadata()).data

    def read_account(self, account_id: int) -> account_pb2.Account:
        request = account_pb.GetAccountRequest(id=account_id)
        return self.accounts.GetAccount(request, metadata=self.who.metadata()).data

    def delete_account(self, account_id: int) -> account_pb.DeleteAccountResponse:
        request = account_pb.DeleteAccountRequest(id=account_id)
        return self.accounts.DeleteAccount(request, metadata=self.who.metadata())

    def stage(self, name: str, **members: Any) -> contact_stage_pb2.ContactStage:
        request = pb.CreateContactStageRequest(name=name, **members)
        return self.contacts.CreateContactStage(request, metadata=self.who.metadata()).data

    def stages(self) -> dict[str, contact_stage_pb2.ContactStage]:
        answer = self.contacts.ListContactStages(pb.ListContactStagesRequest(), metadata=self.who.metadata())
        return {stage.name: stage for stage in answer.data}

    def refusal(self, request: Message) -> Failure:
        """How a call fails that must fail; the request's type says which rpc."""
        rpc = type(request).__name__.removesuffix("Request")
        stub = next(each for each in (self.contacts, self.accounts, self.records) if hasattr(each, rpc))
        return failing(getattr(stub, rpc), request, self.who)

    def seed(self) -> None:
        who = self.houses.service(organization_id=self.who.organization_id)
        self.records.SeedOrganization(record_pb.SeedOrganizationRequest(), metadata=who.metadata())


@pytest.fixture
def identity(houses: Houses) -> Iterator[Identity]:
    played = Identity()  # type: ignore[abstract]  # only what contacts asks is played
    with moved_in(houses, "identity", played.register):
        yield played


@pytest.fixture
def pipelines(houses: Houses) -> Iterator[Pipelines]:
    played = Pipelines()  # type: ignore[abstract]  # only what contacts tells is played
    with moved_in(houses, "pipelines", played.register):
        yield played


@pytest.fixture
def crm(houses: Houses) -> Crm:
    """The service as an admin of organisation 1, user 1, uses it."""
    return Crm(houses.start("contacts"), houses.someone())


@pytest.fixture
def agent(crm: Crm) -> Crm:
    """The service as an agent, user 2, uses it."""
    return crm.by(crm.houses.someone("agent", user_id=2))


@pytest.fixture
def stranger(crm: Crm) -> Crm:
    """The service as an admin of organisation 2 uses it."""
    return crm.by(crm.houses.someone(organization_id=2))


@pytest.fixture
def custom_fields(crm: Crm) -> None:
    """Contacts and accounts with a text `note`, a number `score` and a picklist `tier`."""
    fields = CrmCustomFieldServiceStub(crm.houses.start("fields").channel("fields"))
    tiers = {"options": [{"value": "gold", "label": "Gold"}]}
    for kind in ("contact", "account"):
        for key, field_type, options in (
            ("note", "text", None),
            ("score", "number", None),
            ("tier", "picklist", tiers),
        ):
            request = fields_pb.CreateCustomFieldRequest(
                object_type=kind,
                key=key,
                label=key,
                field_type=field_type,
                picklist_options=options,  # type: ignore[arg-type]  # a dict is a message to protobuf
            )
            fields.CreateCustomField(request, metadata=crm.who.metadata())


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many statements each rpc has run, by the rpc's short name."""
    counted: Counter[str] = Counter()
    execute = Transaction._execute

    def counting(tx: Transaction, wanted: Any, parameters: dict[str, Any]) -> Any:
        counted[tx.who.rpc.rpartition("/")[2]] += 1
        return execute(tx, wanted, parameters)

    monkeypatch.setattr(Transaction, "_execute", counting)
    return counted
