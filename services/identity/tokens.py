"""Users' tokens: JWTs signed with the deployment's Ed25519 key (spec v1 §0.2, D10; design: identity and permission)."""

import time
from pathlib import Path
from uuid import uuid4

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

LIFETIME = 3600
"""Seconds a token lives unless another lifetime is asked for."""
EXCHANGED_LIFETIME = 300
"""Seconds a token lives that an API key was exchanged for: a revoked key is worthless that soon."""
ALGORITHM = "EdDSA"
"""RFC 9864 calls it Ed25519, which gateways do not know yet."""


class Signer:
    """Signs tokens. Its key's id is the key's RFC 7638 thumbprint, so it needs no naming and follows a rotation."""

    def __init__(self, signing_key: Path, issuer: str, audience: str) -> None:
        self._key = _private_key(signing_key)
        self._header = {"alg": ALGORITHM, "kid": self._key.thumbprint()}
        self._issuer, self._audience = issuer, audience

    def token(self, organization_id: int, user_id: int, role: str, lifetime: int) -> str:
        """A token of a user that lives so many seconds."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "organization_id": organization_id,
            "roles": [role],
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": uuid4().hex,
        }
        return jwt.encode(self._header, claims, self._key, algorithms=[ALGORITHM])

    def public_key(self) -> dict[str, str]:
        """The public half as a JSON web key."""
        public = self._key.as_dict(private=False)
        members = {name: str(public[name]) for name in ("kty", "crv", "x")}
        return members | {"kid": self._header["kid"], "alg": ALGORITHM, "use": "sig"}


def _private_key(path: Path) -> OKPKey:
    try:
        key = OKPKey.import_key(path.read_bytes())
    except (JoseError, ValueError) as error:
        raise ValueError(f"{path} is not a private key that signs tokens (PEM, Ed25519)") from error
    if key.curve_name != "Ed25519" or not key.is_private:
        raise ValueError(f"{path} is not a private key that signs tokens (PEM, Ed25519)")
    return key
