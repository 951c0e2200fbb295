"""API keys (design: identity and permission): shown once, kept as a hash, exchanged for short tokens, revocable."""

import hashlib
from datetime import timedelta

import grpc
import psycopg
import pytest
from crm.identity.v1 import identity_admin_service_pb2 as pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from hypothesis import given
from hypothesis import strategies as st

from services.identity.api_key import ApiKey, new_key, read_key
from services.identity.errors import ApiKeyInvalid
from services.runtime.auth import Verifier
from tests.harness import Houses, Someone, failing


@pytest.fixture
def key(admin: IdentityAdminServiceStub, operator: Someone, demo: int) -> pb.CreateApiKeyResponse:
    request = pb.CreateApiKeyRequest(organization_id=demo, user_id=1)
    return admin.CreateApiKey(request, metadata=operator.metadata())


def test_a_key_is_exchanged_for_a_short_token_of_its_user(
    houses: Houses, admin: IdentityAdminServiceStub, operator: Someone, key: pb.CreateApiKeyResponse, demo: int
) -> None:
    exchanged = admin.ExchangeApiKey(pb.ExchangeApiKeyRequest(api_key=key.api_key), metadata=operator.metadata())
    assert exchanged.expires_in == 300
    identity = Verifier(houses.settings("identity")).verify(exchanged.token)
    assert (identity.organization_id, identity.user_id, identity.roles) == (demo, 1, frozenset({"super_admin"}))


def test_only_a_hash_of_the_secret_is_kept(admin_url: str, key: pb.CreateApiKeyResponse) -> None:
    prefix, _, secret = key.api_key.split("_", 2)
    assert (prefix, len(secret)) == ("mlr", 43)
    with psycopg.connect(admin_url) as connection:
        row = connection.execute("select * from identity.api_keys").fetchone()
        assert row is not None
        assert hashlib.sha256(secret.encode()).digest() in row
        for (table,) in connection.execute(
            "select table_name from information_schema.tables where table_schema = 'identity'"
        ).fetchall():
            whole = connection.execute(f"select coalesce(string_agg(t::text, ''), '') from identity.{table} t")
            text = (whole.fetchone() or ("",))[0]
            assert secret not in text
            assert secret.encode().hex() not in text


def test_an_idempotency_key_does_not_keep_the_secret(
    admin: IdentityAdminServiceStub, operator: Someone, demo: int, admin_url: str
) -> None:
    request = pb.CreateApiKeyRequest(organization_id=demo, user_id=1)
    keyed = operator.metadata(idempotency_key="once")
    made = [admin.CreateApiKey(request, metadata=keyed) for _ in range(2)]
    assert made[0].api_key != made[1].api_key
    for each in made:
        exchange = pb.ExchangeApiKeyRequest(api_key=each.api_key)
        assert admin.ExchangeApiKey(exchange, metadata=keyed).token
    with psycopg.connect(admin_url) as connection:
        kept = connection.execute("select count(*) from identity.idempotency_keys").fetchone()
    assert kept == (0,)


def test_a_key_notes_its_maker_and_its_use_once_a_minute(
    admin: IdentityAdminServiceStub, operator: Someone, key: pb.CreateApiKeyResponse, admin_url: str
) -> None:
    exchange = pb.ExchangeApiKeyRequest(api_key=key.api_key)
    with psycopg.connect(admin_url, autocommit=True) as connection:

        def noted() -> tuple[object, ...] | None:
            return connection.execute("select created_by, last_used_at from identity.api_keys").fetchone()

        assert noted() == (0, None)
        admin.ExchangeApiKey(exchange, metadata=operator.metadata())
        first = noted()
        assert first is not None
        assert first[1] is not None
        admin.ExchangeApiKey(exchange, metadata=operator.metadata())
        assert noted() == first
        connection.execute("update identity.api_keys set last_used_at = now() - %s", (timedelta(seconds=61),))
        admin.ExchangeApiKey(exchange, metadata=operator.metadata())
        later = noted()
        assert later is not None
        assert later[1] > first[1]  # type: ignore[operator]


def test_a_revoked_key_is_refused_for_good(
    admin: IdentityAdminServiceStub, operator: Someone, key: pb.CreateApiKeyResponse, demo: int
) -> None:
    request = pb.CreateApiKeyRequest(organization_id=demo, user_id=1)
    other = admin.CreateApiKey(request, metadata=operator.metadata())
    revoke = pb.RevokeApiKeyRequest(organization_id=demo, api_key_id=key.api_key_id)
    for _ in range(2):
        admin.RevokeApiKey(revoke, metadata=operator.metadata())
        failure = failing(admin.ExchangeApiKey, pb.ExchangeApiKeyRequest(api_key=key.api_key), operator)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "ErrApiKeyInvalid")
    admin.ExchangeApiKey(pb.ExchangeApiKeyRequest(api_key=other.api_key), metadata=operator.metadata())


def test_a_key_that_does_not_exist_is_not_revoked(
    admin: IdentityAdminServiceStub, operator: Someone, key: pb.CreateApiKeyResponse, demo: int
) -> None:
    for organization_id, key_id in ((demo, key.api_key_id + 50), (demo + 1, key.api_key_id)):
        request = pb.RevokeApiKeyRequest(organization_id=organization_id, api_key_id=key_id)
        failure = failing(admin.RevokeApiKey, request, operator)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ErrApiKeyNotFound")


def test_nobody_gets_a_key_who_does_not_exist(admin: IdentityAdminServiceStub, operator: Someone, demo: int) -> None:
    for organization_id, user_id in ((demo, 2), (demo + 1, 1)):
        request = pb.CreateApiKeyRequest(organization_id=organization_id, user_id=user_id)
        failure = failing(admin.CreateApiKey, request, operator)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ErrUserNotFound")
        assert failure.fields == ["user_id"]


def test_a_key_that_is_none_is_refused(
    admin: IdentityAdminServiceStub, operator: Someone, key: pb.CreateApiKeyResponse
) -> None:
    _, sqid, secret = key.api_key.split("_", 2)
    elsewhere = str(new_key(2)).split("_")[1]
    guesses = [
        "x",
        "pat_live_1234567890",
        f"mlr_{sqid}",
        f"mlr_{sqid}_",
        f"mlr_{sqid}_{secret[:-1]}",
        f"mlr_{sqid}_{secret}x",
        f"mlr_{sqid}_{'A' * 43}",
        f"mlr_{elsewhere}_{secret}",
        f"MLR_{sqid}_{secret}",
        f" {key.api_key}",
        f"{key.api_key}\n",
        f"mlr_{'9' * 16}_{secret}",
        f"mlr_{str(ApiKey(2**40, secret)).split('_')[1]}_{secret}",
    ]
    for guess in guesses:
        failure = failing(admin.ExchangeApiKey, pb.ExchangeApiKeyRequest(api_key=guess), operator)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "ErrApiKeyInvalid"), guess
    assert failing(admin.ExchangeApiKey, pb.ExchangeApiKeyRequest(), operator).fields == ["api_key"]
    assert failing(admin.ExchangeApiKey, pb.ExchangeApiKeyRequest(api_key="x" * 201), operator).fields == ["api_key"]


@given(st.integers(1, 2**31 - 1))
def test_every_key_is_read_as_it_was_written(organization_id: int) -> None:
    key = new_key(organization_id)
    assert read_key(str(key)) == key
    assert key.matches(key.digest)
    assert not new_key(organization_id).matches(key.digest)


@given(st.one_of(st.text(), st.from_regex(r"mlr_[A-Za-z0-9]{8,16}_[A-Za-z0-9_-]{43}", fullmatch=True)))
def test_a_text_is_a_key_in_one_spelling_only(text: str) -> None:
    try:
        key = read_key(text)
    except ApiKeyInvalid:
        return
    assert str(key) == text
