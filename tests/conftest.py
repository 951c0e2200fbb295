"""One PostgreSQL for the whole run, one migrated template database in it, and a copy of that for each test."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest

from deploy.local.postgres import PostgresCluster
from services.runtime.migrate import migrate
from services.runtime.statements import REGISTERED
from tests.harness import SECRET, Houses, Keys
from tests.statement_rules import broken_rules, loaded_metadatas, names_of

# The host's zone must not matter: the suite runs in one that is neither UTC nor whole hours from it.
os.environ["TZ"] = "Asia/Kathmandu"

# Time is the machine's: a busy one is no reason for a test to fail.
hypothesis.settings.register_profile("millrace", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("millrace")

TEMPLATE = "millrace_template"
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "500"}

_cluster = pytest.StashKey[PostgresCluster]()
_folder = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts PostgreSQL once: in the process that hands tests out, not in those that run them."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    # In memory where there is such a place: a suite makes hundreds of databases and keeps none.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="millrace-test-", dir=memory if os.access(memory, os.W_OK) else None))
    folder.chmod(0o755)
    cluster = PostgresCluster(folder / "postgres", settings=FAST)
    cluster.start()
    config.stash[_cluster], config.stash[_folder] = cluster, folder
    with psycopg.connect(cluster.admin_url(), autocommit=True) as connection:
        connection.execute(f"create database {TEMPLATE}")
    migrate(cluster.admin_url(TEMPLATE), SECRET)
    os.environ["MILLRACE_TEST_ADMIN_URL"] = cluster.admin_url("a_database")
    os.environ["MILLRACE_TEST_URL"] = cluster.url("a_database")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops PostgreSQL and leaves nothing behind."""
    if _cluster in config.stash:
        config.stash[_cluster].stop()
        shutil.rmtree(config.stash[_folder], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _every_statement_that_ran_keeps_the_rules() -> Iterator[None]:
    """Some are composed when they are first needed, so they are looked at when all has run."""
    yield
    tables = names_of(loaded_metadatas())
    broken = [(rules, each.sql) for each in REGISTERED if (rules := broken_rules(each.sql, tables))]
    assert not broken


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys user tokens are signed with in this run."""
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def database() -> Iterator[str]:
    """The name of a database of the test's own, migrated and empty."""
    name = f"test_{secrets.token_hex(6)}"
    admin = os.environ["MILLRACE_TEST_ADMIN_URL"]
    with psycopg.connect(admin.replace("a_database", "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE} strategy file_copy")
        try:
            yield name
        finally:
            connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def houses(database: str, keys: Keys) -> Iterator[Houses]:
    """Real servers of the services on the test's own database."""
    with Houses(os.environ["MILLRACE_TEST_URL"].replace("a_database", database), keys) as made:
        yield made


@pytest.fixture
def admin_url(database: str) -> str:
    """A superuser's way into the test's own database."""
    return os.environ["MILLRACE_TEST_ADMIN_URL"].replace("a_database", database)
