"""What is derived from the contract."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from crm.runtime.v1 import access_pb2
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.render import REPLIES, public_services, render
from tests.gateway.envoy import DESCRIPTORS

ADDRESSES = dict.fromkeys(("identity", "contacts", "fields", "forms", "pipelines"), "127.0.0.1:7100")


def rpc(name: str, path: str, access: str = "ACCESS_ANY", *, streams: bool = False) -> str:
    """An rpc in protobuf's text format, bound to GET path unless that is empty."""
    binding = f'[google.api.http] {{ get: "{path}" }}' if path else ""
    options = f"options {{ [crm.runtime.v1.access]: {access} {binding} }}"
    return f'method {{ name: "{name}" server_streaming: {str(streams).lower()} {options} }}'


def contract_of(*rpcs: str) -> FileDescriptorSet:
    """A contract with one service, crm.toys.v1.ToyService."""
    service = f'service {{ name: "ToyService" {" ".join(rpcs)} }}'
    return text_format.Parse(f'file {{ package: "crm.toys.v1" {service} }}', FileDescriptorSet())


GET_TOYS = rpc("Get", "/api/v1/toys")


def rendered(directory: Path, contract: FileDescriptorSet, **changed: Any) -> str:
    descriptors = directory / "descriptors.binpb"
    descriptors.write_bytes(contract.SerializeToString())
    settings: dict[str, Any] = {
        "port": 8080,
        "admin_port": 9901,
        "addresses": {"toys": "toys:7100"},
        "jwks": directory / "jwks.json",
        "descriptors": descriptors,
        "issuer": "i",
        "audience": "a",
    }
    return render(directory, **{**settings, **changed}).read_text()


def value(config: str, member: str) -> Any:
    """The value of a member that the template fills in."""
    (line,) = (line for line in config.splitlines() if line.strip().startswith(f"{member}: "))
    return json.loads(line.partition(": ")[2])


def test_a_service_is_public_when_it_has_an_http_binding() -> None:
    contract = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    found = {service.name: service.domain for service in public_services(contract)}
    assert found["crm.fields.v1.CrmCustomFieldService"] == "fields"
    assert found["crm.pipelines.v1.CrmPipelineRunService"] == "pipelines"
    assert "crm.fields.v1.FieldRulesService" not in found
    assert "crm.identity.v1.IdentityAdminService" not in found


def test_no_rpc_for_services_alone_has_an_http_binding() -> None:
    contract = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    for service in public_services(contract):
        for method in service.methods:
            assert method.options.Extensions[access_pb2.access] != access_pb2.ACCESS_SERVICE, method.name


def test_every_public_service_is_routed_to_its_cluster_and_needs_a_token(tmp_path: Path) -> None:
    contract = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    config = rendered(tmp_path, contract, addresses=ADDRESSES)
    public = {service.name: service.domain for service in public_services(contract)}
    *routes, elsewhere = value(config, "routes")
    assert {route["match"]["prefix"]: route["route"]["cluster"] for route in routes} == {
        f"/{name}/": domain for name, domain in public.items()
    }
    assert elsewhere["match"] == {"prefix": "/"}
    guarded = {rule["match"]["prefix"] for rule in value(config, "rules") if "requires" in rule}
    assert guarded == {"/api/", *(f"/{name}/" for name in public)}


def test_a_public_rpc_is_let_through_by_that_method_alone(tmp_path: Path) -> None:
    config = rendered(tmp_path, contract_of(rpc("Get", "/api/v1/toys", "ACCESS_PUBLIC")))
    free = [rule["match"] for rule in value(config, "rules") if "requires" not in rule]
    assert [match["path"] for match in free] == ["/crm.toys.v1.ToyService/Get", "/api/v1/toys"]
    assert free[1]["headers"] == [{"name": ":method", "string_match": {"exact": "GET"}}]


def test_a_stream_may_last(tmp_path: Path) -> None:
    contract = contract_of(GET_TOYS, rpc("Watch", "", streams=True))
    stream, calls, _ = value(rendered(tmp_path, contract), "routes")
    assert stream["match"] == {"path": "/crm.toys.v1.ToyService/Watch"}
    assert (stream["route"]["timeout"], stream["route"]["idle_timeout"]) == ("0s", "300s")
    assert "request_headers_to_add" not in stream
    assert calls["route"]["timeout"] == "15s"


@pytest.mark.parametrize(("path", "access"), [("/toys", "ACCESS_ANY"), ("/api/v1/toys/{id}", "ACCESS_PUBLIC")])
def test_a_path_that_cannot_be_guarded_is_refused(tmp_path: Path, path: str, access: str) -> None:
    with pytest.raises(ValueError, match=r"token|variables"):
        rendered(tmp_path, contract_of(rpc("Get", path, access)))


def test_a_public_service_without_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        rendered(tmp_path, contract_of(GET_TOYS), addresses={})


def test_no_setting_can_break_out_of_its_place(tmp_path: Path) -> None:
    odd = 'a: "b" # \n - ${c} %d'
    contract = contract_of(GET_TOYS)
    assert value(rendered(tmp_path, contract, issuer=odd), "issuer") == odd


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("toys:7100", "toys", 7100), ("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:7100", "::1", 7100)],
)
def test_an_address_is_a_host_and_a_port(tmp_path: Path, address: str, host: str, port: int) -> None:
    contract = contract_of(GET_TOYS)
    rendered(tmp_path, contract, addresses={"toys": address})
    assert f'{{address: "{host}", port_value: {port}}}' in (tmp_path / "clusters.yaml").read_text()


def test_every_error_code_is_one_of_grpcs() -> None:
    names = {code.name for code in grpc.StatusCode}
    assert {error_code for _, error_code, _ in REPLIES} <= names
