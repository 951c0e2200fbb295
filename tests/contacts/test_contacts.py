"""Contacts over the wire (spec v1 §8.1)."""

from collections import Counter
from typing import Any

import pytest
from crm.contacts.v1 import contact_service_pb2 as pb
from grpc import StatusCode

from tests.contacts.conftest import Crm, outcome
from tests.contacts.neighbours import Identity
from tests.harness import failing


def test_a_contact_is_answered_as_it_was_given(crm: Crm, identity: Identity) -> None:
    crm.seed()
    account = crm.account()
    members = {
        "first_name": "Ada",
        "last_name": "Lovelace",
        "email": "ada@example.com",
        "phone": "+44 20 7946-0958",
        "account_id": account.id,
        "owner_id": 2,
        "contact_stage_id": 3,
    }
    made = crm.contact(**members)
    assert (made.id, made.organization_id, made.created_by) == (1, 1, 1)
    assert {name: getattr(made, name) for name in members} == members
    assert made.HasField("custom_fields")
    assert made.created_at.seconds
    assert made.updated_at == made.created_at
    assert crm.read(made.id) == made


def test_a_contact_given_only_a_name_is_its_creators_and_names_nothing_else(agent: Crm) -> None:
    made = agent.contact(first_name="Ada")
    assert (made.owner_id, made.created_by) == (2, 2)
    assert (made.account_id, made.contact_stage_id) == (0, 0)
    assert (made.last_name, made.email, made.phone) == ("", "", "")
    assert not made.custom_fields.fields


def test_owner_0_is_nobody(crm: Crm) -> None:
    assert crm.contact(owner_id=0).owner_id == 0


def test_identity_is_asked_about_others_only(crm: Crm, identity: Identity) -> None:
    made = crm.contact(owner_id=1)
    crm.change(made.id, owner_id=0)
    crm.change(made.id, last_name="King")
    assert identity.asked == 0
    assert crm.change(made.id, owner_id=2).owner_id == 2
    assert identity.asked == 1


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ({"first_name": ""}, ["first_name"]),
        ({"first_name": "x" * 101, "last_name": "x" * 101}, ["first_name", "last_name"]),
        ({"email": "ada"}, ["email"]),
        ({"email": "a@b", "phone": "12345"}, ["email", "phone"]),
        ({"phone": "call me"}, ["phone"]),
        ({"account_id": -1}, ["account_id"]),
    ],
)
def test_bad_members_are_refused_all_at_once(crm: Crm, members: dict[str, Any], fields: list[str]) -> None:
    failure = crm.refusal(pb.CreateContactRequest(**{"first_name": "Ada", **members}))
    assert outcome(failure) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", fields)
    made = crm.contact()
    failure = crm.refusal(pb.UpdateContactRequest(id=made.id, **members))
    assert outcome(failure) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", fields)
    assert crm.read(made.id) == made


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"account_id": 9}, "ErrAccountNotFound"),
        ({"contact_stage_id": 9}, "ErrContactStageNotFound"),
        ({"owner_id": 99}, "ErrOwnerNotFound"),
    ],
)
def test_a_contact_names_only_what_exists(crm: Crm, identity: Identity, members: dict[str, Any], reason: str) -> None:
    failure = crm.refusal(pb.CreateContactRequest(first_name="Ada", **members))
    assert outcome(failure) == (StatusCode.NOT_FOUND, reason, list(members))
    made = crm.contact()
    failure = crm.refusal(pb.UpdateContactRequest(id=made.id, **members))
    assert outcome(failure) == (StatusCode.NOT_FOUND, reason, list(members))
    assert crm.list().data == [made]


def test_a_contact_comes_to_no_deleted_account_but_keeps_one(crm: Crm) -> None:
    account = crm.account()
    made = crm.contact(account_id=account.id)
    crm.delete_account(account.id)
    failure = crm.refusal(pb.CreateContactRequest(first_name="Ada", account_id=account.id))
    assert failure.reason == "ErrAccountNotFound"
    assert crm.read(made.id).account_id == account.id
    assert crm.change(made.id, account_id=account.id, last_name="King").account_id == account.id
    assert crm.change(made.id, account_id=0).account_id == 0


def test_a_patch_keeps_what_it_leaves_out_and_clears_what_it_empties(crm: Crm) -> None:
    crm.seed()
    made = crm.contact(last_name="Lovelace", email="ada@example.com", phone="555-1234567", contact_stage_id=1)
    changed = crm.change(made.id, last_name="King")
    assert (changed.last_name, changed.email, changed.contact_stage_id) == ("King", "ada@example.com", 1)
    assert changed.updated_at.ToNanoseconds() > made.updated_at.ToNanoseconds()
    assert changed.created_at == made.created_at
    cleared = crm.change(made.id, last_name="", email="", phone="", owner_id=0, contact_stage_id=0)
    assert (cleared.last_name, cleared.email, cleared.phone) == ("", "", "")
    assert (cleared.owner_id, cleared.contact_stage_id) == (0, 0)
    assert crm.read(made.id) == cleared


def test_a_patch_of_nothing_is_refused(crm: Crm) -> None:
    made = crm.contact()
    failure = crm.refusal(pb.UpdateContactRequest(id=made.id))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


@pytest.mark.parametrize("request_", [pb.GetContactRequest, pb.UpdateContactRequest, pb.DeleteContactRequest])
def test_an_unknown_contact_is_not_found(crm: Crm, request_: Any) -> None:
    members = {"last_name": "King"} if request_ is pb.UpdateContactRequest else {}
    failure = crm.refusal(request_(id=7, **members))
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, "ErrContactNotFound")
    assert crm.refusal(request_(**members)).fields == ["id"]


def test_a_deleted_contact_is_gone_for_everyone(crm: Crm) -> None:
    made = crm.contact()
    answer = crm.delete(made.id)
    assert answer.HasField("data")
    assert answer.meta.request_id
    for request in (
        pb.GetContactRequest(id=made.id),
        pb.UpdateContactRequest(id=made.id, last_name="King"),
        pb.DeleteContactRequest(id=made.id),
    ):
        assert outcome(crm.refusal(request)) == (StatusCode.NOT_FOUND, "ErrContactNotFound", [])
    assert not crm.list(include_total=True).data
    assert crm.list(include_total=True).meta.total == 0


def test_a_viewer_reads_and_does_not_write(crm: Crm) -> None:
    made = crm.contact(owner_id=0)
    viewer = crm.by(crm.houses.someone("viewer", user_id=3))
    assert viewer.read(made.id) == made
    assert viewer.list().data == [made]
    for request in (
        pb.CreateContactRequest(first_name="Ada"),
        pb.UpdateContactRequest(id=made.id, last_name="King"),
        pb.DeleteContactRequest(id=made.id),
    ):
        assert outcome(viewer.refusal(request)) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", [])


def test_an_agent_writes_to_own_and_ownerless_contacts_only(agent: Crm, crm: Crm) -> None:
    others = crm.contact(owner_id=1)
    for request in (
        pb.UpdateContactRequest(id=others.id, last_name="King"),
        pb.DeleteContactRequest(id=others.id),
    ):
        assert outcome(agent.refusal(request)) == (StatusCode.PERMISSION_DENIED, "ErrNotYourRecord", [])
    assert crm.read(others.id) == others
    assert agent.change(agent.contact().id, last_name="King").last_name == "King"
    ownerless = crm.contact(owner_id=0)
    assert agent.change(ownerless.id, owner_id=2).owner_id == 2
    agent.delete(ownerless.id)


@pytest.mark.parametrize("role", ["super_admin", "admin", "sales_manager", "supervisor"])
def test_settings_roles_and_supervisors_write_to_everyones_contacts(agent: Crm, role: str) -> None:
    made = agent.contact()
    boss = agent.by(agent.houses.someone(role, user_id=3))
    assert boss.change(made.id, last_name="King").last_name == "King"
    boss.delete(made.id)


def test_permission_comes_before_the_state_of_what_is_named(agent: Crm, crm: Crm) -> None:
    others = crm.contact(owner_id=1)
    failure = agent.refusal(pb.UpdateContactRequest(id=others.id, contact_stage_id=9))
    assert failure.reason == "ErrNotYourRecord"


def test_nobody_without_a_token_is_served(crm: Crm) -> None:
    failure = failing(crm.contacts.ListContacts, pb.ListContactsRequest())
    assert failure.code == StatusCode.UNAUTHENTICATED


def test_identity_being_down_is_said(crm: Crm) -> None:
    failure = crm.refusal(pb.CreateContactRequest(first_name="Ada", owner_id=2))
    assert failure.code == StatusCode.UNAVAILABLE


def test_an_idempotency_key_makes_one_contact(crm: Crm) -> None:
    metadata = crm.who.metadata(idempotency_key="once")
    request = pb.CreateContactRequest(first_name="Ada")
    first = crm.contacts.CreateContact(request, metadata=metadata)
    assert crm.contacts.CreateContact(request, metadata=metadata) == first
    assert crm.list(include_total=True).meta.total == 1


def test_text_of_any_script_is_kept(crm: Crm) -> None:
    made = crm.contact(first_name="Åsa 李 🙂", last_name="O'Brien; drop table contacts; -- %s %(id)s")
    assert crm.read(made.id) == made


def test_no_call_runs_more_statements_than_its_kind_may(crm: Crm, identity: Identity, statements: Counter[str]) -> None:
    crm.seed()
    account, other = crm.account(), crm.account()
    statements.clear()
    made = crm.contact(account_id=account.id, owner_id=2, contact_stage_id=1)
    assert statements["CreateContact"] == 3
    crm.read(made.id)
    assert statements["GetContact"] == 1
    crm.list(include_total=True)
    assert statements["ListContacts"] == 2
    crm.change(made.id, account_id=other.id, contact_stage_id=2)
    assert statements["UpdateContact"] == 4
    crm.delete(made.id)
    assert statements["DeleteContact"] == 3
    crm.contact()
    assert statements["CreateContact"] == 3 + 1
