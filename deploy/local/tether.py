"""Ties a process to the one that started it, so that nothing outlives a supervisor killed with SIGKILL.

Linux can send a process a signal when its parent dies, but the request must be made in the child and is lost when
the child changes its user. ``tethered`` therefore puts this file in front of a command: a bare interpreter that takes
on the user, asks for the signal and becomes the command (about 20 ms). ``preexec_fn`` would do the same unsafely: it
runs Python in a fork of a process that has threads. Elsewhere than on Linux the command runs without the tie.

The kernel watches the *thread* that started the process: start processes from one that lives as long as they should.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tethered(
    command: list[str], *, signal_at_death: signal.Signals, user: int | None = None, group: int | None = None
) -> list[str]:
    """The command line that runs ``command`` as ``user`` and ``group`` and signals it when this process dies."""
    ids = f"{user}:{group}" if user is not None else ""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(signal_at_death)), ids, *command]


def _become(parent: int, signal_at_death: int, ids: str, command: list[str]) -> None:
    if ids:
        user, group = map(int, ids.split(":"))
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_at_death)
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
