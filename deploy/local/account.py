"""The unprivileged system user that PostgreSQL runs as when root starts it (PostgreSQL refuses to run as root).

Root's own folders are usually closed to that user, and opening them is not ours to do. What it cannot reach is put
below ``/var/lib/millrace`` instead.
"""

import fcntl
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import DeployError

STATE = Path("/var/lib/millrace")
"""Where root keeps what the account must reach: binaries, and clusters whose own folder is closed to it."""

_NAME = "millrace"
_FALLBACKS = ("postgres", "nobody")


class AccountError(DeployError):
    """There is no user to step down to, or no place it can reach."""


@dataclass(frozen=True)
class Account:
    """A system user by its numbers."""

    uid: int
    gid: int

    def can_enter(self, directory: Path) -> bool:
        """Whether this user may list ``directory`` or at least pass through it, asked as that user."""
        check = ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)]
        quiet = subprocess.DEVNULL
        done = subprocess.run(
            check, user=self.uid, group=self.gid, extra_groups=[], cwd="/", stderr=quiet, stdout=quiet, check=False
        )
        return done.returncode == 0

    def own(self, path: Path) -> None:
        """Gives one file or directory to this user."""
        os.chown(path, self.uid, self.gid)


def owner_of(path: Path) -> Account:
    """The user and group a path belongs to."""
    status = path.stat()
    return Account(status.st_uid, status.st_gid)


def unprivileged() -> Account:
    """The user root steps down to: ``millrace``, created if need be, else ``postgres`` or ``nobody``."""
    if (found := _named(_NAME)) is not None:
        return found
    with state_lock():
        if (created := _named(_NAME) or _create()) is not None:
            return created
    for name in _FALLBACKS:
        if (found := _named(name)) is not None:
            return found
    raise AccountError("PostgreSQL does not run as root, and no other user could be created: useradd --system millrace")


@contextmanager
def state_lock() -> Iterator[Path]:
    """Holds ``STATE`` for one process at a time, made if absent; yields it."""
    try:
        STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(STATE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AccountError(f"{STATE} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield STATE
    finally:
        os.close(lock)


def _named(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _create() -> Account | None:
    home = ["--home-dir", str(STATE), "--no-create-home", "--shell", "/usr/sbin/nologin"]
    try:
        subprocess.run(["useradd", "--system", "--user-group", *home, _NAME], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return _named(_NAME)
