"""One ``up`` from its first process to its last: alone on its data directory, and leaving nothing behind."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from deploy.local.errors import DeployError
from deploy.local.home import Home
from deploy.local.postgres import PostgresCluster
from deploy.local.progress import Progress
from deploy.local.state import State, end_leftovers, wait_gone
from deploy.local.supervisor import Supervisor, ignore_signals

_STOPPING_SECONDS = 120

_Result = TypeVar("_Result")


def run(
    home: Home,
    progress: Progress,
    start: Callable[[Supervisor, State], _Result],
    announce: Callable[[_Result], None],
) -> None:
    """Starts a system, announces it, and keeps it running until it is interrupted (KeyboardInterrupt).

    However this ends, everything is stopped by then; an interruption before the announcement is passed on.
    Raises DeployError when another ``up`` has the directory, or something cannot start or does not stay up.
    """
    home.prepare()
    with home.locked():
        _clear_leftovers(home, progress)
        state = State.of_this_process()

        def record(running: Mapping[str, int]) -> None:
            state.remember(running)
            state.write(home.state)

        record({})
        supervisor = Supervisor(progress, record=record)
        ready = False
        try:
            result = start(supervisor, state)
            ready = True
            announce(result)
            supervisor.watch()
        except KeyboardInterrupt:
            if not ready:
                raise
        finally:
            ignore_signals()
            with progress.step("Stopping", "stopped"):
                supervisor.stop()
            home.state.unlink(missing_ok=True)


def stop(home: Home, progress: Progress) -> bool:
    """Stops what runs on a data directory, or what is left of it; False when there is nothing."""
    state = State.read(home.state)
    if state is None:
        return False
    if (supervisor := state.supervisor.find()) is not None:
        with progress.step("Stopping", "stopped"):
            supervisor.terminate()
            if not wait_gone([state.supervisor], _STOPPING_SECONDS):
                raise DeployError(f"Millrace (pid {state.supervisor.pid}) does not stop, see {home.logs}")
    with home.locked():
        _clear_leftovers(home, progress)
    return True


def _clear_leftovers(home: Home, progress: Progress) -> None:
    """Ends what an ``up`` killed with SIGKILL may have left; the caller holds the directory."""
    if (before := State.read(home.state)) is not None and (ended := end_leftovers(before)):
        progress.note(f"ended what an earlier start left behind: {', '.join(ended)}")
    if home.postgres.exists():
        PostgresCluster(home.postgres).stop()  # it would be ending with the one that started it, at any moment
    home.state.unlink(missing_ok=True)
