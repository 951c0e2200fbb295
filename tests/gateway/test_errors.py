"""The error body, whoever makes the error."""

import json
import socket

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from tests.gateway.envoy import Gateway, until
from tests.gateway.fakes import CONTACTS, Stage, failing


def body(code: int, error_code: str, request_id: str = "r-1") -> dict[str, object]:
    return {"code": code, "error_code": error_code, "details": [], "request_id": request_id}


def without_message(answer: httpx.Response) -> dict[str, object]:
    """The error body; its message is only looked at for being there."""
    assert answer.headers["content-type"] == "application/json"
    said = dict(answer.json())
    assert said.pop("message")
    return said


@pytest.fixture(autouse=True)
def _named(api: httpx.Client) -> None:
    api.headers["x-request-id"] = "r-1"


# --- Errors of services


FORM_EMPTY = {
    "code": 400,
    "message": "das Formular „Prüfung“ hat keine Felder ✗",
    "error_code": "ErrFormEmpty",
    "details": [{"field": "fields", "message": "mindestens eines"}],
    "request_id": "r-1",
}


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_services_error_body_arrives_whole(api: httpx.Client, stage: Stage, headers_first: bool) -> None:
    stage.answer = failing(grpc.StatusCode.FAILED_PRECONDITION, FORM_EMPTY, headers_first=headers_first)
    answer = api.get("/custom-fields/7")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == FORM_EMPTY
    assert not {name for name in answer.headers if name.startswith(("grpc-", "x-millrace-"))}


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_connection_serves_on_after_a_services_error(
    api: httpx.Client, stage: Stage, gateway: Gateway, headers_first: bool
) -> None:
    for _ in range(3):
        stage.answer = failing(grpc.StatusCode.NOT_FOUND, FORM_EMPTY, headers_first=headers_first)
        assert api.get("/custom-fields/7").json() == FORM_EMPTY
        stage.answer = None
        assert api.get("/custom-fields/7").status_code == 200
    assert "lua.errors: 0" in httpx.get(f"http://{gateway.admin}/stats?filter=lua").text


def test_many_violations_fit(api: httpx.Client, stage: Stage) -> None:
    details = [{"field": f"fields.{n}.label", "message": "must not be empty"} for n in range(800)]
    stage.answer = failing(grpc.StatusCode.INVALID_ARGUMENT, {**FORM_EMPTY, "details": details})
    assert api.get("/custom-fields/7").json()["details"] == details


@pytest.mark.parametrize(
    ("code", "status", "error_code"),
    [
        (grpc.StatusCode.CANCELLED, 499, "CANCELLED"),
        (grpc.StatusCode.UNKNOWN, 500, "INTERNAL"),
        (grpc.StatusCode.INVALID_ARGUMENT, 400, "INTERNAL"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "RESOURCE_EXHAUSTED"),
        (grpc.StatusCode.UNIMPLEMENTED, 501, "UNIMPLEMENTED"),
        (grpc.StatusCode.INTERNAL, 500, "INTERNAL"),
        (grpc.StatusCode.UNAVAILABLE, 503, "UNAVAILABLE"),
        (grpc.StatusCode.UNAUTHENTICATED, 401, "UNAUTHENTICATED"),
    ],
)
def test_an_error_without_a_body_gets_one_that_tells_nothing_of_our_insides(
    api: httpx.Client, stage: Stage, code: grpc.StatusCode, status: int, error_code: str
) -> None:
    stage.answer = failing(code, message="psycopg: secret")
    answer = api.get("/custom-fields/7")
    assert answer.status_code == status
    assert without_message(answer) == body(status, error_code)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.FAILED_PRECONDITION, 400),
        (grpc.StatusCode.OUT_OF_RANGE, 400),
        (grpc.StatusCode.UNAUTHENTICATED, 401),
        (grpc.StatusCode.PERMISSION_DENIED, 403),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.ALREADY_EXISTS, 409),
        (grpc.StatusCode.ABORTED, 409),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.INTERNAL, 500),
        (grpc.StatusCode.UNAVAILABLE, 503),
    ],
)
def test_a_grpc_status_has_its_http_status(api: httpx.Client, stage: Stage, code: grpc.StatusCode, status: int) -> None:
    stage.answer = failing(code, FORM_EMPTY)
    assert api.get("/custom-fields/7").status_code == status


def test_a_crash_in_a_service_is_an_internal_error(api: httpx.Client, stage: Stage) -> None:
    def crash(request: object, context: object) -> Message:
        raise RuntimeError("secret")

    stage.answer = crash
    answer = api.get("/custom-fields/7")
    assert answer.status_code == 500
    assert without_message(answer) == body(500, "INTERNAL")
    assert "secret" not in answer.text


def test_a_request_id_cannot_break_out_of_the_body(api: httpx.Client, stage: Stage) -> None:
    stage.answer = failing(grpc.StatusCode.INTERNAL)
    odd = '","code":200,"\\%d%s'
    assert api.get("/custom-fields/7", headers={"x-request-id": odd}).json()["request_id"] == odd


# --- Errors of the gateway


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/crm/nothing"),
        ("GET", "/api/v1/crm/custom-fields/7/more"),
        ("GET", "/"),
        ("PUT", "/api/v1/crm/custom-fields/7"),
        ("GET", "/api/v1/crm/custom-fields/7:archive"),
        ("POST", "/api/v1/crm/custom-fields/7:unarchive"),
        ("POST", "/crm.fields.v1.CrmCustomFieldService/GetCustomField"),
        ("GET", "/%zz"),
    ],
)
def test_an_unknown_path_or_method_is_not_found(gateway: Gateway, api: httpx.Client, method: str, path: str) -> None:
    answer = api.request(method, gateway.url + path)
    assert answer.status_code == 404
    assert without_message(answer) == body(404, "NOT_FOUND")


@pytest.mark.parametrize("content", ['{"key": ', "{]", "key=vat", '{"key": {}}', '{"position": "first"}', "[]", "\xff"])
def test_malformed_json_is_refused(api: httpx.Client, stage: Stage, content: str) -> None:
    answer = api.post("/custom-fields", content=content.encode("latin-1"))
    assert answer.status_code == 400
    assert without_message(answer) == body(400, "INVALID_ARGUMENT")
    assert not stage.calls


def test_an_unknown_query_parameter_is_refused_by_name(api: httpx.Client, stage: Stage) -> None:
    answer = api.get("/custom-fields", params={"colour": "red"})
    assert answer.status_code == 400
    assert without_message(answer) == body(400, "INVALID_ARGUMENT")
    assert "colour" in answer.json()["message"]
    assert not stage.calls


@pytest.mark.parametrize("path", ["/custom-fields/seven", "/custom-fields/7.5", "/custom-fields/99999999999"])
def test_a_path_id_that_is_no_id_is_refused(api: httpx.Client, stage: Stage, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 400
    assert without_message(answer) == body(400, "INVALID_ARGUMENT")


def test_a_body_id_that_differs_from_the_paths_is_refused(api: httpx.Client, stage: Stage) -> None:
    answer = api.patch("/custom-fields/7", json={"id": 8, "label": "Revenue"})
    assert answer.status_code == 400
    assert without_message(answer) == body(400, "INVALID_ARGUMENT")
    assert not stage.calls


def test_an_escaped_slash_is_refused(gateway: Gateway, api: httpx.Client) -> None:
    answer = api.get(f"{gateway.url}/api/v1/crm%2Fcustom-fields/7")
    assert answer.status_code == 400
    assert without_message(answer) == body(400, "INVALID_ARGUMENT", answer.headers["x-request-id"])


MIB = 1024 * 1024
WRAPPING = len('{"key":""}')


def keyed(size: int) -> bytes:
    return b'{"key":"%s"}' % (b"a" * (size - WRAPPING))


def test_a_body_of_five_mebibytes_is_taken(api: httpx.Client, stage: Stage) -> None:
    assert api.post("/custom-fields", content=keyed(5 * MIB)).status_code == 200
    assert len(stage.call.request.key) == 5 * MIB - WRAPPING


@pytest.mark.parametrize("size", [5 * MIB + 1, 20 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_larger_body_is_refused(api: httpx.Client, stage: Stage, size: int, chunked: bool) -> None:
    content = keyed(size)
    pieces = (content[at : at + MIB] for at in range(0, size, MIB))
    answer = api.post("/custom-fields", content=pieces if chunked else content)
    assert answer.status_code == 413
    assert without_message(answer) == body(413, "INVALID_ARGUMENT")
    assert not stage.calls


def test_a_small_body_that_makes_a_large_message_is_refused_alike(api: httpx.Client, stage: Stage) -> None:
    content = b'{"validation_rules":{"list":[%s1]}}' % (b"1," * MIB)
    answer = api.post("/custom-fields", content=content)
    assert answer.status_code == 413
    assert without_message(answer) == body(413, "INVALID_ARGUMENT")
    assert not stage.calls


def test_large_headers_are_refused(api: httpx.Client) -> None:
    answer = api.get("/custom-fields/7", headers={"x-large": "a" * 9000})
    assert answer.status_code == 431
    assert without_message(answer) == body(431, "INVALID_ARGUMENT", answer.headers["x-request-id"])


def test_many_headers_are_refused(api: httpx.Client) -> None:
    answer = api.get("/custom-fields/7", headers={f"x-{n}": "" for n in range(100)})
    assert answer.status_code == 431
    assert without_message(answer) == body(431, "INVALID_ARGUMENT", answer.headers["x-request-id"])


def test_a_service_that_is_down_is_unavailable_until_it_is_back(
    gateway: Gateway, api: httpx.Client, stage: Stage
) -> None:
    answer = api.get("/contacts/1")
    assert answer.status_code == 503
    assert without_message(answer) == body(503, "UNAVAILABLE")
    assert "127.0.0.1" not in answer.text
    with stage.serving(gateway.absent, CONTACTS):
        until(lambda: api.get("/contacts/1").status_code == 200 or None, "the service that came back")


def test_a_service_that_is_late_is_given_up(api: httpx.Client, stage: Stage) -> None:
    given_up = []

    def late(request: object, context: grpc.ServicerContext) -> Message:
        until(lambda: None if context.is_active() else True, "the end of the call")
        given_up.append(True)
        raise TimeoutError

    stage.answer = late
    answer = api.get("/custom-fields/7", headers={"grpc-timeout": "200m"})
    assert answer.status_code == 504
    assert without_message(answer) == body(504, "DEADLINE_EXCEEDED")
    until(lambda: given_up or None, "the service to notice")


def test_what_is_not_http_1_1_or_2_is_refused(gateway: Gateway) -> None:
    host, _, port = gateway.address.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        head, _, content = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 426")
    said = json.loads(content)
    assert (said["code"], said["error_code"], said["details"]) == (426, "INVALID_ARGUMENT", [])
