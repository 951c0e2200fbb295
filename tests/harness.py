"""What tests stand on: real in-process servers on real PostgreSQL, callers with real tokens, tiny verbs."""

import importlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from joserfc import jwt
from joserfc.jwk import OKPKey
from pydantic import SecretStr

from services import SERVICES
from services.runtime.auth import service_token
from services.runtime.server import Wiring, start
from services.runtime.settings import Settings

SECRET = "a secret of tests that is long enough for anything"

Answer = TypeVar("Answer")


class Keys:
    """A signing key on disk, its JWKS, and tokens made with it."""

    def __init__(self, folder: Path) -> None:
        private = Ed25519PrivateKey.generate()
        self.signing_key = folder / "signing.pem"
        self.signing_key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self._key = OKPKey.import_key(self.signing_key.read_bytes())
        self._key.ensure_kid()
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [self._key.as_dict(private=False)]}))

    def token(self, organization_id: int, user_id: int, role: str, **claims: Any) -> str:
        """A user's token."""
        said = {
            "iss": "https://millrace.local",
            "aud": "millrace-api",
            "sub": str(user_id),
            "organization_id": organization_id,
            "roles": [role],
            "exp": 4102444800,
            **claims,
        }
        return jwt.encode({"alg": "EdDSA", "kid": self._key.kid}, said, self._key, algorithms=["EdDSA"])


class Someone:
    """A caller: an organisation, a user and a role, and the metadata that proves it."""

    def __init__(self, token: str, organization_id: int, user_id: int) -> None:
        self.token = token
        self.organization_id = organization_id
        self.user_id = user_id

    def metadata(self, **extra: str) -> tuple[tuple[str, str], ...]:
        """What a call of this caller carries."""
        return (("authorization", f"Bearer {self.token}"), *((k.replace("_", "-"), v) for k, v in extra.items()))


class House:
    """One running service."""

    def __init__(self, name: str, server: grpc.Server, wiring: Wiring, address: str) -> None:
        self.name, self.address = name, address
        self._server, self._wiring = server, wiring

    def stop(self) -> None:
        """Stops serving at once; calls under way are cut off."""
        self._server.stop(None).wait()
        for close in self._wiring.closing:
            close()


class Houses:
    """The services of a system, each a real server in this process, started when first asked for."""

    def __init__(self, database_url: str, keys: Keys) -> None:
        self._database_url, self._keys = database_url, keys
        self._addresses = {name: f"127.0.0.1:{free_port()}" for name in SERVICES}
        self._running: dict[str, House] = {}
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for channel in self._channels.values():
            channel.close()
        for house in self._running.values():
            house.stop()

    def settings(self, service: str, **changed: Any) -> Settings:
        """The settings of a service of this system."""
        return Settings.model_validate(
            {
                "database_url": self._database_url,
                "secret": SecretStr(SECRET),
                "jwks": str(self._keys.jwks),
                "signing_key": self._keys.signing_key,
                "listen": self._addresses[service],
                "addresses": self._addresses,
                "threads": 16,
                **changed,
            }
        )

    def start(self, *services: str, **changed: Any) -> Self:
        """Starts services with their real wiring."""
        for name in services:
            settings = self.settings(name, **changed)
            wiring = importlib.import_module(f"services.{name}.__main__").wire(settings)
            server, _, _ = start(settings, wiring)
            self._running[name] = House(name, server, wiring, self._addresses[name])
        return self

    def stop(self, service: str) -> None:
        """Stops one service; others find it gone."""
        self._running.pop(service).stop()

    def channel(self, service: str) -> grpc.Channel:
        """A channel to a service."""
        if service not in self._channels:
            self._channels[service] = grpc.insecure_channel(self._addresses[service])
        return self._channels[service]

    def someone(self, role: str = "admin", *, organization_id: int = 1, user_id: int = 1) -> Someone:
        """A user."""
        return Someone(self._keys.token(organization_id, user_id, role), organization_id, user_id)

    def service(self, *, organization_id: int = 1, user_id: int = 0) -> Someone:
        """Millrace itself."""
        return Someone(service_token(SECRET, organization_id, user_id, 3600), organization_id, user_id)


class Failure:
    """How a call failed, as the contract tells it: code, reason and the fields at fault; never the text."""

    def __init__(self, error: grpc.RpcError) -> None:
        call = cast("grpc.Call", error)
        self.code = call.code()
        self.message = call.details()
        self.reason = ""
        self.fields: list[str] = []
        details = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin")
        if isinstance(details, bytes):
            for each in status_pb2.Status.FromString(details).details:
                if each.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    self.reason = error_details_pb2.ErrorInfo.FromString(each.value).reason
                if each.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                    found = error_details_pb2.BadRequest.FromString(each.value)
                    self.fields = [violation.field for violation in found.field_violations]

    def __repr__(self) -> str:
        return f"{self.code.name} {self.reason} {self.fields} {self.message!r}"


def failing(method: Callable[..., Any], request: Message, who: Someone | None = None, **extra: str) -> Failure:
    """The failure of a call that must fail."""
    try:
        answer = method(request, metadata=who.metadata(**extra) if who else (), timeout=20)
    except grpc.RpcError as error:
        return Failure(error)
    raise AssertionError(f"expected a failure, got {answer}")


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer | Exception]:
    """Runs calls at the same time and answers what each gave or raised."""
    barrier = threading.Barrier(len(calls))
    outcomes: list[Answer | Exception] = [AssertionError("did not run")] * len(calls)

    def run(index: int, call: Callable[[], Answer]) -> None:
        barrier.wait()
        try:
            outcomes[index] = call()
        except Exception as error:  # noqa: BLE001 - the outcome is what the test looks at
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index, call)) for index, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@contextmanager
def eventually(seconds: float = 10.0) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """`until(condition)` that fails when the condition does not come true in time."""
    import time

    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            time.sleep(0.02)

    yield until
