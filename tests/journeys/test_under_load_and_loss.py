"""What a caller sees when everybody moves at once, and when a service is gone for a while."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from tests.harness import eventually
from tests.journeys.conftest import Client, Organization, System
from tests.journeys.kyc import Kyc

CROWD = 200


@pytest.fixture
def kyc(api: Client) -> Kyc:
    return Kyc(api)


def test_two_hundred_contacts_moved_at_once_all_get_their_run(kyc: Kyc, organization: Organization) -> None:
    def create(number: int) -> int:
        return int(alone(organization, "POST", "/contacts", {"first_name": f"C{number}"})["id"])

    def move(contact: int) -> int:
        moved = alone(organization, "PATCH", f"/contacts/{contact}", {"contact_stage_id": kyc.stage})
        return int(moved["contact_stage_id"])

    def enrolled() -> list[int]:
        return sorted(run["subject_id"] for page in (1, 2, 3) for run in _page(kyc, page))

    with ThreadPoolExecutor(CROWD) as crowd:
        contacts = sorted(crowd.map(create, range(CROWD)))
        assert set(crowd.map(move, contacts)) == {kyc.stage}
    with eventually(20) as until:
        until(lambda: enrolled() == contacts)


def test_a_submission_made_while_pipelines_is_gone_is_kept_and_moves_the_run_when_it_returns(
    kyc: Kyc, system: System
) -> None:
    contact, run, action = kyc.contact_in_review()
    with held(system, "pipelines"):
        sent = kyc.submit(contact, action["id"], "approved")
        assert sent["write_back_result"][0]["status"] == "applied"
    with eventually(20) as until:
        until(lambda: kyc.run(run["id"])["status"] == "completed")
    assert kyc.actions(run["id"])[0]["form_submission_id"] == sent["id"]


def test_a_service_that_dies_comes_back_and_finishes_what_was_left(kyc: Kyc, system: System) -> None:
    contact, run, action = kyc.contact_in_review()
    os.kill(system.pid("pipelines"), signal.SIGKILL)
    kyc.submit(contact, action["id"], "approved")
    with eventually(30) as until:
        until(lambda: _status(kyc, run["id"]) == "completed")


def alone(organization: Organization, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A call on a connection of its own: the client's pool is not safe to share between hundreds of threads."""
    connection = HTTPConnection(organization.system.grpc, timeout=20)
    headers = {"Authorization": f"Bearer {organization.token}", "Content-Type": "application/json"}
    with closing(connection):
        connection.request(method, f"/api/v1/crm{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
    assert answer.status == 200, told
    data: dict[str, Any] = told["data"]
    return data


def _page(kyc: Kyc, page: int) -> list[dict[str, int]]:
    found: list[dict[str, int]] = kyc.api.call(
        "GET", "/pipeline-runs", pipeline_definition_id=kyc.pipeline["id"], page=page, per_page=100
    )
    return found


def _status(kyc: Kyc, run_id: int) -> str:
    """The run's status, or how its service is missing."""
    answer: httpx.Response = kyc.api.get(f"/pipeline-runs/{run_id}")
    body = answer.json()
    return str(body["data"]["status"] if answer.status_code == 200 else body["error_code"])


@contextmanager
def held(system: System, service: str) -> Iterator[None]:
    """A service that does not answer: its process is stopped, its port still takes connections."""
    pid = system.pid(service)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
