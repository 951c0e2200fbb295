"""The supervisor: processes start, are healthy, die, come back and stop in order."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.local.errors import DeployError
from deploy.local.health import serves_grpc
from deploy.local.ports import free_ports
from deploy.local.progress import Progress
from deploy.local.supervisor import Supervisor
from tests.deploy.dummies import has_ended, healthy_server, shell


class Observer:
    """Takes note of which processes run, at every change."""

    def __init__(self) -> None:
        self.seen: list[dict[str, int]] = []

    def __call__(self, running: Mapping[str, int]) -> None:
        self.seen.append(dict(running))


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def supervisor(observer: Observer) -> Iterator[Supervisor]:
    """A supervisor with short pauses; everything it started is stopped afterwards."""
    supervisor = Supervisor(Progress(), record=observer, attempts=3, first_pause=0.05, steady=5)
    yield supervisor
    supervisor.stop()


def test_start_returns_when_every_process_is_healthy(supervisor: Supervisor) -> None:
    ports = free_ports(2)
    supervisor.start(*(healthy_server(f"server {port}", port) for port in ports))
    assert all(serves_grpc(f"127.0.0.1:{port}") for port in ports)


def test_a_process_that_dies_at_start_is_reported_with_its_last_words(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "doomed.log"
    log.write_text("from an earlier life\n")
    doomed = shell("doomed", "echo no such database >&2; exit 3", log, ready=lambda: False)
    with pytest.raises(DeployError, match="doomed ended with exit code 3") as refusal:
        supervisor.start(shell("other", "exec sleep 1000"), doomed)
    assert str(log) in str(refusal.value)
    assert "no such database" in str(refusal.value)
    assert "earlier life" not in str(refusal.value)


def test_a_process_that_never_answers_is_given_up(supervisor: Supervisor, tmp_path: Path) -> None:
    mute = shell("mute", "echo thinking; exec sleep 1000", tmp_path / "mute.log", ready=lambda: False)
    with pytest.raises(DeployError, match=r"not ready after 0 s: mute runs but does not answer"):
        supervisor.start(mute, timeout=0.3)


def test_a_program_that_does_not_exist_is_an_error_of_its_own(supervisor: Supervisor) -> None:
    with pytest.raises(DeployError, match="missing ended with exit code"):
        supervisor.start(shell("missing", "exec /no/such/program", ready=lambda: False))


def test_stop_ends_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"

    def until_told(name: str) -> None:
        ready = tmp_path / name
        script = f"trap 'echo {name} >> {order}; exit 0' TERM; touch {ready}; while :; do sleep 0.01; done"
        supervisor.start(shell(name, script, ready=ready.exists))

    until_told("first")
    until_told("second")
    supervisor.stop()
    assert order.read_text().split() == ["second", "first"]


def test_a_process_that_ignores_the_request_to_stop_is_killed(
    supervisor: Supervisor, observer: Observer, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 0.01; done"
    supervisor.start(shell("stubborn", script, ready=ready.exists, patience=0.2))
    stubborn = observer.seen[-1]["stubborn"]
    supervisor.stop()
    assert has_ended(stubborn)


def test_a_process_that_dies_later_comes_back(supervisor: Supervisor, observer: Observer) -> None:
    (port,) = free_ports(1)
    supervisor.start(healthy_server("server", port))
    first = observer.seen[-1]["server"]
    os.kill(first, signal.SIGKILL)

    supervisor.watch(until=lambda: serves_grpc(f"127.0.0.1:{port}"))
    assert observer.seen[-1]["server"] != first


def test_a_process_that_keeps_dying_is_given_up(supervisor: Supervisor, observer: Observer, tmp_path: Path) -> None:
    log = tmp_path / "weak.log"
    supervisor.start(shell("weak", "echo lived; sleep 0.3", log))
    with pytest.raises(DeployError, match=r"(?s)4 times in a row: weak ended with exit code .*lived"):
        supervisor.watch()
    assert log.read_text().count("lived") == 4


def test_a_death_after_long_health_starts_the_count_anew(observer: Observer) -> None:
    supervisor = Supervisor(Progress(), record=observer, attempts=1, first_pause=0.01, steady=0.0)
    supervisor.start(shell("weak", "sleep 0.1"))
    supervisor.watch(until=lambda: len({each.get("weak") for each in observer.seen}) > 4)
    supervisor.stop()
