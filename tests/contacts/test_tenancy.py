"""Organisations never see one another's records, by the service and by row-level security alone."""

from typing import Any

import psycopg
import pytest
from crm.contacts.v1 import account_service_pb2 as account_pb
from crm.contacts.v1 import contact_service_pb2 as pb
from crm.contacts.v1 import record_service_pb2 as record_pb
from grpc import StatusCode

from services.runtime.db import connection_info
from tests.contacts.conftest import Crm

TABLES = ("contacts", "accounts", "contact_stages")


@pytest.fixture
def theirs(stranger: Crm) -> Crm:
    """Another organisation with a contact, an account and stages; the caller's own has none."""
    stranger.seed()
    stranger.contact(account_id=stranger.account().id, contact_stage_id=1)
    return stranger


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.GetContactRequest(id=1), "ErrContactNotFound"),
        (pb.UpdateContactRequest(id=1, last_name="Mine"), "ErrContactNotFound"),
        (pb.DeleteContactRequest(id=1), "ErrContactNotFound"),
        (pb.CreateContactRequest(first_name="Ada", account_id=1), "ErrAccountNotFound"),
        (pb.CreateContactRequest(first_name="Ada", contact_stage_id=1), "ErrContactStageNotFound"),
        (pb.GetContactStageRequest(id=1), "ErrContactStageNotFound"),
        (pb.UpdateContactStageRequest(id=1, name="mine"), "ErrContactStageNotFound"),
        (pb.DeleteContactStageRequest(id=1), "ErrContactStageNotFound"),
        (
            pb.ReorderContactStagesRequest(stages=[pb.ContactStagePlacement(id=1, sort_order=9)]),
            "ErrContactStageNotFound",
        ),
        (account_pb.GetAccountRequest(id=1), "ErrAccountNotFound"),
        (account_pb.UpdateAccountRequest(id=1, name="Mine"), "ErrAccountNotFound"),
        (account_pb.DeleteAccountRequest(id=1), "ErrAccountNotFound"),
        (account_pb.CreateAccountRequest(name="Acme", parent_account_id=1), "ErrParentAccountNotFound"),
        (record_pb.CheckWriteAccessRequest(contact_id=1), "ErrContactNotFound"),
        (record_pb.CheckWriteAccessRequest(account_id=1), "ErrAccountNotFound"),
    ],
)
def test_another_organizations_record_is_not_found(crm: Crm, theirs: Crm, request_: Any, reason: str) -> None:
    before = (theirs.read(1), theirs.read_account(1), theirs.stages())
    failure = crm.refusal(request_)
    assert (failure.code, failure.reason) == (StatusCode.NOT_FOUND, reason)
    assert (theirs.read(1), theirs.read_account(1), theirs.stages()) == before


def test_lists_hold_ones_own_only(crm: Crm, theirs: Crm) -> None:
    assert not crm.list(include_total=True).data
    assert crm.list(include_total=True).meta.total == 0
    assert not crm.accounts.ListAccounts(account_pb.ListAccountsRequest(), metadata=crm.who.metadata()).data
    assert not crm.stages()
    request = record_pb.BatchGetContactStagesRequest(ids=[1])
    assert not crm.records.BatchGetContactStages(request, metadata=crm.who.metadata()).stages


def test_every_organization_counts_from_one(crm: Crm, theirs: Crm) -> None:
    assert (crm.contact().id, crm.account().id, crm.stage("new").id) == (1, 1, 1)


@pytest.mark.parametrize("organization", ["1", "", None])
def test_row_level_security_alone_hides_and_keeps_other_organizations_rows(
    theirs: Crm, organization: str | None, admin_url: str
) -> None:
    whole = [f"select count(*) from contacts.{table}" for table in TABLES]
    with psycopg.connect(connection_info(theirs.houses.settings("contacts"), "contacts")) as connection:
        if organization is not None:
            connection.execute(f"set local app.organization_id = '{organization}'")
        for table in TABLES:
            assert connection.execute(f"select * from {table}").fetchall() == []
            assert connection.execute(f"update {table} set id = id + 100").rowcount == 0
            assert connection.execute(f"delete from {table}").rowcount == 0
    with psycopg.connect(admin_url) as connection:
        assert [connection.execute(count).fetchone() for count in whole] == [(1,), (1,), (7,)]


def test_row_level_security_takes_no_row_of_another_organization(theirs: Crm) -> None:
    with psycopg.connect(connection_info(theirs.houses.settings("contacts"), "contacts")) as connection:
        connection.execute("set local app.organization_id = '1'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("insert into contact_stages values (2, 99, 'mine', '', 1)")


@pytest.mark.parametrize("service", ["identity", "fields", "forms", "pipelines"])
def test_no_other_service_reaches_the_tables(theirs: Crm, service: str) -> None:
    with psycopg.connect(connection_info(theirs.houses.settings(service), service), autocommit=True) as connection:
        for table in TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select * from contacts.{table}")
