"""The whole system, as `millrace up` starts it: one for all journeys of a run."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.postgres import PostgresCluster

MILLRACE = Path(sys.executable).with_name("millrace")


@dataclass(frozen=True)
class System:
    """A running system and how to reach it."""

    data: Path
    url: str
    grpc: str
    organization_id: int
    user_id: int
    token: str

    def address(self, service: str) -> str:
        """Where a service listens behind the gateway."""
        return str(self._state()["addresses"][service])

    def pid(self, service: str) -> int:
        """The process a service runs in."""
        return int(self._state()["processes"][service]["pid"])

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.data / "run" / "state.json").read_text())
        return state

    def command(self, *words: str) -> dict[str, Any]:
        """Runs a `millrace` command against this system and reads its line of JSON."""
        return millrace(*words, "--data", str(self.data), "--json")

    def client(self, token: str | None = None) -> "Client":
        """An HTTP client of API v1."""
        return Client(f"{self.url}/api/v1/crm", token or self.token)


class Client(httpx.Client):
    """HTTP calls of one user; `call` asserts the status and answers the body's `data`."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        """The data of a call that succeeds."""
        answer = self.request(method, path, json=body, params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["meta"]["request_id"] == answer.headers["x-request-id"]
        return answer.json()["data"]

    def refused(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """The status and error_code of a call that fails, whose body has the contract's shape."""
        answer = self.request(method, path, json=body)
        error = answer.json()
        assert answer.status_code >= 400, answer.text
        assert set(error) == {"code", "message", "error_code", "details", "request_id"}
        assert error["code"] == answer.status_code
        assert error["request_id"] == answer.headers["x-request-id"]
        return answer.status_code, error["error_code"]


def millrace(*words: str) -> dict[str, Any]:
    """Runs a command and reads its line of JSON."""
    done = subprocess.run([MILLRACE, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    return answer


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """A system of this worker's own, on its own data and ports."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-journeys-"))
    folder.chmod(0o755)  # for PostgreSQL's own user, where root runs the tests
    data = folder / "data"
    told = millrace("up", "--data", str(data), "--port", "0", "--detach", "--json")
    try:
        yield System(data, told["url"], told["grpc"], told["organization_id"], told["user_id"], told["token"])
    finally:
        millrace("down", "--data", str(data))
        PostgresCluster(data / "postgres").remove()
        shutil.rmtree(folder)


@pytest.fixture
def organization(system: System) -> "Organization":
    """A fresh organisation: every journey starts on empty ground."""
    made = system.command("organization", "create", "Journey")
    token = system.command("token", "--organization", str(made["organization_id"]), "--user", str(made["user_id"]))
    return Organization(system, made["organization_id"], made["user_id"], token["token"])


@dataclass(frozen=True)
class Organization:
    """An organisation of a running system and its admin."""

    system: System
    id: int
    user_id: int
    token: str

    def client(self) -> Client:
        """HTTP calls of its admin."""
        return self.system.client(self.token)


@pytest.fixture
def api(organization: Organization) -> Iterator[Client]:
    """HTTP calls of the organisation's admin."""
    with organization.client() as client:
        yield client
