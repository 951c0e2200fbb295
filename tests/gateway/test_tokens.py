"""Who is let in."""

import time

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from tests.gateway.envoy import Gateway
from tests.gateway.fakes import Stage

LONG_AGO, FAR_AHEAD = 1_000_000_000, 4_000_000_000


def ask(gateway: Gateway, authorization: str | None, path: str = "/api/v1/crm/custom-fields/7") -> httpx.Response:
    return httpx.get(gateway.url + path, headers={"authorization": authorization} if authorization else {})


def assert_refused(answer: httpx.Response, stage: Stage) -> None:
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json().keys() == {"code", "message", "error_code", "details", "request_id"}
    assert (answer.json()["code"], answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
    assert not stage.calls


def test_a_good_token_is_let_in_and_passed_on(gateway: Gateway, stage: Stage) -> None:
    token = gateway.token()
    assert ask(gateway, f"Bearer {token}").status_code == 200
    assert stage.call.metadata["authorization"] == f"Bearer {token}"


def test_an_rs256_token_is_as_good(gateway: Gateway, stage: Stage) -> None:
    assert ask(gateway, f"Bearer {gateway.token(key=gateway.rsa_key)}").status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer x", "Bearer a.b.c", "Basic YTpi"])
def test_what_is_no_token_is_refused(gateway: Gateway, stage: Stage, authorization: str | None) -> None:
    assert_refused(ask(gateway, authorization), stage)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": LONG_AGO},
        {"exp": None},
        {"nbf": FAR_AHEAD},
        {"iss": "https://elsewhere.test"},
        {"iss": "millrace:services"},
        {"iss": None},
        {"aud": "another-api"},
        {"aud": None},
    ],
    ids=str,
)
def test_a_token_that_does_not_hold_here_and_now_is_refused(
    gateway: Gateway, stage: Stage, claims: dict[str, object]
) -> None:
    assert_refused(ask(gateway, f"Bearer {gateway.token(claims)}"), stage)


def test_a_token_signed_by_another_key_is_refused(gateway: Gateway, stage: Stage) -> None:
    stranger = OKPKey.generate_key("Ed25519", {"kid": str(gateway.key.kid)})
    assert_refused(ask(gateway, f"Bearer {gateway.token(key=stranger)}"), stage)


def test_a_token_of_the_services_own_is_refused(gateway: Gateway, stage: Stage) -> None:
    claims = {"iss": "millrace:services", "sub": "0", "organization_id": 7, "exp": int(time.time()) + 60}
    key = OctKey.import_key(b"the secret of the deployment, 32+")
    assert_refused(ask(gateway, f"Bearer {jwt.encode({'alg': 'HS256'}, claims, key)}"), stage)


def test_a_token_in_the_query_is_not_looked_at(gateway: Gateway, stage: Stage) -> None:
    path = f"/api/v1/crm/custom-fields/7?access_token={gateway.token()}"
    assert_refused(ask(gateway, None, path), stage)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/crm/nothing",
        "//api/v1/crm/custom-fields/7",
        "/x/../api/v1/crm/custom-fields/7",
        "/x/%2e%2e/api/v1/crm/custom-fields/7",
        "/%61pi/v1/crm/custom-fields/7",
    ],
)
def test_no_spelling_of_a_path_goes_round_the_token(gateway: Gateway, stage: Stage, path: str) -> None:
    assert_refused(ask(gateway, None, path), stage)


def test_the_public_keys_are_for_everyone(gateway: Gateway) -> None:
    answer = ask(gateway, None, "/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.json() == {"keys": []}


def test_what_is_nowhere_is_not_found_without_a_token(gateway: Gateway) -> None:
    assert ask(gateway, None, "/").status_code == 404
