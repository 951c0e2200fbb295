"""Organisations over the wire (spec v1 §8.8): founded by the operator, seeded by contacts, read by their people."""

import grpc
import psycopg
import pytest
from crm.identity.v1 import identity_admin_service_pb2 as admin_pb
from crm.identity.v1 import identity_service_pb2 as pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from crm.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from services.runtime import outbox
from tests.harness import Houses, Someone, at_once, eventually, failing
from tests.identity.conftest import Contacts

ACME = admin_pb.CreateOrganizationRequest(name="Acme")


def test_the_first_organisation_is_1_and_its_first_user_is_its_super_admin(
    houses: Houses, admin: IdentityAdminServiceStub, identity: IdentityServiceStub, operator: Someone
) -> None:
    made = admin.CreateOrganization(ACME, metadata=operator.metadata())
    assert (made.organization_id, made.user_id) == (1, 1)
    somebody = houses.someone()
    organization = identity.GetOrganization(pb.GetOrganizationRequest(), metadata=somebody.metadata()).data
    assert (organization.id, organization.name) == (1, "Acme")
    assert organization.HasField("created_at")
    user = identity.GetUser(pb.GetUserRequest(id=1), metadata=somebody.metadata()).data
    assert (user.organization_id, user.name, user.role) == (1, "Admin", "super_admin")
    assert user.email == "admin@1.millrace.example"


def test_organisations_are_counted_and_their_users_are_counted_apart(
    admin: IdentityAdminServiceStub, operator: Someone
) -> None:
    made = [admin.CreateOrganization(ACME, metadata=operator.metadata()) for _ in range(3)]
    assert [each.organization_id for each in made] == sorted({each.organization_id for each in made})
    assert [each.user_id for each in made] == [1, 1, 1]


def test_the_admin_has_the_address_that_was_asked_for(
    houses: Houses, admin: IdentityAdminServiceStub, identity: IdentityServiceStub, operator: Someone
) -> None:
    request = admin_pb.CreateOrganizationRequest(name="Acme", admin_email="Jo@acme.example")
    admin.CreateOrganization(request, metadata=operator.metadata())
    user = identity.GetUser(pb.GetUserRequest(id=1), metadata=houses.someone().metadata()).data
    assert user.email == "Jo@acme.example"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "Acme", "admin_email": "nobody"}, "admin_email"),
        ({"name": "Acme", "admin_email": "jo@localhost"}, "admin_email"),
        ({"name": "Acme", "admin_email": "j" * 250 + "@a.example"}, "admin_email"),
    ],
)
def test_a_bad_organisation_is_refused(
    admin: IdentityAdminServiceStub, operator: Someone, members: dict[str, str], field: str
) -> None:
    failure = failing(admin.CreateOrganization, admin_pb.CreateOrganizationRequest(**members), operator)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(failure.fields) == {field}


def test_a_name_of_255_letters_is_accepted(admin: IdentityAdminServiceStub, operator: Someone) -> None:
    admin.CreateOrganization(admin_pb.CreateOrganizationRequest(name="é" * 255), metadata=operator.metadata())


def test_contacts_has_seeded_the_organisation_when_the_call_returns(
    admin: IdentityAdminServiceStub, contacts: Contacts, operator: Someone
) -> None:
    made = admin.CreateOrganization(ACME, metadata=operator.metadata())
    assert contacts.seeded == [made.organization_id]


def test_an_organisation_is_seeded_once_contacts_is_back(
    houses: Houses, operator: Someone, contacts: Contacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SWEEP_EVERY", 0.05)
    contacts.stop()
    admin = IdentityAdminServiceStub(houses.start("identity").channel("identity"))
    made = admin.CreateOrganization(ACME, metadata=operator.metadata(), timeout=20)
    settings = houses.settings("contacts")
    back = Contacts(contacts.verifier, settings.listen)
    with eventually() as until:
        until(lambda: back.seeded == [made.organization_id])
    back.stop()


def test_a_repeat_under_the_same_key_is_the_same_organisation(
    admin: IdentityAdminServiceStub, contacts: Contacts, operator: Someone, admin_url: str
) -> None:
    keyed = operator.metadata(idempotency_key="first")
    made = admin.CreateOrganization(ACME, metadata=keyed)
    assert admin.CreateOrganization(ACME, metadata=keyed) == made
    assert contacts.seeded == [made.organization_id]
    assert rows(admin_url, "organizations") == rows(admin_url, "users") == 1


def test_two_repeats_at_once_make_one_organisation(
    admin: IdentityAdminServiceStub, contacts: Contacts, operator: Someone, admin_url: str
) -> None:
    keyed = operator.metadata(idempotency_key="first")
    outcomes = at_once([lambda: admin.CreateOrganization(ACME, metadata=keyed, timeout=20)] * 4)
    assert len({str(each) for each in outcomes}) == 1
    assert outcomes[0] == admin_pb.CreateOrganizationResponse(organization_id=1, user_id=1)
    assert contacts.seeded == [1]
    assert rows(admin_url, "organizations") == rows(admin_url, "users") == 1


def test_a_repeat_finishes_what_a_crash_left_between_the_id_and_the_organisation(
    admin: IdentityAdminServiceStub, contacts: Contacts, operator: Someone, admin_url: str
) -> None:
    keyed = operator.metadata(idempotency_key="first")
    made = admin.CreateOrganization(ACME, metadata=keyed)
    with psycopg.connect(admin_url) as connection:
        # What the crash would not have written: everything of the organisation's own transaction.
        for table in ("outbox", "idempotency_keys", "users", "organizations"):
            connection.execute(f"delete from identity.{table} where organization_id = {made.organization_id}")
    again = admin.CreateOrganization(ACME, metadata=keyed)
    assert again.organization_id == made.organization_id
    assert rows(admin_url, "organizations") == rows(admin_url, "users") == 1


def test_another_request_under_the_same_key_is_refused(admin: IdentityAdminServiceStub, operator: Someone) -> None:
    admin.CreateOrganization(ACME, metadata=operator.metadata(idempotency_key="first"))
    other = admin_pb.CreateOrganizationRequest(name="Umbrella")
    failure = failing(admin.CreateOrganization, other, operator, idempotency_key="first")
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ErrIdempotencyKeyReused")


def test_an_organisation_that_does_not_exist_is_not_found(
    houses: Houses, identity: IdentityServiceStub, demo: int
) -> None:
    stranger = houses.someone(organization_id=99)
    failure = failing(identity.GetOrganization, pb.GetOrganizationRequest(), stranger)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ErrOrganizationNotFound")


def rows(admin_url: str, table: str) -> int:
    with psycopg.connect(admin_url) as connection:
        found = connection.execute(f"select count(*) from identity.{table}").fetchone()
    assert found is not None
    return int(found[0])
