"""The data directory of a local deployment: what lies where, and what the first start puts there.

::

    secret              service tokens and database passwords derive from it
    keys/signing.pem    the private key user tokens are signed with
    keys/jwks.json      its public half, for the gateway and the services
    keys/demo_api_key   the API key of the demo organisation's admin
    postgres/           the database
    logs/               one file per process
    run/                what the processes of this start were given, and state.json: which they are
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from deploy.local.errors import DeployError


class Home:
    """A data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().absolute()
        self.secret = self.directory / "secret"
        self.signing_key = self.directory / "keys" / "signing.pem"
        self.jwks = self.directory / "keys" / "jwks.json"
        self.demo_api_key = self.directory / "keys" / "demo_api_key"
        self.postgres = self.directory / "postgres"
        self.logs = self.directory / "logs"
        self.run = self.directory / "run"
        self.state = self.run / "state.json"

    def prepare(self) -> None:
        """Makes what is missing: folders closed to others, the secret, the signing key and its public half."""
        try:
            self.directory.mkdir(
                mode=0o711, parents=True, exist_ok=True
            )  # PostgreSQL's user must pass when root runs us
            for folder in (self.signing_key.parent, self.logs, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not self.secret.exists():
                write_privately(self.secret, secrets.token_urlsafe(32))
            if not self.signing_key.exists() or not self.jwks.exists():
                self._make_keys()
        except OSError as error:
            raise DeployError(f"the data directory {self.directory} cannot be used: {error}") from error

    def _make_keys(self) -> None:
        from joserfc.jwk import OKPKey

        if not self.signing_key.exists():
            pem = OKPKey.generate_key("Ed25519").as_pem(private=True)
            write_privately(self.signing_key, pem.decode())
        key = OKPKey.import_key(self.signing_key.read_bytes())
        public = key.as_dict(private=False) | {"kid": key.thumbprint(), "use": "sig", "alg": "EdDSA"}
        write_privately(self.jwks, json.dumps({"keys": [public]}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one ``up``; DeployError when another one has it."""
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DeployError(
                    f"Millrace already runs on {self.directory} (pid {file.read().strip() or 'unknown'}); "
                    f"stop it with: millrace down --data {self.directory}"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)


def default_directory() -> Path:
    """Where data goes when nobody says."""
    return Path(platformdirs.user_data_dir("millrace", appauthor=False))


def write_privately(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
