"""The operator's client of identity, against a stand-in behind the real server: tokens, answers and refusals."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from crm.identity.v1 import identity_admin_service_pb2 as pb
from crm.identity.v1 import identity_admin_service_pb2_grpc as rpcs
from crm.identity.v1 import user_pb2
from pydantic import SecretStr

from deploy.local.admin import Admin, Refusal
from services.runtime.callers import caller
from services.runtime.errors import NotFound
from services.runtime.server import Wiring, start
from services.runtime.settings import Settings

SECRET = "a secret that only this test and its stand-in know"


class UserNotFound(NotFound):
    "There is no such user."


class StandIn(rpcs.IdentityAdminServiceServicer):
    """An identity with one user, 7 of organisation 3, that sees which organisation the token speaks for."""

    def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: grpc.ServicerContext
    ) -> pb.CreateOrganizationResponse:
        assert caller(context).is_service
        return pb.CreateOrganizationResponse(organization_id=len(request.name), user_id=1)

    def AddUser(self, request: pb.AddUserRequest, context: grpc.ServicerContext) -> pb.AddUserResponse:
        return pb.AddUserResponse(user=user_pb2.User(id=caller(context).organization_id * 100))

    def MintToken(self, request: pb.MintTokenRequest, context: grpc.ServicerContext) -> pb.MintTokenResponse:
        if (request.organization_id, request.user_id) != (3, 7):
            raise UserNotFound()
        return pb.MintTokenResponse(token=f"for {request.ttl_seconds} s")

    def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: grpc.ServicerContext) -> pb.CreateApiKeyResponse:
        return pb.CreateApiKeyResponse(api_key=f"mlr_{request.user_id}")


@pytest.fixture
def address() -> Iterator[str]:
    def register(server: grpc.Server) -> list[str]:
        stand_in: Any = StandIn  # abstract to the type checker: it has only the rpcs used here
        rpcs.add_IdentityAdminServiceServicer_to_server(stand_in(), server)
        return ["crm.identity.v1.IdentityAdminService"]

    server, port, _ = start(Settings(secret=SecretStr(SECRET)), Wiring(register))
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_what_is_made_comes_back(address: str) -> None:
    with Admin(address, SECRET) as admin:
        assert admin.create_organization("Acme") == (4, 1)
        assert admin.create_user(3, "ann@acme.example", "Ann", "agent") == 300
        assert admin.mint_token(3, 7, 60) == "for 60 s"
        assert admin.create_api_key(3, 7) == "mlr_7"


def test_a_user_exists_or_not(address: str) -> None:
    with Admin(address, SECRET) as admin:
        assert admin.has_user(3, 7)
        assert not admin.has_user(3, 8)


def test_a_refusal_carries_its_named_error(address: str) -> None:
    with Admin(address, SECRET) as admin, pytest.raises(Refusal, match=r"ErrUserNotFound") as refusal:
        admin.mint_token(3, 8, 60)
    assert refusal.value.code == grpc.StatusCode.NOT_FOUND


def test_what_is_wrong_with_each_member_is_said(address: str) -> None:
    with Admin(address, SECRET) as admin, pytest.raises(Refusal, match=r"(?s)\n    email: .*\n    role: ") as refusal:
        admin.create_user(3, "nobody", "Nobody", "king")
    assert refusal.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_another_secret_is_refused(address: str) -> None:
    with Admin(address, "the secret of another deployment altogether") as admin:
        with pytest.raises(Refusal) as refusal:
            admin.create_organization("Acme")
        assert refusal.value.code == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(Refusal):
            admin.has_user(3, 7)


def test_identity_that_is_gone_is_a_refusal_too() -> None:
    with Admin("127.0.0.1:9", SECRET) as admin, pytest.raises(Refusal) as refusal:
        admin.create_organization("Acme")
    assert refusal.value.code == grpc.StatusCode.UNAVAILABLE
