"""Access: every rpc declares who may call it, and one interceptor holds everyone to it (spec v1 D11)."""

from pathlib import Path

import crm
import grpc
import pytest
from crm.runtime.v1 import access_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto
from google.protobuf.wrappers_pb2 import StringValue
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services import SERVICES
from services.runtime.server import Wiring, start
from tests.harness import Failure, Houses, Keys, Someone, failing
from tests.runtime import toy

ROLES = ("super_admin", "admin", "sales_manager", "supervisor", "agent", "viewer")
REACHED = {
    "Public": {*ROLES, "service", "unknown", "nobody"},
    "Any": {*ROLES, "service"},
    "Agent": {*ROLES, "service"} - {"viewer"},
    "Settings": {"super_admin", "admin", "sales_manager", "service"},
    "Service": {"service"},
}


def declared() -> list[tuple[str, MethodDescriptorProto]]:
    """Every rpc of the contract."""
    image = Path(next(iter(crm.__path__))).parent / "descriptors.binpb"
    files = FileDescriptorSet.FromString(image.read_bytes()).file
    return [
        (f"{file.package}.{service.name}/{method.name}", method)
        for file in files
        if file.package.startswith("crm.")
        for service in file.service
        for method in service.method
    ]


def test_every_rpc_of_the_contract_declares_its_access() -> None:
    access = {name: method.options.Extensions[access_pb2.access] for name, method in declared()}
    assert len(access) > 50
    assert not [name for name, each in access.items() if each == access_pb2.ACCESS_UNSPECIFIED]


def test_the_gateway_shows_no_rpc_of_our_own_and_only_the_keys_to_strangers() -> None:
    shown = [(name, method) for name, method in declared() if method.options.HasExtension(annotations_pb2.http)]
    access = {name: method.options.Extensions[access_pb2.access] for name, method in shown}
    assert access_pb2.ACCESS_SERVICE not in access.values()
    public = {name for name, each in access.items() if each == access_pb2.ACCESS_PUBLIC}
    assert public == {"crm.identity.v1.IdentityService/GetJwks"}


def test_reads_are_everyones_and_writes_are_not_viewers() -> None:
    for name, method in declared():
        bound = method.options.Extensions[annotations_pb2.http]
        access = method.options.Extensions[access_pb2.access]
        if bound.get:
            assert access in (access_pb2.ACCESS_ANY, access_pb2.ACCESS_PUBLIC), name
        elif bound.WhichOneof("pattern"):
            assert access in (access_pb2.ACCESS_AGENT, access_pb2.ACCESS_SETTINGS), name


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_serves_its_whole_contract(houses: Houses, service: str) -> None:
    database = ProtoReflectionDescriptorDatabase(houses.start(service).channel(service))
    served = {name for name in database.get_services() if name.startswith("crm.")}
    assert served == {name.partition("/")[0] for name, _ in declared() if name.startswith(f"crm.{service}.")}


def caller(houses: Houses, role: str) -> Someone | None:
    if role == "nobody":
        return None
    return houses.service(user_id=1) if role == "service" else houses.someone(role)


@pytest.mark.parametrize("rpc", toy.RPCS)
def test_a_role_reaches_what_it_may_and_no_more(houses: Houses, rpc: str) -> None:
    with toy.serving(houses.settings("forms"), lambda _who, text: text.upper()) as served:
        for role in (*ROLES, "service", "unknown", "nobody"):
            who = caller(houses, role)
            if role in REACHED[rpc]:
                metadata = who.metadata() if who else ()
                assert served.rpc(rpc)(StringValue(value="hi"), metadata=metadata, timeout=20).value == "HI", role
            else:
                failure = failing(served.rpc(rpc), StringValue(), who)
                refused = grpc.StatusCode.PERMISSION_DENIED if who else grpc.StatusCode.UNAUTHENTICATED
                assert (failure.code, failure.reason) == (refused, refused.name), role


def test_a_role_is_known_however_it_is_written(houses: Houses, keys: Keys) -> None:
    with toy.serving(houses.settings("forms"), lambda who, _text: ",".join(who.roles)) as served:
        for written in ("Super Admin", "super-admin", " SUPER_ADMIN "):
            who = Someone(keys.token(1, 1, written), 1, 1)
            assert served.rpc("Settings")(StringValue(), metadata=who.metadata()).value == "super_admin"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b"])
def test_a_malformed_authorization_is_refused(houses: Houses, authorization: str) -> None:
    with toy.serving(houses.settings("forms"), lambda _who, text: text) as served:
        with pytest.raises(grpc.RpcError) as raised:
            served.rpc()(StringValue(), metadata=(("authorization", authorization),))
        assert Failure(raised.value).code == grpc.StatusCode.UNAUTHENTICATED


def test_the_scheme_is_read_in_any_case(houses: Houses) -> None:
    token = houses.someone().token
    with toy.serving(houses.settings("forms"), lambda _who, text: text) as served:
        for scheme in ("bearer", "BEARER"):
            served.rpc()(StringValue(), metadata=(("authorization", f"{scheme} {token}"),))


def test_a_server_with_an_undeclared_rpc_does_not_start(houses: Houses) -> None:
    with pytest.raises(TypeError, match="Open declares no access"):
        start(houses.settings("forms"), Wiring(lambda _server: [toy.UNGUARDED]))


def test_a_servicer_that_is_not_watched_is_not_served(houses: Houses, admin: Someone) -> None:
    """A service that forgets to name one of its servicers must not open it to the world."""
    registered = toy.wiring(lambda _who, text: text).register

    def forgetful(server: grpc.Server) -> list[str]:
        registered(server)
        return []

    settings = houses.settings("forms")
    server, _, _ = start(settings, Wiring(forgetful))
    with grpc.insecure_channel(settings.listen) as channel:
        failure = failing(toy.Toy(channel).rpc("Public"), StringValue(), admin)
        assert failure.code == grpc.StatusCode.UNIMPLEMENTED
    server.stop(None).wait()
