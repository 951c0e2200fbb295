"""Processes to supervise in tests. Run as a script, this file is one of them: a gRPC server that is only healthy.

``python dummies.py serve PORT`` serves; ``python dummies.py up DIR PORT…`` keeps one such server per port running, as
``millrace up`` does with the real ones, and prints a line of JSON when they are ready.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy.local import session
from deploy.local.health import serves_grpc
from deploy.local.home import Home
from deploy.local.progress import Progress
from deploy.local.supervisor import Process, interrupt_on_signals


def healthy_server(name: str, port: int, log: Path | None = None) -> Process:
    """A process that serves grpc.health.v1 on a port."""
    address = f"127.0.0.1:{port}"
    command = [sys.executable, __file__, "serve", str(port)]
    return Process(name, command, log=log, ready=lambda: serves_grpc(address))


def shell(name: str, script: str, log: Path | None = None, **options: Any) -> Process:
    """A process that runs a line of shell."""
    return Process(name, ["/bin/sh", "-c", script], log=log, **options)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for a condition; fails when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for an init that is slow to reap it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def up(directory: Path, *ports: int) -> Iterator[subprocess.Popen[str]]:
    """An ``up`` of healthy servers in a process of its own, killed at the end if it still runs."""
    command = [sys.executable, __file__, "up", str(directory), *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def _serve(port: int) -> None:
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    server.stop(1).wait()


def _up(directory: Path, ports: list[int]) -> None:
    home = Home(directory)
    interrupt_on_signals()
    session.run(
        home,
        Progress(),
        lambda supervisor, _: supervisor.start(
            *(healthy_server(f"server {port}", port, home.logs / f"{port}.log") for port in ports)
        ),
        lambda _: print(json.dumps({"ready": True}), flush=True),
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(int(sys.argv[2]))
    else:
        _up(Path(sys.argv[2]), [int(port) for port in sys.argv[3:]])
