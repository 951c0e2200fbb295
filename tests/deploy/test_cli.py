"""The `millrace` command where it needs no running system: what it refuses, and how it says so."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def millrace(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "command",
    [
        ["organization", "create", "Acme"],
        ["user", "create", "--organization", "1", "--email", "a@b.example", "--name", "A", "--role", "viewer"],
        ["token", "--organization", "1", "--user", "1"],
        ["api-key", "create", "--organization", "1", "--user", "1"],
    ],
)
def test_administration_of_a_system_that_is_down_says_how_to_start_it(tmp_path: Path, command: list[str]) -> None:
    done = millrace(*command, "--data", str(tmp_path), "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"error: Millrace does not run on {tmp_path}; start it with: millrace up --data {tmp_path}\n"


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_up_on_a_taken_port_fails_in_a_line_and_leaves_nothing(tmp_path: Path, detach: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = millrace("up", "--port", str(port), "--data", str(tmp_path), "--json", *detach)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"error: port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "state.json").exists()
    assert not (tmp_path / "postgres").exists()


def test_down_without_a_system_succeeds_and_says_so(tmp_path: Path) -> None:
    assert json.loads(millrace("down", "--data", str(tmp_path), "--json").stdout) == {"stopped": False}
    done = millrace("down", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "nothing was running\n")


def test_migrate_needs_a_secret(tmp_path: Path) -> None:
    done = millrace("migrate", "--url", "postgresql:///nowhere", "--data", str(tmp_path), MILLRACE_SECRET="")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no secret: set MILLRACE_SECRET")


def test_migrate_of_a_database_that_is_not_there_fails_in_a_line(tmp_path: Path) -> None:
    url = f"postgresql:///nowhere?host={tmp_path}"
    done = millrace("migrate", "--url", url, "--data", str(tmp_path), MILLRACE_SECRET="x" * 32)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the database cannot be migrated: ")
    assert "Traceback" not in done.stderr


def test_serve_names_the_services_there_are() -> None:
    done = millrace("serve", "contacts", "nonsense")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no service nonsense; there are identity, ")


def test_serve_of_several_services_needs_to_know_where_each_listens() -> None:
    done = millrace("serve", "contacts", "fields", MILLRACE_ADDRESSES='{"contacts": "127.0.0.1:1"}')
    assert done.returncode == 1
    assert "where should fields listen?" in done.stderr
