"""The embedded PostgreSQL: it starts, stops, recovers, and keeps to itself."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from deploy.local.postgres import PostgresCluster, PostgresError
from tests.deploy.dummies import has_ended, wait_until

QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A cluster's directory, gone afterwards together with whatever the cluster keeps elsewhere."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as temporary:
        Path(temporary).chmod(0o755)
        path = Path(temporary) / "postgres"
        yield path
        PostgresCluster(path).remove()


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def kill(cluster: PostgresCluster) -> None:
    """Kills the server with SIGKILL and sees it gone; its children are on their own."""
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)
    wait_until(lambda: cluster.pid is None)


def test_a_new_cluster_speaks_utf8_and_sorts_by_code_point(directory: Path) -> None:
    with PostgresCluster(directory, settings=QUICK) as cluster:
        provider = "select datlocprovider::text, datlocale, pg_encoding_to_char(encoding) from pg_database"
        assert set(ask(cluster.admin_url(), provider)) == {("b", "C.UTF-8", "UTF8")}
        assert ask(cluster.admin_url(), "select upper('ß é'), 'Z' < 'a'") == [("ß É", True)]


def test_stopping_ends_the_server_and_starting_again_keeps_the_data(directory: Path) -> None:
    cluster = PostgresCluster(directory, settings=QUICK)
    cluster.start()
    ask(cluster.admin_url(), "create table kept as select 7 as number")
    first = cluster.pid
    cluster.stop()
    assert cluster.pid is None
    assert first is not None
    assert has_ended(first)

    with cluster:
        assert ask(cluster.admin_url(), "select number from kept") == [(7,)]


def test_stopping_does_not_wait_for_clients(directory: Path) -> None:
    cluster = PostgresCluster(directory, settings=QUICK)
    with cluster, closing(psycopg.connect(cluster.admin_url())) as client:
        client.execute("select 1")
        cluster.stop(timeout=20)
        with pytest.raises(psycopg.OperationalError):
            client.execute("select 1")


def test_starting_a_running_cluster_adopts_it(directory: Path) -> None:
    with PostgresCluster(directory, settings=QUICK) as cluster:
        other = PostgresCluster(directory)
        other.start()
        assert other.pid == cluster.pid
        assert ask(other.admin_url(), "select 1") == [(1,)]
        other.stop()
        assert cluster.pid is None


def test_after_kill_9_of_the_server_a_start_recovers_what_was_committed(directory: Path) -> None:
    cluster = PostgresCluster(directory)
    cluster.start()
    ask(cluster.admin_url(), "create table kept as select 7 as number")
    kill(cluster)

    with PostgresCluster(directory) as again:
        assert ask(again.admin_url(), "select number from kept") == [(7,)]
    cluster.stop()


def test_after_kill_9_a_busy_orphan_of_the_old_server_does_not_block_the_start(directory: Path) -> None:
    cluster = PostgresCluster(directory, settings=QUICK)
    cluster.start()
    with closing(psycopg.connect(cluster.admin_url())) as busy:
        orphan = busy.info.backend_pid
        os.kill(orphan, signal.SIGSTOP)
        kill(cluster)

        with PostgresCluster(directory, settings=QUICK) as again:
            assert ask(again.admin_url(), "select 1") == [(1,)]
            assert has_ended(orphan)
    cluster.stop()


def test_stopping_after_kill_9_ends_what_the_server_left(directory: Path) -> None:
    cluster = PostgresCluster(directory, settings=QUICK)
    cluster.start()
    with closing(psycopg.connect(cluster.admin_url())) as busy:
        os.kill(busy.info.backend_pid, signal.SIGSTOP)
        kill(cluster)
        cluster.stop()
        assert has_ended(busy.info.backend_pid)


def test_a_pid_file_that_names_another_process_does_not_block_the_start(directory: Path) -> None:
    cluster = PostgresCluster(directory, settings=QUICK)
    cluster.start()
    pid_file = directory / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    cluster.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:], ""]))

    with cluster:
        assert ask(cluster.admin_url(), "select 1") == [(1,)]


def test_an_interrupted_first_start_is_made_good_by_the_next(directory: Path) -> None:
    half_made = directory / "initdb"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")

    with PostgresCluster(directory, settings=QUICK) as cluster:
        assert ask(cluster.admin_url(), "select 1") == [(1,)]


def test_a_directory_too_long_for_a_socket_works(directory: Path) -> None:
    long = directory / ("x" * 60) / ("y" * 60)
    cluster = PostgresCluster(long, settings=QUICK)
    with cluster:
        assert ask(cluster.admin_url(), "select 1") == [(1,)]
        sockets = Path(ask(cluster.admin_url(), "show unix_socket_directories")[0][0])
        assert len(str(sockets)) <= 90
    cluster.remove()
    assert not sockets.exists()


def test_nobody_connects_without_the_superusers_password(directory: Path) -> None:
    with PostgresCluster(directory, settings=QUICK) as cluster:
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            ask(cluster.url("postgres") + "&user=postgres", "select 1")
        assert ask(cluster.admin_url(), "show listen_addresses") == [("",)]
    secret = directory / "superuser_password"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_the_server_dies_with_the_process_that_started_it(directory: Path) -> None:
    script = (
        "import sys, pathlib; from deploy.local.postgres import PostgresCluster\n"
        f"cluster = PostgresCluster(pathlib.Path({str(directory)!r}), settings={{'fsync': 'off'}})\n"
        "cluster.start(); print(cluster.pid, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    wait_until(lambda: has_ended(server.pid))

    with PostgresCluster(directory, settings=QUICK) as cluster:
        assert ask(cluster.admin_url(), "select 1") == [(1,)]


def test_a_server_that_cannot_start_shows_the_end_of_its_log(directory: Path) -> None:
    with pytest.raises(PostgresError, match="no_such_setting"):
        PostgresCluster(directory, settings={**QUICK, "no_such_setting": "1"}).start()


def test_a_database_is_created_once_and_can_carry_a_comment(directory: Path) -> None:
    with PostgresCluster(directory, settings=QUICK) as cluster:
        cluster.create_database("it's")
        assert cluster.comment("it's") == ""
        cluster.set_comment("it's", "mine's this")
        cluster.create_database("it's")
        assert cluster.comment("it's") == "mine's this"
        assert ask(cluster.admin_url("it's"), "select current_database()") == [("it's",)]


def test_a_bin_directory_without_postgres_is_refused_by_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_POSTGRES_BIN", "/usr/share")
    with pytest.raises(PostgresError, match="/usr/share holds no PostgreSQL"):
        PostgresCluster(directory).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down to another user")
def test_as_root_in_a_closed_folder_the_cluster_lives_elsewhere_and_the_folder_stays_closed(directory: Path) -> None:
    closed = directory.parent
    closed.chmod(0o700)
    with PostgresCluster(directory, settings=QUICK) as cluster:
        assert cluster.pid is not None
        assert psutil.Process(cluster.pid).uids().real != 0
        home = (directory / "elsewhere").resolve()
        assert home.is_relative_to("/var/lib/millrace")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    cluster.remove()
    assert not home.exists()
