"""Where a request's id comes from and where it goes (spec v1 D13)."""

import re

import httpx
import pytest

from tests.gateway.envoy import Gateway
from tests.gateway.fakes import Stage

MADE = re.compile(r"req_[0-9a-f-]{36}")


@pytest.mark.parametrize(
    "request_id", ["r", "a" * 128, '!~"\\%41,;', "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "req_mine"]
)
def test_the_callers_id_reaches_the_service_and_comes_back(api: httpx.Client, stage: Stage, request_id: str) -> None:
    answer = api.get("/custom-fields/7", headers={"x-request-id": request_id})
    assert stage.call.metadata["x-request-id"] == request_id
    assert answer.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", [None, "", "a" * 129, "two words", "tab\there", "é".encode()])
def test_another_is_made_for_what_is_no_id(api: httpx.Client, stage: Stage, request_id: str | bytes | None) -> None:
    headers = {} if request_id is None else {"x-request-id": request_id}
    answer = api.get("/custom-fields/7", headers=headers)  # type: ignore[arg-type]
    made = answer.headers["x-request-id"]
    assert MADE.fullmatch(made)
    assert stage.call.metadata["x-request-id"] == made


def test_every_request_gets_its_own(api: httpx.Client, stage: Stage) -> None:
    assert len({api.get("/custom-fields/7").headers["x-request-id"] for _ in range(20)}) == 20


@pytest.mark.parametrize("request_id", [None, "mine"])
def test_the_gateways_own_errors_carry_it(api: httpx.Client, gateway: Gateway, request_id: str | None) -> None:
    headers = {"x-request-id": request_id} if request_id else {}
    refused = httpx.get(f"{gateway.url}/api/v1/crm/custom-fields/7", headers=headers)
    for answer in (refused, api.get("/nothing", headers=headers), api.get("/contacts/1", headers=headers)):
        assert answer.status_code >= 400
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert answer.json()["request_id"] == request_id or MADE.fullmatch(answer.json()["request_id"])


def test_a_request_that_could_not_be_read_gets_one_too(api: httpx.Client, gateway: Gateway) -> None:
    answer = api.get("/custom-fields/7", headers={"x-large": "a" * 9000})
    made = answer.json()["request_id"]
    assert MADE.fullmatch(made)
    assert answer.headers["x-request-id"] == made
    assert gateway.logged(made)["status"] == 431
