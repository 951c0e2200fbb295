"""A service as the process it is in production: settings from the environment, JSON lines, health, and a drain."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.harness import Houses, Someone, eventually, failing
from tests.runtime.conftest import text_field

READY = re.compile(r'"event":"service.ready"')

MEMBERS = frozenset(
    {"service", "event", "level", "timestamp", "rpc", "code", "reason", "ms"}
    | {"organization_id", "user_id", "statements", "request_id"}
)


class Process:
    """`python -m services.fields`."""

    def __init__(self, houses: Houses, **changed: str) -> None:
        settings = houses.settings("fields")
        told = {
            "MILLRACE_DATABASE_URL": settings.database_url,
            "MILLRACE_SECRET": settings.secret.get_secret_value(),
            "MILLRACE_JWKS": settings.jwks,
            "MILLRACE_LISTEN": settings.listen,
            "MILLRACE_ADDRESSES": json.dumps(settings.addresses),
            "MILLRACE_THREADS": "4",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.fields"],
            env=kept | told | changed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.channel = grpc.insecure_channel(settings.listen)
        self.stub = CrmCustomFieldServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)

    def wait_ready(self) -> "Process":
        with eventually(60) as until:
            until(lambda: any(READY.search(line) for line in self.output) or self.process.poll() is not None)
        assert self.process.poll() is None, self.output
        return self

    def ended(self) -> int:
        """Its exit status; all it wrote has been read."""
        status = self.process.wait(40)
        self._reader.join(10)
        return status

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output]

    def status(self, service: str = "") -> int:
        return int(self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def process(houses: Houses) -> Iterator[Process]:
    started = Process(houses)
    yield started.wait_ready()
    started.close()


def test_every_rpc_is_one_line_of_json(process: Process, admin: Someone) -> None:
    process.stub.CreateCustomField(text_field("size"), metadata=admin.metadata(x_request_id="made"))
    process.stub.ListCustomFields(pb.ListCustomFieldsRequest(), metadata=admin.metadata(x_request_id="listed"))
    failing(process.stub.CreateCustomField, text_field("size"), admin, x_request_id="taken")
    failing(process.stub.ListCustomFields, pb.ListCustomFieldsRequest(), None)
    process.process.send_signal(signal.SIGTERM)
    assert process.ended() == 0
    lines = process.lines()
    assert {each["service"] for each in lines} == {"fields"}
    assert {each["event"] for each in lines} == {"service.ready", "service.stopped", "rpc"}
    rpcs = [each for each in lines if each["event"] == "rpc"]
    assert {frozenset(each) for each in rpcs} == {MEMBERS}
    told = [(each["rpc"].partition("Service/")[2], each["code"], each["reason"], each["statements"]) for each in rpcs]
    assert told == [
        ("CreateCustomField", "OK", "", 1),
        ("ListCustomFields", "OK", "", 1),
        ("CreateCustomField", "ALREADY_EXISTS", "ErrCustomFieldKeyTaken", 1),
        ("ListCustomFields", "UNAUTHENTICATED", "UNAUTHENTICATED", 0),
    ]
    assert [each["request_id"] for each in rpcs[:3]] == ["made", "listed", "taken"]
    assert [(each["organization_id"], each["user_id"]) for each in rpcs] == [(1, 1)] * 3 + [(0, 0)]
    assert all(0 < each["ms"] < 60_000 and each["timestamp"].endswith("Z") for each in rpcs)


def test_a_process_is_well_when_it_is_ready(process: Process) -> None:
    for service in ("", "crm.fields.v1.CrmCustomFieldService", "crm.fields.v1.FieldRulesService"):
        assert process.status(service) == HealthCheckResponse.SERVING


def test_no_secret_is_written(process: Process, houses: Houses, admin: Someone) -> None:
    process.stub.CreateCustomField(text_field("size", label="Ada's own words"), metadata=admin.metadata())
    failing(process.stub.CreateCustomField, text_field("size", label="Ada's own words"), admin)
    process.process.send_signal(signal.SIGTERM)
    process.ended()
    written = "".join(process.output)
    for secret in (admin.token, houses.settings("fields").secret.get_secret_value(), "Ada's own words"):
        assert secret not in written


def test_a_process_that_is_asked_to_stop_finishes_what_is_under_way(
    process: Process, admin: Someone, superuser: psycopg.Connection
) -> None:
    process.stub.CreateCustomField(text_field("size"), metadata=admin.metadata())
    request = pb.UpdateCustomFieldRequest(id=1, label="Changed while stopping")
    with psycopg.connect(superuser.info.dsn, password=superuser.info.password) as holder, eventually(30) as until:
        holder.execute("select 1 from fields.custom_fields for update")
        call = process.stub.UpdateCustomField.future(request, metadata=admin.metadata(), timeout=30)
        waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        until(lambda: superuser.execute(waiting).fetchone() is not None)
        watched = process.health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watched).status == HealthCheckResponse.SERVING
        process.process.send_signal(signal.SIGTERM)
        assert next(watched).status == HealthCheckResponse.NOT_SERVING
        assert process.process.poll() is None
        holder.rollback()
        assert call.result(30).data.label == "Changed while stopping"
    assert process.ended() == 0
    assert process.lines()[-1]["event"] == "service.stopped"
    with grpc.insecure_channel(_address(process)) as fresh:
        late = failing(CrmCustomFieldServiceStub(fresh).GetCustomField, pb.GetCustomFieldRequest(id=1), admin)
    assert late.code == grpc.StatusCode.UNAVAILABLE


def _address(process: Process) -> str:
    return str(process.channel._channel.target().decode())  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_at_rest_ends_at_once_and_well(process: Process, number: signal.Signals) -> None:
    process.process.send_signal(number)
    assert process.ended() == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"MILLRACE_THREADS": "none"}, "threads"),
        ({"MILLRACE_THREADS": "1"}, "threads"),
        ({"MILLRACE_ADDRESSES": "{"}, "addresses"),
    ],
)
def test_a_process_with_wrong_settings_says_which_and_ends(houses: Houses, changed: dict[str, str], said: str) -> None:
    process = Process(houses, **changed)
    assert process.ended() != 0
    assert said in "".join(process.output)
    process.close()


def test_a_process_whose_address_is_taken_says_so_and_ends(houses: Houses, process: Process) -> None:
    second = Process(houses)
    assert second.ended() != 0
    assert houses.settings("fields").listen in "".join(second.output)
    second.close()
    assert process.status() == HealthCheckResponse.SERVING
