"""Users over the wire (spec v1 §8.8): added, read, listed; one address each, and never more power than the giver's."""

from typing import Any

import grpc
import pytest
from crm.identity.v1 import identity_admin_service_pb2 as admin_pb
from crm.identity.v1 import identity_service_pb2 as pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from crm.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from tests.harness import Houses, Someone, at_once, failing

ROLES = ("super_admin", "admin", "sales_manager", "supervisor", "agent", "viewer")
SETTINGS = ("super_admin", "admin", "sales_manager")


def jo(**changed: Any) -> pb.CreateUserRequest:
    return pb.CreateUserRequest(**{"email": "jo@acme.example", "name": "Jo", "role": "agent", **changed})


def jo_of(organization_id: int, **changed: Any) -> admin_pb.AddUserRequest:
    members = {"email": "jo@acme.example", "name": "Jo", "role": "agent", **changed}
    return admin_pb.AddUserRequest(organization_id=organization_id, **members)


def test_a_user_is_answered_as_it_was_added(houses: Houses, identity: IdentityServiceStub, demo: int) -> None:
    boss = houses.someone()
    made = identity.CreateUser(jo(email="Jo@Acme.example"), metadata=boss.metadata(x_request_id="req-1"))
    assert made.meta.request_id == "req-1"
    assert (made.data.id, made.data.organization_id, made.data.email) == (2, demo, "Jo@Acme.example")
    assert (made.data.name, made.data.role) == ("Jo", "agent")
    assert identity.GetUser(pb.GetUserRequest(id=2), metadata=boss.metadata()).data == made.data


@pytest.mark.parametrize("email", ["jo@acme.example", "JO@ACME.EXAMPLE", "Jo@Acme.Example"])
def test_an_address_belongs_to_one_user_however_it_is_written(
    houses: Houses, identity: IdentityServiceStub, demo: int, email: str
) -> None:
    identity.CreateUser(jo(), metadata=houses.someone().metadata())
    failure = failing(identity.CreateUser, jo(email=email), houses.someone())
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ErrUserEmailTaken")
    assert failure.fields == ["email"]


def test_two_organisations_may_have_the_same_address(
    admin: IdentityAdminServiceStub, operator: Someone, demo: int
) -> None:
    other = admin.CreateOrganization(admin_pb.CreateOrganizationRequest(name="Other"), metadata=operator.metadata())
    for organization_id in (demo, other.organization_id):
        user = admin.AddUser(jo_of(organization_id), metadata=operator.metadata()).user
        assert (user.organization_id, user.id) == (organization_id, 2)


def test_of_two_users_at_once_with_one_address_one_is_added(
    houses: Houses, identity: IdentityServiceStub, demo: int
) -> None:
    boss = houses.someone()
    outcomes = at_once([lambda: identity.CreateUser(jo(), metadata=boss.metadata(), timeout=20)] * 4)
    assert sum(isinstance(each, pb.CreateUserResponse) for each in outcomes) == 1


def test_the_operators_users_are_unique_too(admin: IdentityAdminServiceStub, operator: Someone, demo: int) -> None:
    admin.AddUser(jo_of(demo), metadata=operator.metadata())
    failure = failing(admin.AddUser, jo_of(demo, email="JO@acme.example"), operator)
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ErrUserEmailTaken")


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"email": ""}, {"email"}),
        ({"email": "jo"}, {"email"}),
        ({"email": "jo@localhost"}, {"email"}),
        ({"email": "Jo <jo@acme.example>"}, {"email"}),
        ({"email": "j" * 60 + "@" + "a.b" * 70 + ".example"}, {"email"}),
        ({"name": ""}, {"name"}),
        ({"name": "x" * 256}, {"name"}),
        ({"role": ""}, {"role"}),
        ({"role": "owner"}, {"role"}),
        ({"name": "", "role": "owner"}, {"name", "role"}),
    ],
)
def test_a_bad_user_is_refused(
    houses: Houses,
    admin: IdentityAdminServiceStub,
    identity: IdentityServiceStub,
    operator: Someone,
    demo: int,
    changed: dict[str, str],
    fields: set[str],
) -> None:
    for failure in (
        failing(identity.CreateUser, jo(**changed), houses.someone()),
        failing(admin.AddUser, jo_of(demo, **changed), operator),
    ):
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert set(failure.fields) == fields


def test_a_user_of_no_organisation_is_refused_and_costs_it_no_id(
    houses: Houses, admin: IdentityAdminServiceStub, identity: IdentityServiceStub, operator: Someone, demo: int
) -> None:
    later = demo + 1
    for failure in (
        failing(admin.AddUser, jo_of(later), operator),
        failing(identity.CreateUser, jo(), houses.someone(organization_id=later)),
    ):
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ErrOrganizationNotFound")
    made = admin.CreateOrganization(admin_pb.CreateOrganizationRequest(name="Later"), metadata=operator.metadata())
    assert (made.organization_id, made.user_id) == (later, 1)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "super_admin"])
def test_nobody_below_makes_a_super_admin(houses: Houses, identity: IdentityServiceStub, demo: int, role: str) -> None:
    failure = failing(identity.CreateUser, jo(role="super_admin"), houses.someone(role))
    assert failure.code == grpc.StatusCode.PERMISSION_DENIED
    assert failure.reason == ("ErrRoleAboveYours" if role in SETTINGS else "PERMISSION_DENIED")


def test_a_super_admin_and_a_service_make_super_admins(
    houses: Houses, identity: IdentityServiceStub, demo: int
) -> None:
    for index, who in enumerate((houses.someone("super_admin"), houses.service())):
        request = jo(role="super_admin", email=f"jo{index}@acme.example")
        assert identity.CreateUser(request, metadata=who.metadata()).data.role == "super_admin"


@pytest.mark.parametrize("role", ROLES)
def test_settings_roles_add_users_and_all_read_them(
    houses: Houses, identity: IdentityServiceStub, demo: int, role: str
) -> None:
    somebody = houses.someone(role)
    if role in SETTINGS:
        assert identity.CreateUser(jo(), metadata=somebody.metadata()).data.id == 2
    else:
        assert failing(identity.CreateUser, jo(), somebody).code == grpc.StatusCode.PERMISSION_DENIED
    assert identity.GetUser(pb.GetUserRequest(id=1), metadata=somebody.metadata()).data.id == 1
    assert identity.ListUsers(pb.ListUsersRequest(), metadata=somebody.metadata()).data[0].id == 1
    assert identity.GetOrganization(pb.GetOrganizationRequest(), metadata=somebody.metadata()).data.id == demo


def test_an_unknown_user_is_not_found(houses: Houses, identity: IdentityServiceStub, demo: int) -> None:
    failure = failing(identity.GetUser, pb.GetUserRequest(id=99), houses.someone())
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ErrUserNotFound")
    assert failing(identity.GetUser, pb.GetUserRequest(id=0), houses.someone()).fields == ["id"]


def test_another_organisations_users_are_not_found(
    houses: Houses, admin: IdentityAdminServiceStub, identity: IdentityServiceStub, operator: Someone, demo: int
) -> None:
    admin.AddUser(jo_of(demo), metadata=operator.metadata())
    other = admin.CreateOrganization(admin_pb.CreateOrganizationRequest(name="Other"), metadata=operator.metadata())
    stranger = houses.someone(organization_id=other.organization_id)
    assert failing(identity.GetUser, pb.GetUserRequest(id=2), stranger).reason == "ErrUserNotFound"
    listed = identity.ListUsers(pb.ListUsersRequest(include_total=True), metadata=stranger.metadata())
    assert [(each.organization_id, each.id) for each in listed.data] == [(other.organization_id, 1)]
    assert listed.meta.total == 1
    batch = admin.BatchGetUsers(admin_pb.BatchGetUsersRequest(ids=[1, 2]), metadata=stranger.metadata())
    assert [each.organization_id for each in batch.users] == [other.organization_id]


def test_users_are_listed_by_id_page_by_page(
    houses: Houses, admin: IdentityAdminServiceStub, identity: IdentityServiceStub, operator: Someone, demo: int
) -> None:
    ids = [1] + [
        admin.AddUser(jo_of(demo, email=f"jo{n}@acme.example"), metadata=operator.metadata()).user.id for n in range(6)
    ]
    somebody = houses.someone("viewer")

    def listed(**members: Any) -> pb.ListUsersResponse:
        return identity.ListUsers(pb.ListUsersRequest(**members), metadata=somebody.metadata())

    whole = listed(include_total=True)
    assert [each.id for each in whole.data] == sorted(ids)
    assert (whole.meta.total, whole.meta.has_more, whole.meta.per_page, whole.meta.page) == (7, False, 50, 1)
    assert not whole.meta.next_page_token
    second = listed(page=2, per_page=3)
    assert [each.id for each in second.data] == ids[3:6]
    assert second.meta.has_more
    assert not second.meta.HasField("total")
    assert [each.id for each in listed(per_page=3, page_token=second.meta.next_page_token).data] == ids[6:]
    assert not listed(page=9).data
    assert listed(per_page=1000).meta.per_page == 100


@pytest.mark.parametrize(
    ("members", "field"),
    [({"page": -1}, "page"), ({"per_page": -1}, "per_page"), ({"page_token": "made-up"}, "page_token")],
)
def test_a_bad_page_is_refused(
    houses: Houses, identity: IdentityServiceStub, demo: int, members: dict[str, Any], field: str
) -> None:
    failure = failing(identity.ListUsers, pb.ListUsersRequest(**members), houses.someone())
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


def test_users_are_read_in_one_batch_by_id_without_the_unknown(
    houses: Houses, admin: IdentityAdminServiceStub, operator: Someone, demo: int
) -> None:
    admin.AddUser(jo_of(demo), metadata=operator.metadata())
    request = admin_pb.BatchGetUsersRequest(ids=[2, 77, 1, 2])
    batch = admin.BatchGetUsers(request, metadata=houses.someone("viewer").metadata())
    assert [each.id for each in batch.users] == [1, 2]
    too_many = admin_pb.BatchGetUsersRequest(ids=range(1, 502))
    assert failing(admin.BatchGetUsers, too_many, houses.someone()).fields == ["ids"]


def test_a_repeat_under_the_same_key_adds_nobody(admin: IdentityAdminServiceStub, operator: Someone, demo: int) -> None:
    keyed = operator.metadata(idempotency_key="jo")
    assert admin.AddUser(jo_of(demo), metadata=keyed) == admin.AddUser(jo_of(demo), metadata=keyed)
