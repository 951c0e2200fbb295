"""The operator's side of identity: organisations, users, tokens and keys, asked for with a service token."""

from types import TracebackType
from typing import Self, TypeVar, cast

import grpc
from crm.identity.v1 import identity_admin_service_pb2 as pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from google.rpc import error_details_pb2, status_pb2

from deploy.local.errors import DeployError
from services.runtime.auth import service_token

_PATIENCE = 30.0
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Refusal(DeployError):
    """Identity said no, or nothing."""

    def __init__(self, error: grpc.RpcError) -> None:
        call = cast("grpc.Call", error)  # what a stub raises is both
        self.code = call.code()
        super().__init__(f"{call.details()} {_explanation(call)}")


class Admin:
    """A connection to a running identity service."""

    def __init__(self, address: str, secret: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = IdentityAdminServiceStub(self._channel)
        self._secret = secret

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def create_organization(self, name: str, *, key: str = "") -> tuple[int, int]:
        """A new organisation with its admin user; returns both ids. Under the same key it is made once."""
        made = self._call(self._stub.CreateOrganization, pb.CreateOrganizationRequest(name=name), key)
        return made.organization_id, made.user_id

    def create_user(self, organization_id: int, email: str, name: str, role: str) -> int:
        """A new user of an organisation; returns the id."""
        request = pb.AddUserRequest(organization_id=organization_id, email=email, name=name, role=role)
        return self._call(self._stub.AddUser, request).user.id

    def has_user(self, organization_id: int, user_id: int) -> bool:
        """Whether there is such a user."""
        try:
            self.mint_token(organization_id, user_id, 1)
        except Refusal as refusal:
            if refusal.code == grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    def mint_token(self, organization_id: int, user_id: int, seconds: int) -> str:
        """A token of a user; 0 seconds = identity's default lifetime."""
        request = pb.MintTokenRequest(organization_id=organization_id, user_id=user_id, ttl_seconds=seconds)
        return self._call(self._stub.MintToken, request).token

    def create_api_key(self, organization_id: int, user_id: int) -> str:
        """A new API key that acts as a user."""
        request = pb.CreateApiKeyRequest(organization_id=organization_id, user_id=user_id)
        return self._call(self._stub.CreateApiKey, request).api_key

    def _call(
        self, method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]", request: _Request, key: str = ""
    ) -> _Response:
        token = service_token(self._secret, getattr(request, "organization_id", 0))
        try:
            return method(
                request, timeout=_PATIENCE, metadata=(("authorization", f"Bearer {token}"), ("idempotency-key", key))
            )
        except grpc.RpcError as error:
            raise Refusal(error) from error


def _explanation(error: grpc.Call) -> str:
    """What the details of a refusal add: its named error (``ErrUserNotFound``) and a line per member at fault."""
    reason, members = error.code().name, ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(bad):
                    members = "".join(f"\n    {each.field}: {each.description}" for each in bad.field_violations)
    return f"({reason}){members}"
