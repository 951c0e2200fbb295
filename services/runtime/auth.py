"""Tokens: users' (EdDSA or RS256, by JWKS) and the services' own (HS256, by the deployment's secret).

Every service verifies every token itself, whatever the gateway did (design: identity and permission). A verified token
is remembered until it expires, so a caller's second request costs a dictionary look-up.
"""

import json
import threading
import time
import urllib.request
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet, OctKey

from services.runtime.callers import ROLES
from services.runtime.errors import Unauthenticated, Unavailable
from services.runtime.settings import Settings, service_key

log = structlog.get_logger()

# RFC 9864 renames EdDSA to Ed25519; Envoy knows the old name only, so users' tokens carry it.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)

SERVICE_ISSUER = "millrace:services"
"""Issuer of the tokens that services make for each other; the gateway knows no such issuer."""
SERVICE_TOKEN_LIFETIME = 60
USER_ALGORITHMS = ["EdDSA", "Ed25519", "RS256"]
LEEWAY = 5
"""Seconds that clocks may differ."""
REMEMBERED = 10_000
RELOAD_AFTER = 5.0
"""Seconds between two looks for new keys, so that tokens with made-up key ids cannot cause a storm."""


class Identity(NamedTuple):
    """What a verified token says."""

    organization_id: int
    user_id: int
    roles: frozenset[str]
    is_service: bool
    expires_at: float


def service_token(secret: str, organization_id: int, user_id: int = 0, lifetime: int = SERVICE_TOKEN_LIFETIME) -> str:
    """A short-lived token of Millrace itself, acting in an organisation for a user (0 = the operator)."""
    now = int(time.time())
    claims = {
        "iss": SERVICE_ISSUER,
        "sub": str(user_id),
        "organization_id": organization_id,
        "iat": now,
        "exp": now + lifetime,
    }
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(service_key(secret)))


class Verifier:
    """Verifies tokens and remembers those it has verified."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service_key = OctKey.import_key(service_key(settings.secret.get_secret_value()))
        self._keys: KeySet | None = None
        self._loaded_at = float("-inf")
        self._lock = threading.Lock()
        self._known: dict[str, Identity] = {}
        self._registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
            sub={"essential": True},
            organization_id={"essential": True},
        )
        self._service_registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY, iss={"essential": True, "value": SERVICE_ISSUER}, exp={"essential": True}
        )

    def verify(self, token: str) -> Identity:
        """Who the token speaks for. Raises Unauthenticated."""
        known = self._known.get(token)
        if known is None:
            known = self._read(token)
            if len(self._known) >= REMEMBERED:
                # Forgetting all at once is rare and cheap; tokens come back on their next use.
                self._known.clear()
            self._known[token] = known
        if known.expires_at + LEEWAY < time.time():
            self._known.pop(token, None)
            raise Unauthenticated("The token has expired.")
        return known

    def _read(self, token: str) -> Identity:
        try:
            header = _header(token)
            if header.get("alg") == "HS256":
                claims = jwt.decode(token, self._service_key, algorithms=["HS256"]).claims
                self._service_registry.validate(claims)
                return _identity(claims, is_service=True)
            claims = jwt.decode(
                token, self._keys_with(header.get("kid")), algorithms=["EdDSA", "Ed25519", "RS256"]
            ).claims
            self._registry.validate(claims)
            return _identity(claims, is_service=False)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise Unauthenticated("The token is not valid.") from error

    def _keys_with(self, kid: Any) -> KeySet:
        """The key set, read again when it lacks the key: keys rotate."""
        with self._lock:
            found = self._keys is not None and any(key.kid == kid for key in self._keys.keys)
            if not found and time.monotonic() - self._loaded_at > RELOAD_AFTER:
                self._loaded_at = time.monotonic()
                self._reload()
            if self._keys is None:
                raise Unavailable()
            return self._keys

    def _reload(self) -> None:
        """Reads the key set; one that can not be had leaves the one there is."""
        try:
            self._keys = KeySet.import_key_set(json.loads(_load(self._settings.jwks)))
        except (OSError, HTTPException, JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("auth.keys_not_loaded", jwks=self._settings.jwks, error=str(error))


def _header(token: str) -> dict[str, Any]:
    text = token.partition(".")[0]
    header = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    return header


def _identity(claims: Mapping[str, Any], *, is_service: bool) -> Identity:
    least = 0 if is_service else 1
    roles = frozenset(_role(role) for role in claims.get("roles", ()))
    return Identity(
        organization_id=_number(claims["organization_id"], least),
        user_id=_number(claims["sub"], least),
        roles=roles & ROLES,
        is_service=is_service,
        expires_at=float(claims["exp"]),
    )


def _number(value: Any, least: int) -> int:
    """An id, as a JSON number or as decimal digits (spec v1 D10)."""
    if type(value) is not int and not (isinstance(value, str) and value.isascii() and value.isdecimal()):
        raise ValueError(f"{value!r} is not an id")
    number = int(value)
    if not least <= number < 2**31:
        raise ValueError(f"{value!r} is not an id")
    return number


def _role(name: Any) -> str:
    """`Super Admin` and `super_admin` are one role."""
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def _load(location: str) -> bytes:
    if location.startswith(("http://", "https://")):
        with urllib.request.urlopen(location, timeout=5) as answer:  # noqa: S310 - the operator's own setting
            return bytes(answer.read())
    return Path(location).read_bytes()
