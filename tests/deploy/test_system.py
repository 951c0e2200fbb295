"""The real system from the command line: it comes up, is administered, survives kill -9, and goes down."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy.local.health import serves_grpc
from deploy.local.home import Home
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.postgres import PostgresCluster
from deploy.local.state import State
from services import SERVICES
from tests.deploy.dummies import has_ended, wait_until
from tests.harness import SECRET, Keys


@pytest.fixture
def home() -> Iterator[Home]:
    """An empty data directory; what still runs on it afterwards is stopped."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as temporary:
        Path(temporary).chmod(0o755)
        home = Home(Path(temporary) / "data")
        yield home
        _millrace(home, "down")
        PostgresCluster(home.postgres).remove()


def _millrace(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local.cli", *arguments, "--data", str(home.directory), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def millrace(home: Home, *arguments: str) -> Any:
    """What a command prints, which must succeed."""
    done = _millrace(home, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def processes(home: Home) -> dict[str, int]:
    state = State.read(home.state)
    assert state is not None
    return {"up": state.supervisor.pid, **{name: mark.pid for name, mark in state.processes.items()}}


def test_a_system_comes_up_is_administered_survives_kill_9_and_goes_down(home: Home) -> None:
    first = millrace(home, "up", "--port", "0", "--detach")
    assert first.keys() == {"url", "grpc", "organization_id", "user_id", "token", "api_key"}
    assert (first["organization_id"], first["user_id"]) == (1, 1)
    running = processes(home)
    assert running.keys() == {"up", "envoy", *SERVICES}

    acme = millrace(home, "organization", "create", "Acme")
    assert acme == {"organization_id": 2, "user_id": 1}
    agent = ["--email", "ann@acme.example", "--name", "Ann", "--role", "agent"]
    assert millrace(home, "user", "create", "--organization", "2", *agent) == {"user_id": 2}
    token = millrace(home, "token", "--organization", "2", "--user", "2", "--ttl", "600")["token"]
    assert millrace(home, "api-key", "create", "--organization", "2", "--user", "2")["api_key"].startswith("mlr_")

    contacts = "/api/v1/crm/contacts"
    ann = {"authorization": f"Bearer {token}"}
    made = httpx.post(first["url"] + contacts, headers=ann, json={"first_name": "Bob"}).raise_for_status().json()
    os.kill(running["up"], signal.SIGKILL)

    second = millrace(home, "up", "--port", "0", "--detach")
    assert second["api_key"] == first["api_key"]
    assert all(has_ended(pid) for pid in running.values())
    kept = httpx.get(second["url"] + contacts, headers=ann).raise_for_status().json()
    assert [each["id"] for each in kept["data"]] == [made["data"]["id"]]
    demo = {"authorization": f"Bearer {first['token']}"}
    assert httpx.get(second["url"] + contacts, headers=demo).raise_for_status().json()["data"] == []

    again = processes(home)
    os.kill(again["contacts"], signal.SIGKILL)
    wait_until(lambda: processes(home).get("contacts", again["contacts"]) != again["contacts"])
    wait_until(lambda: httpx.get(second["url"] + contacts, headers=ann).is_success)

    last = processes(home)
    assert millrace(home, "down") == {"stopped": True}
    assert all(has_ended(pid) for pid in last.values())
    assert PostgresCluster(home.postgres).pid is None
    assert not home.state.exists()


def test_serve_runs_several_processes_of_a_service_on_one_port(database: str, keys: Keys) -> None:
    (port,) = free_ports(1)
    address = f"{LOOPBACK}:{port}"
    told = {
        "MILLRACE_DATABASE_URL": os.environ["MILLRACE_TEST_URL"].replace("a_database", database),
        "MILLRACE_SECRET": SECRET,
        "MILLRACE_JWKS": str(keys.jwks),
        "MILLRACE_ADDRESSES": json.dumps({"fields": address}),
    }
    command = [sys.executable, "-m", "deploy.local.cli", "serve", "fields", "--processes", "2"]
    with subprocess.Popen(
        command, env={**os.environ, **told}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as serve:
        me = psutil.Process(serve.pid)
        wait_until(lambda: serves_grpc(address) and len(listening(me, port)) == 2)
        first, second = listening(me, port)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(listening(me, port) - {first}) == 2)
        assert second in listening(me, port)
        serve.terminate()
        assert serve.wait(30) == 0
    assert has_ended(second)


def listening(parent: psutil.Process, port: int) -> set[int]:
    """The children that accept connections on a port."""
    return {
        child.pid
        for child in parent.children()
        if any(each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,) for each in child.net_connections("tcp"))
    }
