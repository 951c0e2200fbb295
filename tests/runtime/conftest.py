"""The foundation under test: a service's database, and fields as a service that stands on it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub

from services.runtime.db import Database, connection_info
from tests.harness import Houses, Someone


def text_field(key: str, **changed: Any) -> pb.CreateCustomFieldRequest:
    """A text field's definition."""
    members = {"object_type": "contact", "key": key, "label": "Label", "field_type": "text", **changed}
    return pb.CreateCustomFieldRequest(**members)


def break_connections(superuser: psycopg.Connection) -> None:
    """Ends every connection of the fields service, as a database that restarts does."""
    superuser.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and usename = 'millrace_fields'"
    )


@pytest.fixture
def fields(houses: Houses) -> CrmCustomFieldServiceStub:
    """The fields service, really served."""
    return CrmCustomFieldServiceStub(houses.start("fields").channel("fields"))


@pytest.fixture
def admin(houses: Houses) -> Someone:
    return houses.someone()


@pytest.fixture
def db(houses: Houses) -> Iterator[Database]:
    """The database as the fields service has it, with one connection, so that what a transaction leaves is seen."""
    database = Database(connection_info(houses.settings("fields"), "fields"), size=1)
    yield database
    database.close()


@pytest.fixture
def superuser(admin_url: str) -> Iterator[psycopg.Connection]:
    """A look behind every wall."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        yield connection
