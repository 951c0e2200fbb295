"""A real Envoy, configured as in every environment."""

import json
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey, RSAKey

from gateway.render import render

DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors.binpb"
ISSUER = "https://millrace.test"
AUDIENCE = "millrace-test"

T = TypeVar("T")


class Gateway(NamedTuple):
    """A running Envoy."""

    address: str
    admin: str
    log: Path
    key: OKPKey
    rsa_key: RSAKey
    absent: str
    """Where contacts, forms and pipelines are said to be; nobody listens there."""

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def token(self, claims: Mapping[str, object] = MappingProxyType({}), *, key: OKPKey | RSAKey | None = None) -> str:
        """A user token of the usual claims and these; a claim given as None is left out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "17", "organization_id": 7, "exp": now + 600}
        given = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        signer = key or self.key
        algorithm = "RS256" if isinstance(signer, RSAKey) else "EdDSA"
        with warnings.catch_warnings(action="ignore"):  # joserfc wants EdDSA called Ed25519, which Envoy does not know
            return jwt.encode({"alg": algorithm, "kid": signer.kid}, given, signer, algorithms=[algorithm])

    def logged(self, request_id: str) -> dict[str, Any]:
        """The access log line of a request, once it is written."""

        def find() -> dict[str, Any] | None:
            lines = (json.loads(line) for line in self.log.read_text().splitlines())
            return next((line for line in lines if line.get("request_id") == request_id), None)

        return until(find, f"the access log line of {request_id}")


def until(probe: Callable[[], T | None], what: str) -> T:
    """What the probe finds in the end."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = probe()
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


@contextmanager
def running(directory: Path, served: int) -> Iterator[Gateway]:
    """Envoy in front of one server that plays identity and fields at the port served; nobody plays the others."""
    log, admin_file, jwks = directory / "envoy.log", directory / "admin", directory / "jwks.json"
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    rsa_key = RSAKey.generate_key(2048, auto_kid=True)
    jwks.write_text(json.dumps(KeySet([key, rsa_key]).as_dict(private=False)))
    with _nowhere() as absent:
        config = render(
            directory,
            port=0,
            admin_port=0,
            addresses={
                "identity": f"127.0.0.1:{served}",
                "fields": f"localhost:{served}",  # names serve as well as addresses
                "contacts": absent,
                "forms": absent,
                "pipelines": absent,
            },
            jwks=jwks,
            descriptors=DESCRIPTORS,
            issuer=ISSUER,
            audience=AUDIENCE,
        )
        options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        options += ["--file-flush-interval-msec", "20", "--admin-address-path", str(admin_file)]
        command = [str(Path(sys.executable).parent / "envoy"), "-c", str(config), *options]
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
            try:
                admin, address = until(lambda: _listening(process, admin_file, log), "Envoy")
                yield Gateway(address, admin, log, key, rsa_key, absent)
            finally:
                process.terminate()


@contextmanager
def _nowhere() -> Iterator[str]:
    """An address that is bound, so that no one else gets it, but only listened at when a test does."""
    with socket.socket() as nobody:
        nobody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        nobody.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{nobody.getsockname()[1]}"


def _listening(process: subprocess.Popen[bytes], admin_file: Path, log: Path) -> tuple[str, str] | None:
    assert process.poll() is None, log.read_text()
    if not admin_file.exists() or not (admin := admin_file.read_text()):
        return None
    if httpx.get(f"http://{admin}/ready").status_code != 200:
        return None
    (listener,) = httpx.get(f"http://{admin}/listeners?format=json").json()["listener_statuses"]
    place = listener["local_address"]["socket_address"]
    return admin, f"{place['address']}:{place['port_value']}"
