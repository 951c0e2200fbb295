"""Settings of a process, read from `MILLRACE_*` environment variables and nowhere else."""

import hashlib
import hmac
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything a service needs to know about where it runs."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", frozen=True)

    database_url: str = "postgresql:///millrace"
    """Without a user the service's own role and password are filled in."""
    secret: SecretStr
    """The deployment's secret, 32 characters or more: service tokens and role passwords derive from it."""
    jwks: str = ""
    """Path or http(s) URL of the JWKS that user tokens are verified with."""
    signing_key: Path | None = None
    """Private key (PEM, Ed25519) that identity signs user tokens with; identity only."""
    issuer: str = "https://millrace.local"
    audience: str = "millrace-api"
    listen: str = "127.0.0.1:0"
    addresses: dict[str, str] = Field(default_factory=dict)
    """Where the other services are: name → host:port."""
    threads: int = Field(default=8, ge=2)
    """Requests served at once by one process; also the size of its connection pool."""
    reuse_port: bool = False
    """Whether several processes of a service share `listen`."""
    log_level: str = "info"


def database_password(secret: str, role: str) -> str:
    """The password of a database role of this deployment."""
    return hmac.new(secret.encode(), f"database:{role}".encode(), hashlib.sha256).hexdigest()


def service_key(secret: str) -> bytes:
    """The key that Millrace's services sign tokens to each other with (HS256)."""
    return hmac.new(secret.encode(), b"service-token", hashlib.sha256).digest()
