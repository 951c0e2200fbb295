"""The ``millrace`` command: runs a local deployment and administers it; ``migrate`` and ``serve`` run anywhere.

What a command needs is imported when it runs: ``--help`` should not load gRPC.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.local.errors import DeployError
from deploy.local.home import Home, default_directory
from deploy.local.progress import Progress

if TYPE_CHECKING:
    from deploy.local.admin import Admin
    from deploy.local.state import Running


class _Millrace(typer.Typer):
    """Says in a line what went wrong, and exits with 1."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except DeployError as error:
            Progress().failure(str(error))
            sys.exit(1)


app = _Millrace(
    help="Millrace, an open CRM engine. `millrace up` starts the whole system on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
organization = typer.Typer(help="Organisations, the tenants of the system.", no_args_is_help=True)
user = typer.Typer(help="Users of an organisation.", no_args_is_help=True)
api_key = typer.Typer(help="API keys, what callers of API v2 send.", no_args_is_help=True)
app.add_typer(organization, name="organization")
app.add_typer(user, name="user")
app.add_typer(api_key, name="api-key")

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", default_factory=default_directory, help="The data directory.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
OrganizationId = Annotated[int, typer.Option("--organization", metavar="N", min=1, help="The organisation.")]
UserId = Annotated[int, typer.Option("--user", metavar="N", min=1, help="The user.")]


@app.command()
def up(
    data: Data,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port; 0 picks a free one.")] = 8080,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; `millrace down` stops it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start PostgreSQL, every service and the gateway on this machine; Ctrl-C stops them."""
    from deploy.local.supervisor import interrupt_on_signals

    home = Home(data)
    interrupt_on_signals()
    try:
        if detach:
            from deploy.local.detached import start_detached

            _announce(home, start_detached(home, port), as_json, stopped_by=f"millrace down --data {home.directory}")
        else:
            from deploy.local import system

            system.up(home, port, Progress(), lambda running: _announce(home, running, as_json, stopped_by="Ctrl-C"))
    except KeyboardInterrupt as interruption:
        raise typer.Exit(130) from interruption


@app.command()
def down(data: Data, as_json: AsJson = False) -> None:
    """Stop what `millrace up` started."""
    from deploy.local import session

    stopped = session.stop(Home(data), Progress())
    _print({"stopped": stopped}, as_json, "" if stopped else "nothing was running")


@organization.command("create")
def create_organization(name: str, data: Data, as_json: AsJson = False) -> None:
    """Create an organisation with its admin user and its default stages."""
    with _admin(Home(data)) as admin:
        organization_id, user_id = admin.create_organization(name)
    made = {"organization_id": organization_id, "user_id": user_id}
    _print(made, as_json, f"organisation {organization_id}, admin user {user_id}")


@user.command("create")
def create_user(
    organization_id: OrganizationId,
    email: Annotated[str, typer.Option()],
    name: Annotated[str, typer.Option()],
    role: Annotated[str, typer.Option(help="super_admin, admin, sales_manager, supervisor, agent or viewer.")],
    data: Data,
    as_json: AsJson = False,
) -> None:
    """Add a user to an organisation."""
    with _admin(Home(data)) as admin:
        user_id = admin.create_user(organization_id, email, name, role)
    _print({"user_id": user_id}, as_json, f"user {user_id}")


@app.command()
def token(
    organization_id: OrganizationId,
    user_id: UserId,
    data: Data,
    ttl: Annotated[int, typer.Option(metavar="SECONDS", min=0, help="Lifetime; 0 is an hour.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a token of a user, for `authorization: Bearer`."""
    with _admin(Home(data)) as admin:
        minted = admin.mint_token(organization_id, user_id, ttl)
    _print({"token": minted}, as_json, minted)


@api_key.command("create")
def create_api_key(organization_id: OrganizationId, user_id: UserId, data: Data, as_json: AsJson = False) -> None:
    """Print a new API key of a user, for `x-api-key`; it is shown this once."""
    with _admin(Home(data)) as admin:
        key = admin.create_api_key(organization_id, user_id)
    _print({"api_key": key}, as_json, key)


@app.command()
def migrate(
    data: Data,
    url: Annotated[
        str, typer.Option(envvar="MILLRACE_MIGRATION_URL", help="The database, as a user who may create roles.")
    ],
    as_json: AsJson = False,
) -> None:
    """Bring a database's roles, schemas and tables up to date; the secret comes from MILLRACE_SECRET or DIR/secret."""
    import psycopg

    from services.runtime import migrate as migrations

    try:
        migrations.migrate(url, _secret(Home(data)))
    except psycopg.OperationalError as error:
        raise DeployError(f"the database cannot be migrated: {error}") from error
    _print({"migrated": True}, as_json, "the database is up to date")


@app.command()
def serve(
    services: Annotated[list[str], typer.Argument(metavar="SERVICE...", help="For example: contacts.")],
    processes: Annotated[int, typer.Option(metavar="N", min=1, help="Processes of each service.")] = 1,
) -> None:
    """Serve in the foreground, configured by MILLRACE_* variables: what a container runs."""
    from deploy.local.serve import serve as serve_services

    serve_services(services, processes)


def _admin(home: Home) -> "Admin":
    """Identity of the environment (MILLRACE_ADDRESSES) if that names one, else of what runs on the data directory."""
    from deploy.local.admin import Admin
    from deploy.local.state import State

    addresses: dict[str, str] = json.loads(os.environ.get("MILLRACE_ADDRESSES", "{}"))
    if not addresses and (state := State.read(home.state)) is not None and state.supervisor.find():
        addresses = state.addresses
    if "identity" not in addresses:
        raise DeployError(
            f"Millrace does not run on {home.directory}; start it with: millrace up --data {home.directory}"
        )
    return Admin(addresses["identity"], _secret(home))


def _secret(home: Home) -> str:
    if given := os.environ.get("MILLRACE_SECRET"):
        return given
    try:
        return home.secret.read_text()
    except OSError as error:
        raise DeployError(f"no secret: set MILLRACE_SECRET, or name the data directory ({error})") from error


def _announce(home: Home, running: "Running", as_json: bool, *, stopped_by: str) -> None:
    lines = [
        "",
        "Millrace is running.",
        "",
        f"  HTTP     {running.url}",
        f"  gRPC     {running.grpc} (and gRPC-Web)",
        f"  Data     {home.directory}",
        f"  Stop     {stopped_by}",
        f"  API key  {running.api_key}",
        "",
        "Paste this to read the contacts of the demo organisation as its admin:",
        "",
        f"  TOKEN={running.token}",
        f'  curl {running.url}/api/v1/crm/contacts -H "Authorization: Bearer $TOKEN"',
        "",
    ]
    _print(asdict(running), as_json, "\n".join(lines))


def _print(result: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(result) if as_json else text)


if __name__ == "__main__":
    app()
