"""What those see who run the gateway, and browsers before they call."""

import shutil
import subprocess

import httpx
import pytest

from tests.gateway.envoy import Gateway
from tests.gateway.fakes import Stage


def test_a_load_balancer_asks_for_health_without_a_token(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_admin_port_is_on_loopback_only(gateway: Gateway) -> None:
    assert gateway.admin.startswith("127.0.0.1:")
    assert httpx.get(f"{gateway.url}/config_dump").status_code == 404


def test_a_request_is_logged_with_who_asked_and_what_became_of_it(
    api: httpx.Client, gateway: Gateway, stage: Stage
) -> None:
    made = api.get("/custom-fields", params={"section": "private"}).headers["x-request-id"]
    line = gateway.logged(made)
    assert (line["event"], line["method"], line["path"]) == ("request", "GET", "/api/v1/crm/custom-fields")
    assert line["rpc"] == "/crm.fields.v1.CrmCustomFieldService/ListCustomFields"
    assert (line["status"], line["grpc_status"], line["cluster"]) == (200, "OK", "fields")
    assert (line["organization_id"], line["user_id"]) == (7, "17")
    assert "private" not in str(line)


def test_a_refusal_is_logged_with_its_reason(api: httpx.Client, gateway: Gateway) -> None:
    line = gateway.logged(httpx.get(f"{gateway.url}/api/v1/crm/custom-fields").headers["x-request-id"])
    assert (line["status"], line["detail"]) == (401, "jwt_authn_access_denied{Jwt_is_missing}")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_a_browser_may_ask_first_without_a_token(gateway: Gateway, method: str) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": method,
        "access-control-request-headers": "authorization, content-type, idempotency-key, x-request-id",
    }
    answer = httpx.options(f"{gateway.url}/api/v1/crm/custom-fields/7", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert set(allowed) >= {"authorization", "content-type", "idempotency-key", "x-request-id"}
    assert "access-control-allow-credentials" not in answer.headers


def test_a_browser_may_read_answers_and_errors(api: httpx.Client, stage: Stage) -> None:
    for path in ("/custom-fields/7", "/nothing"):
        answer = api.get(path, headers={"origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="speaks HTTP/2 without TLS; httpx does not")
def test_json_goes_over_http_2_as_well(gateway: Gateway, stage: Stage) -> None:
    curl = ["curl", "--silent", "--http2-prior-knowledge", "--write-out", " %{http_version} %{http_code}"]
    authorization = f"authorization: Bearer {gateway.token()}"
    said = subprocess.run(
        [*curl, "-H", authorization, f"{gateway.url}/api/v1/crm/custom-fields"], check=True, capture_output=True
    )
    assert said.stdout == b'{"data":[]} 2 200'
