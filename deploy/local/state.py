"""What runs on a data directory, written down so that other commands find it and the next ``up`` can clear it away."""

import json
import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import psutil

from deploy.local.home import write_privately


@dataclass(frozen=True)
class ProcessMark:
    """A process by its id and the moment it was created: ids are used again, both together are not."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The mark of a running process; None when it has ended."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def find(self) -> psutil.Process | None:
        """The process, if it is still the same one."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass
class State:
    """The processes of one ``up`` and where it answers; ``url`` is empty until everything is ready."""

    supervisor: ProcessMark
    processes: dict[str, ProcessMark] = field(default_factory=dict)
    url: str = ""
    grpc: str = ""
    addresses: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls) -> Self:
        """The state of an ``up`` that starts now."""
        mark = ProcessMark.of(os.getpid())
        assert mark is not None
        return cls(mark)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What the last ``up`` wrote; None when there is nothing readable."""
        try:
            saved = json.loads(path.read_text())
            marks = {name: ProcessMark(**mark) for name, mark in saved["processes"].items()}
            supervisor = ProcessMark(**saved["supervisor"])
            return cls(supervisor, marks, saved["url"], saved["grpc"], saved["addresses"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Saves it whole or not at all."""
        write_privately(path, json.dumps(asdict(self)))

    def remember(self, running: Mapping[str, int]) -> None:
        """Notes which processes run now, name → pid."""
        marks = {name: ProcessMark.of(pid) for name, pid in running.items()}
        self.processes = {name: mark for name, mark in marks.items() if mark is not None}


@dataclass(frozen=True)
class Running:
    """What a caller needs to use a system that is up."""

    url: str
    grpc: str
    organization_id: int
    user_id: int
    token: str
    api_key: str


def end_leftovers(state: State, patience: float = 3) -> list[str]:
    """Ends the processes of an ``up`` that is gone (killed with SIGKILL); returns the names of those still there."""
    found = {name: process for name, mark in state.processes.items() if (process := mark.find()) is not None}
    for signal_, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, patience)):
        for process in found.values():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal_)
        if wait_gone([state.processes[name] for name in found], seconds):
            break
    return list(found)


def wait_gone(marks: Iterable[ProcessMark], timeout: float) -> bool:
    """Waits until the processes have ended; False when one has not in time. A zombie has, whoever fails to reap it."""
    deadline = time.monotonic() + timeout
    while any(mark.find() for mark in marks):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
