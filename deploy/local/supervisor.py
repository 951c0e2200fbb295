"""Starts processes, waits until they are healthy, brings back those that die, and stops them in reverse order.

Whoever runs a supervisor does so in one thread that lives as long as the processes should (see ``tether``).
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from deploy.local.errors import DeployError
from deploy.local.progress import Progress
from deploy.local.tether import tethered

_TICK = 0.05
_LARGE_LOG = 32 * 1024 * 1024


class Part(Protocol):
    """Something a supervisor runs."""

    name: str

    @property
    def pid(self) -> int | None:
        """The process to end should the supervisor be killed; None when it is not running."""

    def launch(self) -> None:
        """Starts it, without waiting until it is ready."""

    def is_alive(self) -> bool:
        """Whether it still runs."""

    def is_ready(self) -> bool:
        """Whether it takes requests; asked often, so it answers soon."""

    def ask_to_stop(self) -> None:
        """Asks it to finish what it is doing and end."""

    def wait_stopped(self) -> None:
        """Waits for that end, and forces it when it takes too long."""

    def obituary(self) -> str:
        """How it ended (or that it has not), the last lines it logged since its launch, and where the log is."""


class Process:
    """A command with a log file (without one it prints where the supervisor prints)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path = Path("/"),
        ready: Callable[[], bool] = lambda: True,
        patience: float = 20,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._environment = environment
        self._directory = directory
        self._ready = ready
        self._patience = patience
        self._child: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self.is_alive() else None

    def launch(self) -> None:
        command = tethered(self._command, signal_at_death=signal.SIGTERM)
        with _appending(self._log) as output:
            self._log_began = output.tell() if output is not None else 0
            self._child = subprocess.Popen(
                command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output is not None else None,
                start_new_session=True,  # Ctrl-C goes to the supervisor, which stops things in order
            )

    def run(self) -> None:
        """Runs it to its end; DeployError when that is not success."""
        self.launch()
        assert self._child is not None
        try:
            if self._child.wait() != 0:
                raise DeployError(self.obituary())
        finally:
            self.ask_to_stop()
            self.wait_stopped()

    def is_alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def is_ready(self) -> bool:
        return self._ready()

    def ask_to_stop(self) -> None:
        if self._child is not None and self.is_alive():
            self._child.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        if self._child is None:
            return
        try:
            self._child.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def obituary(self) -> str:
        code = self._child.poll() if self._child is not None else None
        if code is None:
            how = f"{self.name} runs but does not answer"
        elif code < 0:
            how = f"{self.name} was ended by {signal.Signals(-code).name}"
        else:
            how = f"{self.name} ended with exit code {code}"
        return how if self._log is None else f"{how}, see {self._log}{self._last_lines(self._log)}"

    def _last_lines(self, log: Path, count: int = 10) -> str:
        with log.open("rb") as file:
            file.seek(self._log_began)
            lines = file.read().decode(errors="replace").splitlines()
        return "".join(f"\n    {line}" for line in lines[-count:])


@dataclass
class _Watched:
    """A part and how it has fared."""

    part: Part
    launched_at: float = 0.0
    ready_at: float | None = None
    restart_at: float | None = None
    failures: int = 0


class Supervisor:
    """Runs parts in the order they were started.

    A part that dies once it was ready is launched again, at once at first and then with growing pauses; after
    ``attempts`` deaths in a row (none of them after ``steady`` seconds of health) the supervisor gives up.
    ``record`` is told the running processes, name → pid, at every change.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        record: Callable[[Mapping[str, int]], None] = lambda _: None,
        attempts: int = 5,
        first_pause: float = 0.2,
        steady: float = 30,
    ) -> None:
        self._progress = progress
        self._record = record
        self._attempts = attempts
        self._first_pause = first_pause
        self._steady = steady
        self._groups: list[list[_Watched]] = []

    def start(self, *parts: Part, timeout: float = 60) -> None:
        """Starts parts side by side and returns when all are ready.

        Raises DeployError when one dies or is not ready in time; what runs then is for ``stop`` to end.
        """
        group = [_Watched(part) for part in parts]
        earlier = [watched for each in self._groups for watched in each]
        self._groups.append(group)
        for watched in group:
            self._launch(watched)
        with self._progress.waiting("Starting " + ", ".join(part.name for part in parts)):
            while waiting := [watched for watched in group if watched.ready_at is None]:
                for watched in waiting:
                    self._await_ready(watched, timeout)
                for watched in earlier:
                    self._tend(watched)
                time.sleep(_TICK)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Tends to the parts until a signal interrupts it (or ``until``); DeployError when one dies for good."""
        while not until():
            for group in self._groups:
                for watched in group:
                    self._tend(watched)
            time.sleep(_TICK)

    def stop(self) -> None:
        """Stops everything, last started first; parts started side by side are stopped side by side."""
        while self._groups:
            group = self._groups[-1]
            for watched in group:
                watched.part.ask_to_stop()
            for watched in group:
                watched.part.wait_stopped()
            self._groups.pop()
            self._tell()

    def _await_ready(self, watched: _Watched, timeout: float) -> None:
        part, took = watched.part, time.monotonic() - watched.launched_at
        if not part.is_alive():
            raise DeployError(part.obituary())
        if part.is_ready():
            watched.ready_at = time.monotonic()
            self._progress.done(part.name, took)
        elif took > timeout:
            raise DeployError(f"not ready after {timeout:.0f} s: {part.obituary()}")

    def _tend(self, watched: _Watched) -> None:
        part, now = watched.part, time.monotonic()
        if watched.restart_at is not None:
            if now >= watched.restart_at:
                watched.restart_at = None
                self._launch(watched)
        elif not part.is_alive():
            if watched.ready_at is not None and now - watched.ready_at > self._steady:
                watched.failures = 0
            watched.failures += 1
            watched.ready_at = None
            if watched.failures > self._attempts:
                raise DeployError(f"{watched.failures} times in a row: {part.obituary()}")
            self._progress.note(f"{part.obituary()}\n    starting it again")
            watched.restart_at = now + min(self._first_pause * (2 ** (watched.failures - 1) - 1), 5)
        elif watched.ready_at is None and part.is_ready():
            watched.ready_at = now
            self._progress.done(f"{part.name} is back", now - watched.launched_at)

    def _launch(self, watched: _Watched) -> None:
        watched.launched_at = time.monotonic()
        try:
            watched.part.launch()
        except OSError as error:
            raise DeployError(f"{watched.part.name} cannot be started: {error}") from error
        self._tell()

    def _tell(self) -> None:
        parts = [watched.part for group in self._groups for watched in group]
        self._record({part.name: pid for part in parts if (pid := part.pid) is not None})


@contextmanager
def _appending(log: Path | None) -> Iterator[IO[bytes] | None]:
    """The log opened at its end; a large one is set aside first, as NAME.log.1."""
    if log is None:
        yield None
        return
    if log.exists() and log.stat().st_size > _LARGE_LOG:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        yield output


def interrupt_on_signals() -> None:
    """Makes SIGTERM, and SIGHUP unless it is ignored (nohup), interrupt like Ctrl-C: with a KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def ignore_signals() -> None:
    """From here on nothing interrupts: an orderly stop ends by itself, and a second Ctrl-C would only spoil it."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
