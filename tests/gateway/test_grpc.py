"""What gRPC and gRPC-Web callers see, at the same port as everyone."""

import base64
from typing import cast

import grpc
import httpx
import pytest
from crm.contacts.v1 import contact_service_pb2, contact_service_pb2_grpc
from crm.fields.v1 import (
    custom_field_service_pb2,
    custom_field_service_pb2_grpc,
    field_rules_service_pb2,
    field_rules_service_pb2_grpc,
)
from crm.identity.v1 import identity_service_pb2, identity_service_pb2_grpc

from tests.gateway.envoy import Gateway, until
from tests.gateway.fakes import Stage, failing

Signed = tuple[tuple[str, str], ...]
Fields = custom_field_service_pb2_grpc.CrmCustomFieldServiceStub

GET = custom_field_service_pb2.GetCustomFieldRequest(id=7)
ERROR = {"code": 404, "message": "é", "error_code": "ErrCustomFieldNotFound", "details": [], "request_id": "r-1"}


def metadata_of(error: grpc.RpcError) -> dict[str, str | bytes]:
    """Everything that came beside the status."""
    call = cast(grpc.Call, error)
    return dict((*call.initial_metadata(), *call.trailing_metadata()))


@pytest.fixture
def fields(channel: grpc.Channel) -> Fields:
    return Fields(channel)


def test_a_call_reaches_the_service(fields: Fields, stage: Stage, signed: Signed) -> None:
    assert fields.GetCustomField(GET, metadata=signed).data.id == 7
    assert stage.call.request == GET


def test_metadata_reaches_the_service_and_the_request_id_comes_back(
    fields: Fields, stage: Stage, signed: Signed
) -> None:
    sent = (
        *signed,
        ("x-request-id", "r-1"),
        ("idempotency-key", "k-1"),
        ("x-millrace-error", "mine"),
        ("x-envoy-anything", "mine"),
    )
    _, call = fields.GetCustomField.with_call(GET, metadata=sent)
    seen = stage.call.metadata
    assert (seen["x-request-id"], seen["idempotency-key"]) == ("r-1", "k-1")
    assert "mine" not in seen.values()
    assert ("x-request-id", "r-1") in call.initial_metadata()


@pytest.mark.parametrize(("asked", "given"), [(5, 5), (None, 15)])
def test_the_callers_deadline_reaches_the_service(
    fields: Fields, stage: Stage, signed: Signed, asked: float | None, given: float
) -> None:
    fields.GetCustomField(GET, metadata=signed, timeout=asked)
    assert given - 4 < stage.call.remaining < given + 1


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_services_error_arrives_as_grpc_has_it(
    fields: Fields, stage: Stage, signed: Signed, headers_first: bool
) -> None:
    stage.answer = failing(grpc.StatusCode.NOT_FOUND, ERROR, message="kein Feld ✗", headers_first=headers_first)
    with pytest.raises(grpc.RpcError) as refused:
        fields.GetCustomField(GET, metadata=signed)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "kein Feld ✗"
    assert "x-millrace-error" not in metadata_of(refused.value)


def test_error_details_arrive(fields: Fields, stage: Stage, signed: Signed) -> None:
    def answer(_request: object, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x00\xff details"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no")

    stage.answer = answer  # type: ignore[assignment]
    with pytest.raises(grpc.RpcError) as refused:
        fields.GetCustomField(GET, metadata=signed)
    assert metadata_of(refused.value)["grpc-status-details-bin"] == b"\x00\xff details"


@pytest.mark.parametrize("claims", [None, {"exp": 1}, {"iss": "millrace:services"}, {"aud": "another-api"}], ids=str)
def test_a_call_without_a_good_token_is_unauthenticated(
    fields: Fields, gateway: Gateway, stage: Stage, claims: dict[str, object] | None
) -> None:
    metadata = () if claims is None else (("authorization", f"Bearer {gateway.token(claims)}"),)
    with pytest.raises(grpc.RpcError) as refused:
        fields.GetCustomField(GET, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (refused.value.details() or "").startswith(("Jwt ", "Audiences "))
    assert not stage.calls


def test_the_public_keys_need_no_token(channel: grpc.Channel) -> None:
    identity = identity_service_pb2_grpc.IdentityServiceStub(channel)
    assert identity.GetJwks(identity_service_pb2.GetJwksRequest()) == identity_service_pb2.GetJwksResponse()


def test_an_internal_service_of_the_same_process_is_not_there(
    channel: grpc.Channel, stage: Stage, signed: Signed
) -> None:
    rules = field_rules_service_pb2_grpc.FieldRulesServiceStub(channel)
    with pytest.raises(grpc.RpcError) as refused:
        rules.JudgeValues(field_rules_service_pb2.JudgeValuesRequest(), metadata=signed)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not stage.calls


@pytest.mark.parametrize(
    "path",
    ["/crm.fields.v1.FieldRulesService/JudgeValues", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"],
)
def test_an_internal_service_is_not_there_for_http_callers_either(
    api: httpx.Client, gateway: Gateway, stage: Stage, path: str
) -> None:
    for content_type in ("application/json", "application/grpc-web+proto"):
        answer = api.post(gateway.url + path, content=b"", headers={"content-type": content_type})
        assert answer.status_code == 404
    assert not stage.calls


def test_a_service_that_is_down_is_unavailable(channel: grpc.Channel, signed: Signed) -> None:
    contacts = contact_service_pb2_grpc.CrmContactServiceStub(channel)
    with pytest.raises(grpc.RpcError) as refused:
        contacts.GetContact(contact_service_pb2.GetContactRequest(id=1), metadata=signed)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "the service is not available"


def test_a_service_that_is_late_is_given_up(fields: Fields, stage: Stage, signed: Signed) -> None:
    given_up = []

    def late(request: object, context: grpc.ServicerContext) -> custom_field_service_pb2.GetCustomFieldResponse:
        until(lambda: None if context.is_active() else True, "the end of the call")
        given_up.append(True)
        return custom_field_service_pb2.GetCustomFieldResponse()

    stage.answer = late
    with pytest.raises(grpc.RpcError) as refused:
        fields.GetCustomField(GET, metadata=signed, timeout=0.2)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: given_up or None, "the service to notice")


def test_a_message_larger_than_services_take_is_refused(fields: Fields, stage: Stage, signed: Signed) -> None:
    large = custom_field_service_pb2.CreateCustomFieldRequest(key="a" * (9 * 1024 * 1024))
    with pytest.raises(grpc.RpcError) as refused:
        fields.CreateCustomField(large, metadata=signed)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not stage.calls


# --- gRPC-Web


def framed(payload: bytes) -> bytes:
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def web(gateway: Gateway, content: bytes, content_type: str, *, token: bool = True) -> httpx.Response:
    headers = {"content-type": content_type, "x-grpc-web": "1", "origin": "https://app.example"}
    if token:
        headers["authorization"] = f"Bearer {gateway.token()}"
    url = f"{gateway.url}/crm.fields.v1.CrmCustomFieldService/GetCustomField"
    return httpx.post(url, content=content, headers=headers)


def test_a_browser_calls_by_grpc_web(gateway: Gateway, stage: Stage) -> None:
    answer = web(gateway, framed(GET.SerializeToString()), "application/grpc-web+proto")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    expected = custom_field_service_pb2.GetCustomFieldResponse()
    expected.data.id = 7
    assert answer.content.startswith(framed(expected.SerializeToString()))
    assert b"grpc-status:0" in answer.content


def test_a_browser_calls_by_grpc_web_text(gateway: Gateway, stage: Stage) -> None:
    content = base64.b64encode(framed(GET.SerializeToString()))
    answer = web(gateway, content, "application/grpc-web-text")
    assert answer.status_code == 200
    assert stage.call.request == GET


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_services_error_arrives_by_grpc_web(gateway: Gateway, stage: Stage, headers_first: bool) -> None:
    stage.answer = failing(grpc.StatusCode.NOT_FOUND, ERROR, message="no", headers_first=headers_first)
    answer = web(gateway, framed(GET.SerializeToString()), "application/grpc-web+proto")
    assert "5" in (answer.headers.get("grpc-status"), answer.text.partition("grpc-status:")[2][:1])
    assert "x-millrace-error" not in f"{answer.headers} {answer.text}"


def test_a_browser_without_a_token_is_unauthenticated(gateway: Gateway, stage: Stage) -> None:
    answer = web(gateway, framed(GET.SerializeToString()), "application/grpc-web+proto", token=False)
    assert answer.headers["grpc-status"] == "16"
    assert not stage.calls
