"""Identity as a real server, its operator, and contacts as a fake that keeps what it was told."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from crm.contacts.v1 import record_service_pb2 as records_pb
from crm.contacts.v1 import record_service_pb2_grpc as records_service
from crm.identity.v1 import identity_admin_service_pb2 as admin_pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from crm.identity.v1.identity_service_pb2_grpc import IdentityServiceStub

from services.runtime.auth import Verifier
from tests.harness import Houses, Someone


class Contacts(records_service.RecordServiceServicer):
    """Contacts, of which identity knows one rpc. `seeded` is the organisations it was told of, in order."""

    def __init__(self, verifier: Verifier, address: str) -> None:
        self.seeded: list[int] = []
        self.verifier = verifier
        self._server = grpc.server(ThreadPoolExecutor(4))
        records_service.add_RecordServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(address)
        self._server.start()

    def SeedOrganization(
        self, request: records_pb.SeedOrganizationRequest, context: grpc.ServicerContext
    ) -> records_pb.SeedOrganizationResponse:
        token = dict(context.invocation_metadata())["authorization"]
        identity = self.verifier.verify(str(token).removeprefix("Bearer "))
        assert identity.is_service
        self.seeded.append(identity.organization_id)
        return records_pb.SeedOrganizationResponse()

    def CheckWriteAccess(
        self, request: records_pb.CheckWriteAccessRequest, context: grpc.ServicerContext
    ) -> records_pb.CheckWriteAccessResponse:
        raise NotImplementedError

    def BatchGetContactStages(
        self, request: records_pb.BatchGetContactStagesRequest, context: grpc.ServicerContext
    ) -> records_pb.BatchGetContactStagesResponse:
        raise NotImplementedError

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def contacts(houses: Houses) -> Iterator[Contacts]:
    settings = houses.settings("contacts")
    fake = Contacts(Verifier(settings), settings.listen)
    yield fake
    fake.stop()


@pytest.fixture
def admin(houses: Houses, contacts: Contacts) -> IdentityAdminServiceStub:
    """The operator's rpcs."""
    return IdentityAdminServiceStub(houses.start("identity").channel("identity"))


@pytest.fixture
def identity(houses: Houses, admin: IdentityAdminServiceStub) -> IdentityServiceStub:
    """Everyone's rpcs."""
    return IdentityServiceStub(houses.channel("identity"))


@pytest.fixture
def operator(houses: Houses) -> Someone:
    return houses.service(organization_id=0)


@pytest.fixture
def demo(admin: IdentityAdminServiceStub, operator: Someone) -> int:
    """The first organisation's id, with user 1 its super admin."""
    request = admin_pb.CreateOrganizationRequest(name="Demo")
    return admin.CreateOrganization(request, metadata=operator.metadata()).organization_id
