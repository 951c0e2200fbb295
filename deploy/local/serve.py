"""``millrace serve``: services in the foreground, told everything by MILLRACE_* variables, one or more processes each.

A single process of a single service replaces this one, so that a container's first process is the service itself.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from deploy.local.errors import DeployError
from deploy.local.progress import Progress
from deploy.local.supervisor import Process, Supervisor, ignore_signals, interrupt_on_signals
from services import SERVICES


def serve(services: Sequence[str], processes: int) -> None:
    """Serves until interrupted. Processes of a service share its port; one that dies is started again."""
    if unknown := sorted(set(services) - set(SERVICES)):
        raise DeployError(f"there is no service {', '.join(unknown)}; there are {', '.join(SERVICES)}")
    told = {name: {**os.environ, "MILLRACE_LISTEN": _listen(name, alone=len(services) == 1)} for name in services}
    if len(services) == processes == 1:
        _become(services[0], told[services[0]])
    parts = [
        Process(
            f"{name} {number}" if processes > 1 else name,
            _command(name),
            environment={**told[name], "MILLRACE_REUSE_PORT": json.dumps(processes > 1)},
        )
        for name in services
        for number in range(1, processes + 1)
    ]
    supervisor = Supervisor(Progress())
    interrupt_on_signals()
    try:
        supervisor.start(*parts)
        supervisor.watch()
    except KeyboardInterrupt:
        pass
    finally:
        ignore_signals()
        supervisor.stop()


def _listen(service: str, *, alone: bool) -> str:
    """Where a service binds: MILLRACE_LISTEN when it is alone, else the port the others know it by."""
    if alone and (listen := os.environ.get("MILLRACE_LISTEN")):
        return listen
    address = json.loads(os.environ.get("MILLRACE_ADDRESSES", "{}")).get(service)
    if address is None:
        raise DeployError(f"where should {service} listen? set MILLRACE_LISTEN (one service) or MILLRACE_ADDRESSES")
    host, _, port = address.rpartition(":")
    return address if host in ("127.0.0.1", "localhost", "[::1]") else f"0.0.0.0:{port}"


def _command(service: str) -> list[str]:
    return [sys.executable, "-m", f"services.{service}"]


def _become(service: str, environment: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, _command(service), environment)  # noqa: S606
