"""One ``up`` on a data directory: alone, restartable after any end, leaving nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.errors import DeployError
from deploy.local.health import serves_grpc
from deploy.local.home import Home
from deploy.local.ports import LOOPBACK, free_ports, require_free
from deploy.local.progress import Progress
from deploy.local.session import stop
from deploy.local.state import State
from tests.deploy.dummies import has_ended, up, wait_until


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    assert json.loads(line) == {"ready": True}


def running(home: Path) -> dict[str, int]:
    state = State.read(Home(home).state)
    assert state is not None
    return {name: mark.pid for name, mark in state.processes.items()}


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_and_leaves_nothing(tmp_path: Path, request_to_stop: signal.Signals) -> None:
    ports = free_ports(2)
    with up(tmp_path, *ports) as process:
        wait_ready(process)
        pids = running(tmp_path).values()
        assert len(pids) == 2
        process.send_signal(request_to_stop)
        assert process.wait(30) == 0
    assert all(has_ended(pid) for pid in pids)
    assert not Home(tmp_path).state.exists()


def test_an_interrupted_start_stops_what_runs_already(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with up(tmp_path, port) as process:
        wait_until(lambda: (state := State.read(Home(tmp_path).state)) is not None and bool(state.processes))
        pids = running(tmp_path).values()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    assert all(has_ended(pid) for pid in pids)


def test_after_kill_9_the_next_up_works_on_the_same_ports(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with up(tmp_path, port) as process:
        wait_ready(process)
        process.kill()
        process.wait()
    with up(tmp_path, port) as process:
        wait_ready(process)
        assert serves_grpc(f"{LOOPBACK}:{port}")


def test_after_kill_9_even_a_stopped_leftover_is_ended(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with up(tmp_path, port) as process:
        wait_ready(process)
        (leftover,) = running(tmp_path).values()
        os.kill(leftover, signal.SIGSTOP)
        process.kill()
        process.wait()
    with up(tmp_path, port) as process:
        wait_ready(process)
        assert leftover not in running(tmp_path).values()


def test_a_recorded_pid_that_belongs_to_someone_else_by_now_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        state = State.of_this_process()
        state.remember({"server": bystander.pid})
        saved = {"url": "", "grpc": "", "addresses": {}}
        marks = {"server": {"pid": bystander.pid, "created": state.processes["server"].created - 100}}
        gone = {"pid": os.getpid(), "created": 0.0}
        home.state.write_text(json.dumps({**saved, "supervisor": gone, "processes": marks}))
        assert stop(home, Progress())
        assert bystander.poll() is None
        bystander.communicate(b"\n")


def test_a_second_up_on_the_same_directory_says_who_has_it(tmp_path: Path) -> None:
    first_port, second_port = free_ports(2)
    with up(tmp_path, first_port) as process:
        wait_ready(process)
        with up(tmp_path, second_port) as second:
            _, complaint = second.communicate(timeout=30)
            assert second.returncode != 0
            assert f"Millrace already runs on {tmp_path} (pid {process.pid})" in complaint
        assert serves_grpc(f"{LOOPBACK}:{first_port}")


def test_down_stops_it_and_says_whether_there_was_anything(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with up(tmp_path, port) as process:
        wait_ready(process)
        assert stop(Home(tmp_path), Progress())
        assert process.wait(30) == 0
    assert not stop(Home(tmp_path), Progress())
    assert not stop(Home(tmp_path / "nowhere"), Progress())
    assert not (tmp_path / "nowhere").exists()


def test_a_killed_process_comes_back_while_it_is_up(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with up(tmp_path, port) as process:
        wait_ready(process)
        (before,) = running(tmp_path).values()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: running(tmp_path).get(f"server {port}", before) != before)
        wait_until(lambda: serves_grpc(f"{LOOPBACK}:{port}"))


def test_a_taken_port_is_refused_and_its_holder_named() -> None:
    with socket.create_server((LOOPBACK, 0), reuse_port=True) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(DeployError, match=rf"port {port} is taken by .* \(pid {os.getpid()}\)"):
            require_free(port)
    assert require_free(port) == port


def test_the_first_start_makes_the_secret_and_the_keys_and_later_ones_keep_them(tmp_path: Path) -> None:
    home = Home(tmp_path / "data")
    home.prepare()
    private = (home.secret, home.signing_key)
    assert [oct(path.stat().st_mode & 0o777) for path in private] == ["0o600", "0o600"]
    before = [path.read_bytes() for path in (*private, home.jwks)]
    (key,) = json.loads(home.jwks.read_text())["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "use", "alg"}

    Home(tmp_path / "data").prepare()
    assert [path.read_bytes() for path in (*private, home.jwks)] == before
    home.jwks.unlink()
    home.prepare()
    assert json.loads(home.jwks.read_text())["keys"] == [key]


def test_a_data_directory_that_cannot_be_made_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeployError, match="cannot be used"):
        Home(tmp_path / "file" / "data").prepare()
