"""API keys: `mlr_<organisation>_<secret>`, the organisation as a sqid so that finding a key asks one organisation.

Only SHA-256 of the secret is kept. A slow, salted hash protects what people choose, because that can be guessed; this
secret is 256 random bits, which no hash makes easier to find.
"""

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

from sqids import Sqids

from services.identity.errors import ApiKeyInvalid

SECRET_BYTES = 32
LARGEST_ORGANIZATION = 2**31 - 1

_SHAPE = re.compile(r"mlr_([A-Za-z0-9]{8,16})_([A-Za-z0-9_-]{43})")
_ORGANIZATIONS = Sqids(min_length=8)


class ApiKey(NamedTuple):
    """A key as its holder has it."""

    organization_id: int
    secret: str

    def __str__(self) -> str:
        return f"mlr_{_ORGANIZATIONS.encode([self.organization_id])}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """What is kept of the secret."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, digest: bytes) -> bool:
        """Whether this is what was kept of the secret, found out in constant time."""
        return hmac.compare_digest(self.digest, digest)


def new_key(organization_id: int) -> ApiKey:
    """A key that nobody had before."""
    return ApiKey(organization_id, secrets.token_urlsafe(SECRET_BYTES))


def read_key(text: str) -> ApiKey:
    """The key a caller sent. Raises ApiKeyInvalid for a text that no key of ours has."""
    shaped = _SHAPE.fullmatch(text)
    if shaped is None:
        raise ApiKeyInvalid()
    sqid, secret = shaped.groups()
    numbers = _ORGANIZATIONS.decode(sqid)
    # Several texts decode to the same numbers; only the one that we write is a key.
    if len(numbers) != 1 or not 0 < numbers[0] <= LARGEST_ORGANIZATION or _ORGANIZATIONS.encode(numbers) != sqid:
        raise ApiKeyInvalid()
    return ApiKey(numbers[0], secret)
