"""Tokens (design: identity and permission): verified in every service, once per token, with keys that may rotate."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey, RSAKey

from services.runtime import auth
from services.runtime.auth import SERVICE_ISSUER, Identity, Verifier, service_token
from services.runtime.errors import ServiceError, Unauthenticated, Unavailable
from services.runtime.settings import Settings, service_key
from tests.harness import SECRET

CLAIMS = {
    "iss": "https://millrace.local",
    "aud": "millrace-api",
    "sub": "17",
    "organization_id": 7,
    "roles": ["agent"],
    "exp": 4102444800,
}


class Clock:
    """Both of the process's clocks, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr(auth.time, "time", lambda: self.now)  # type: ignore[attr-defined]
        monkeypatch.setattr(auth.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Issuer:
    """Keys on disk, and tokens signed with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[Any] = [OKPKey.generate_key("Ed25519")]
        self.publish()

    def publish(self) -> None:
        public = [key.as_dict(private=False) | {"kid": key.thumbprint()} for key in self.keys]
        self.path.write_text(json.dumps({"keys": public}))

    def token(self, key: Any = None, *, kid: str | None = None, **changed: Any) -> str:
        key = key or self.keys[0]
        algorithm = "RS256" if isinstance(key, RSAKey) else "EdDSA"
        said = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}
        header = {"alg": algorithm, "kid": kid or key.thumbprint()}
        return jwt.encode(header, said, key, algorithms=[algorithm])


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


def settings(jwks: str) -> Settings:
    return Settings.model_validate({"secret": SECRET, "jwks": jwks})


@pytest.fixture
def verifier(issuer: Issuer) -> Verifier:
    return Verifier(settings(str(issuer.path)))


class Counted:
    """How often a function of the module was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.times = 0
        original = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.times += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)


def test_a_users_token_says_who_it_is(verifier: Verifier, issuer: Issuer) -> None:
    assert verifier.verify(issuer.token()) == Identity(7, 17, frozenset({"agent"}), False, 4102444800.0)
    as_texts = verifier.verify(issuer.token(organization_id="7", roles=["Sales Manager", "gardener", 5]))
    assert (as_texts.organization_id, as_texts.roles) == (7, frozenset({"sales_manager"}))


def test_a_service_token_says_whom_it_acts_for(verifier: Verifier) -> None:
    identity = verifier.verify(service_token(SECRET, 7, 17))
    assert (identity.organization_id, identity.user_id, identity.is_service) == (7, 17, True)
    assert identity.roles == frozenset()
    with pytest.raises(Unauthenticated):
        verifier.verify(service_token("another deployment's secret", 7, 17))


def test_rs256_is_accepted_too(verifier: Verifier, issuer: Issuer) -> None:
    issuer.keys.append(RSAKey.generate_key(2048))
    issuer.publish()
    assert verifier.verify(issuer.token(issuer.keys[1])).user_id == 17


def test_a_token_is_verified_by_crypto_once(
    verifier: Verifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = Counted(monkeypatch, auth.jwt, "decode")  # type: ignore[attr-defined]
    one, other = issuer.token(), issuer.token(sub="18")
    identities = [verifier.verify(token) for token in (one, one, other, one, other)]
    assert [each.user_id for each in identities] == [17, 17, 18, 17, 18]
    assert decoded.times == 2


def test_a_refused_token_is_not_remembered_as_good(verifier: Verifier, issuer: Issuer) -> None:
    bad = issuer.token(aud="another-api")
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            verifier.verify(bad)


def test_a_remembered_token_still_expires(verifier: Verifier, issuer: Issuer, clock: Clock) -> None:
    token = issuer.token(exp=int(clock.now) + 100)
    verifier.verify(token)
    clock.now += 100 + auth.LEEWAY - 1
    verifier.verify(token)
    clock.now += 2
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            verifier.verify(token)


def test_a_token_is_good_from_its_time_on(verifier: Verifier, issuer: Issuer, clock: Clock) -> None:
    token = issuer.token(nbf=int(clock.now) + 100)
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    clock.now += 100
    verifier.verify(token)


def test_what_is_remembered_is_bounded(verifier: Verifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REMEMBERED", 3)
    for _ in range(2):
        for user in range(1, 9):
            assert verifier.verify(issuer.token(sub=str(user))).user_id == user
            assert len(verifier._known) <= 3


def test_a_new_key_is_found_without_a_restart(verifier: Verifier, issuer: Issuer, clock: Clock) -> None:
    verifier.verify(issuer.token())
    issuer.keys.append(OKPKey.generate_key("Ed25519"))
    issuer.publish()
    clock.now += auth.RELOAD_AFTER + 0.1
    assert verifier.verify(issuer.token(issuer.keys[1])).user_id == 17
    verifier.verify(issuer.token(sub="18"))


def test_made_up_key_ids_cause_no_storm(
    verifier: Verifier, issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Counted(monkeypatch, auth, "_load")
    stranger = OKPKey.generate_key("Ed25519")
    for times in (1, 2, 3):
        for index in range(20):
            with pytest.raises(Unauthenticated):
                verifier.verify(issuer.token(stranger, kid=f"made-up-{index}"))
        assert loaded.times == times
        clock.now += auth.RELOAD_AFTER + 0.1
    verifier.verify(issuer.token())


def test_keys_that_can_not_be_had_are_our_fault_and_cause_no_storm(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = Verifier(settings(str(issuer.path)))
    loaded = Counted(monkeypatch, auth, "_load")
    token = issuer.token()
    issuer.path.unlink()
    for _ in range(5):
        with pytest.raises(Unavailable):
            verifier.verify(token)
    assert loaded.times == 1
    verifier.verify(service_token(SECRET, 7))
    issuer.publish()
    clock.now += auth.RELOAD_AFTER + 0.1
    verifier.verify(token)


def test_keys_that_are_lost_later_keep_verifying(verifier: Verifier, issuer: Issuer, clock: Clock) -> None:
    verifier.verify(issuer.token())
    for content in (None, "not json", '{"keys": 5}'):
        issuer.path.unlink(missing_ok=True)
        if content:
            issuer.path.write_text(content)
        clock.now += auth.RELOAD_AFTER + 0.1
        with pytest.raises(Unauthenticated):
            verifier.verify(issuer.token(OKPKey.generate_key("Ed25519")))
        assert verifier.verify(issuer.token(jti=str(content))).user_id == 17


@pytest.fixture
def jwks_url(issuer: Issuer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(issuer.path.read_bytes())

        def log_message(self, *_arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        server.shutdown()
        thread.join()


def test_keys_come_from_a_url_too(issuer: Issuer, jwks_url: str) -> None:
    assert Verifier(settings(jwks_url)).verify(issuer.token()).user_id == 17


def _packed(value: Any) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def service(**changed: Any) -> str:
    claims = {"iss": SERVICE_ISSUER, "sub": "0", "organization_id": 7, "exp": 4102444800, **changed}
    said = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": "HS256"}, said, OctKey.import_key(service_key(SECRET)))


FORGED: list[Callable[[Issuer], str]] = [
    lambda _issuer: "a",
    lambda _issuer: ".",
    lambda _issuer: "é.é.é",
    lambda _issuer: f"{_packed([])}.{_packed({})}.",
    lambda _issuer: f"{_packed(5)}.{_packed({})}.",
    lambda _issuer: f"{_packed(None)}.{_packed({})}.",
    lambda _issuer: f"{_packed({'alg': None})}.{_packed({})}.",
    lambda _issuer: f"{_packed({'alg': ['EdDSA'], 'kid': {}})}.{_packed({})}.x",
    lambda _issuer: f"{_packed({'alg': 'EdDSA', 'kid': 5})}.{_packed({})}.x",
    lambda _issuer: f"{_packed({'alg': 'EdDSA', 'crit': ['b64'], 'b64': False})}.{_packed({})}.x",
    lambda _issuer: "[" * 5000,
    lambda _issuer: urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.x",
    lambda issuer: issuer.token(sub="jo"),
    lambda issuer: issuer.token(sub=None),
    lambda issuer: issuer.token(organization_id="seven"),
    lambda issuer: issuer.token(organization_id=[7]),
    lambda issuer: issuer.token(organization_id=2**63),
    lambda issuer: issuer.token(organization_id=-1),
    lambda issuer: issuer.token(organization_id=0),
    lambda issuer: issuer.token(organization_id=True),
    lambda issuer: issuer.token(organization_id=7.5),
    lambda _issuer: urlsafe_b64encode(b"[" * 3000).decode() + ".e30.x",
    lambda issuer: issuer.token(sub="0"),
    lambda issuer: issuer.token(roles=5),
    lambda issuer: issuer.token(exp="soon"),
    lambda issuer: issuer.token(exp=None),
    lambda issuer: issuer.token(iss=SERVICE_ISSUER),
    lambda issuer: service(iss="https://millrace.local"),
    lambda issuer: service(exp=1),
    lambda issuer: service(exp=None),
    lambda issuer: service(sub=None),
    lambda issuer: service(organization_id=None),
]


@pytest.mark.parametrize("index", range(len(FORGED)))
def test_a_token_of_any_other_shape_is_refused_and_nothing_else(verifier: Verifier, issuer: Issuer, index: int) -> None:
    with pytest.raises(ServiceError) as raised:
        verifier.verify(FORGED[index](issuer))
    assert raised.type is Unauthenticated
