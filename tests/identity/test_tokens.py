"""Tokens (spec v1 §0.2, D10): what identity signs every service accepts, and nothing that only looks like it."""

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import grpc
import pytest
from crm.identity.v1 import identity_admin_service_pb2 as admin_pb
from crm.identity.v1 import identity_service_pb2 as pb
from crm.identity.v1.identity_admin_service_pb2_grpc import IdentityAdminServiceStub
from crm.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from cryptography.hazmat.primitives import serialization
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey, RSAKey

from services.identity.tokens import Signer
from services.runtime.auth import SERVICE_ISSUER, Verifier
from services.runtime.errors import Unauthenticated
from tests.harness import SECRET, Houses, Keys, Someone, failing


def unpacked(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unverified."""
    header, claims, _ = token.split(".")
    return json.loads(urlsafe_b64decode(header + "==")), json.loads(urlsafe_b64decode(claims + "=="))


def packed(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def signed(keys: Keys, **changed: Any) -> str:
    """A token of the right key with other claims; None leaves one out."""
    _, claims = unpacked(keys.token(1, 1, "super_admin"))
    settings_key = OKPKey.import_key(keys.signing_key.read_bytes())
    said = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    return jwt.encode({"alg": "EdDSA", "kid": settings_key.thumbprint()}, said, settings_key, algorithms=["EdDSA"])


def test_a_minted_token_carries_what_services_need(
    houses: Houses, admin: IdentityAdminServiceStub, operator: Someone, demo: int
) -> None:
    request = admin_pb.MintTokenRequest(organization_id=demo, user_id=1)
    before = int(time.time())
    minted = admin.MintToken(request, metadata=operator.metadata())
    header, claims = unpacked(minted.token)
    settings = houses.settings("identity")
    assert settings.signing_key is not None
    thumbprint = OKPKey.import_key(settings.signing_key.read_bytes()).thumbprint()
    assert (header["alg"], header["kid"]) == ("EdDSA", thumbprint)
    assert (claims["iss"], claims["aud"]) == (settings.issuer, settings.audience)
    assert (claims["sub"], claims["organization_id"], claims["roles"]) == ("1", demo, ["super_admin"])
    assert before <= claims["iat"] == claims["nbf"] <= int(time.time())
    assert claims["exp"] - claims["iat"] == minted.expires_in == 3600
    verified = Verifier(settings).verify(minted.token)
    assert (verified.organization_id, verified.user_id, verified.is_service) == (demo, 1, False)
    assert verified.roles == {"super_admin"}
    again = admin.MintToken(request, metadata=operator.metadata())
    assert unpacked(again.token)[1]["jti"] != claims["jti"]


def test_a_token_lives_as_long_as_asked(admin: IdentityAdminServiceStub, operator: Someone, demo: int) -> None:
    request = admin_pb.MintTokenRequest(organization_id=demo, user_id=1, ttl_seconds=2_592_000)
    minted = admin.MintToken(request, metadata=operator.metadata())
    claims = unpacked(minted.token)[1]
    assert claims["exp"] - claims["iat"] == minted.expires_in == 2_592_000


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"organization_id": 0, "user_id": 1}, "organization_id"),
        ({"organization_id": 1, "user_id": 0}, "user_id"),
        ({"organization_id": 1, "user_id": 1, "ttl_seconds": -1}, "ttl_seconds"),
        ({"organization_id": 1, "user_id": 1, "ttl_seconds": 2_592_001}, "ttl_seconds"),
    ],
)
def test_a_bad_lifetime_or_id_is_refused(
    admin: IdentityAdminServiceStub, operator: Someone, demo: int, members: dict[str, int], field: str
) -> None:
    failure = failing(admin.MintToken, admin_pb.MintTokenRequest(**members), operator)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


def test_nobody_gets_a_token_who_does_not_exist(admin: IdentityAdminServiceStub, operator: Someone, demo: int) -> None:
    for organization_id, user_id in ((demo, 2), (demo + 1, 1)):
        request = admin_pb.MintTokenRequest(organization_id=organization_id, user_id=user_id)
        failure = failing(admin.MintToken, request, operator)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "ErrUserNotFound")


def test_the_public_keys_need_no_token_and_verify_what_is_minted(
    houses: Houses, admin: IdentityAdminServiceStub, identity: IdentityServiceStub, operator: Someone, demo: int
) -> None:
    (key,) = identity.GetJwks(pb.GetJwksRequest()).keys
    assert (key.kty, key.crv, key.alg, key.use) == ("OKP", "Ed25519", "EdDSA", "sig")
    public = OKPKey.import_key(MessageToDict(key))
    assert public.thumbprint() == key.kid
    assert not public.is_private
    request = admin_pb.MintTokenRequest(organization_id=demo, user_id=1)
    token = admin.MintToken(request, metadata=operator.metadata()).token
    assert jwt.decode(token, public, algorithms=["EdDSA"]).claims["sub"] == "1"


INTERNAL: list[tuple[str, Message]] = [
    ("CreateOrganization", admin_pb.CreateOrganizationRequest(name="Mine")),
    (
        "AddUser",
        admin_pb.AddUserRequest(organization_id=1, email="jo@acme.example", name="Jo", role="super_admin"),
    ),
    ("MintToken", admin_pb.MintTokenRequest(organization_id=1, user_id=1)),
    ("CreateApiKey", admin_pb.CreateApiKeyRequest(organization_id=1, user_id=1)),
    ("RevokeApiKey", admin_pb.RevokeApiKeyRequest(organization_id=1, api_key_id=1)),
    ("ExchangeApiKey", admin_pb.ExchangeApiKeyRequest(api_key="mlr_UkLWZg9D_secret")),
]


@pytest.mark.parametrize(("rpc", "request_"), INTERNAL)
def test_no_user_reaches_what_is_the_operators(
    houses: Houses, admin: IdentityAdminServiceStub, demo: int, rpc: str, request_: Message
) -> None:
    failure = failing(getattr(admin, rpc), request_, houses.someone("super_admin"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    failure = failing(getattr(admin, rpc), request_)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("GetOrganization", pb.GetOrganizationRequest()),
        ("CreateUser", pb.CreateUserRequest(email="jo@acme.example", name="Jo", role="agent")),
        ("GetUser", pb.GetUserRequest(id=1)),
        ("ListUsers", pb.ListUsersRequest()),
    ],
)
def test_nobody_is_answered_without_a_token(
    identity: IdentityServiceStub, demo: int, rpc: str, request_: Message
) -> None:
    failure = failing(getattr(identity, rpc), request_)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


def test_what_only_looks_like_a_token_is_refused(houses: Houses, keys: Keys, identity: IdentityServiceStub) -> None:
    good = keys.token(1, 1, "super_admin")
    header, claims = unpacked(good)
    _, body, signature = good.split(".")
    public = OKPKey.import_key(json.loads(keys.jwks.read_text())["keys"][0])
    raw = public.public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    stranger = OKPKey.generate_key("Ed25519")
    service_claims = {**claims, "iss": SERVICE_ISSUER}
    impostors = {
        "nothing": "",
        "no jwt": "abc",
        "three dots": "...",
        "expired": keys.token(1, 1, "super_admin", exp=int(time.time()) - 60),
        "not yet valid": keys.token(1, 1, "super_admin", nbf=int(time.time()) + 600),
        "no expiry": signed(keys, exp=None),
        "foreign issuer": keys.token(1, 1, "super_admin", iss="https://elsewhere.example"),
        "services' issuer": keys.token(1, 1, "super_admin", iss=SERVICE_ISSUER),
        "wrong audience": keys.token(1, 1, "super_admin", aud="another-api"),
        "no organisation": signed(keys, organization_id=None),
        "an organisation that is no number": signed(keys, organization_id="one"),
        "a user that is no number": signed(keys, sub="jo"),
        "no algorithm": f"{packed({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "no algorithm, signed": f"{packed({'alg': 'none', 'kid': header['kid']})}.{body}.{signature}",
        "tampered claims": f"{packed(header)}.{packed({**claims, 'organization_id': 2})}.{signature}",
        "cut signature": good[:-4],
        "stranger's key": jwt.encode({"alg": "EdDSA", "kid": header["kid"]}, claims, stranger, algorithms=["EdDSA"]),
        "stranger's key in the header": jwt.encode(
            {"alg": "EdDSA", "jwk": stranger.as_dict(private=False)}, claims, stranger, algorithms=["EdDSA"]
        ),
        "public key as HS256 secret": jwt.encode(
            {"alg": "HS256", "kid": header["kid"]}, claims, OctKey.import_key(raw)
        ),
        "public key as service secret": jwt.encode({"alg": "HS256"}, service_claims, OctKey.import_key(raw)),
        "public JWKS as HS256 secret": jwt.encode(
            {"alg": "HS256"}, service_claims, OctKey.import_key(keys.jwks.read_bytes())
        ),
        "the deployment's secret, not the key derived from it": jwt.encode(
            {"alg": "HS256"}, service_claims, OctKey.import_key(SECRET)
        ),
    }
    verifier = Verifier(houses.settings("identity"))
    accepted = []
    for name, token in impostors.items():
        failure = failing(identity.GetOrganization, pb.GetOrganizationRequest(), Someone(token, 1, 1))
        if (failure.code, failure.reason) != (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            accepted.append((name, failure))
        with pytest.raises(Unauthenticated):
            verifier.verify(token)
    assert not accepted
    assert verifier.verify(good).user_id == 1


@pytest.mark.parametrize(
    "key",
    [
        RSAKey.generate_key(2048).as_pem(private=True),
        OKPKey.generate_key("Ed448").as_pem(private=True),
        OKPKey.generate_key("Ed25519").as_pem(private=False),
        b"not a key",
    ],
    ids=["RSA", "Ed448", "public", "text"],
)
def test_identity_does_not_start_with_a_key_of_another_kind(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "signing.pem"
    path.write_bytes(key)
    with pytest.raises(ValueError, match="is not a private key that signs tokens"):
        Signer(path, "issuer", "audience")
