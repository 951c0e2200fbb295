"""The SQL function by which forms writes into records (spec v1 §2.6; design §3)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from google.protobuf.json_format import MessageToDict
from psycopg.types.json import Jsonb

from services.runtime.db import connection_info
from tests.contacts.conftest import Crm

Forms = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def forms(crm: Crm) -> Iterator[Forms]:
    """A connection of the forms service, in a transaction of organisation 1."""
    with connected(crm, "forms") as connection:
        connection.execute("set local app.organization_id = '1'")
        yield connection


def connected(crm: Crm, service: str) -> Forms:
    return psycopg.connect(connection_info(crm.houses.settings(service), service))


def write(forms: Forms, kind: str, record_id: int, organization_id: int = 1, **changes: Any) -> Any:
    """What the function answers: the custom fields before."""
    row = forms.execute(
        "select contacts.write_custom_fields(%s, %s, %s, %s)", (organization_id, kind, record_id, Jsonb(changes))
    ).fetchone()
    assert row is not None
    return row[0]


def values(crm: Crm, kind: str, record_id: int) -> dict[str, Any]:
    record = crm.read(record_id) if kind == "contact" else crm.read_account(record_id)
    return MessageToDict(record.custom_fields)


def created(crm: Crm, kind: str) -> int:
    return crm.contact().id if kind == "contact" else crm.account().id


kinds = pytest.mark.parametrize("kind", ["contact", "account"])


@kinds
def test_changes_are_merged_and_what_was_before_is_answered(crm: Crm, forms: Forms, kind: str) -> None:
    record = created(crm, kind)
    other = created(crm, kind)
    assert write(forms, kind, record, kyc="pending", score=5) == {}
    assert write(forms, kind, record, kyc="approved", list=["a"]) == {"kyc": "pending", "score": 5}
    assert write(forms, kind, record, score=None) == {"kyc": "approved", "score": 5, "list": ["a"]}
    forms.commit()
    assert values(crm, kind, record) == {"kyc": "approved", "list": ["a"]}
    assert values(crm, kind, other) == {}


@kinds
def test_the_record_changes_when_the_callers_transaction_began_but_never_goes_back(
    crm: Crm, forms: Forms, kind: str
) -> None:
    record = created(crm, kind)
    read = crm.read if kind == "contact" else crm.read_account
    before = read(record)
    write(forms, kind, record, kyc="pending")
    forms.commit()
    assert read(record).updated_at == before.updated_at
    forms.execute("set local app.organization_id = '1'")
    write(forms, kind, record, kyc="pending")
    forms.commit()
    assert read(record).updated_at.ToNanoseconds() > before.updated_at.ToNanoseconds()
    assert read(record).created_at == before.created_at


@kinds
def test_it_is_part_of_the_callers_transaction(crm: Crm, forms: Forms, kind: str) -> None:
    record = created(crm, kind)
    write(forms, kind, record, kyc="pending")
    forms.rollback()
    assert values(crm, kind, record) == {}


@kinds
def test_there_is_nothing_to_write_into_an_unknown_or_deleted_record(crm: Crm, forms: Forms, kind: str) -> None:
    record = created(crm, kind)
    if kind == "contact":
        crm.delete(record)
    else:
        crm.delete_account(record)
    assert write(forms, kind, record, kyc="pending") is None
    assert write(forms, kind, 99, kyc="pending") is None


@kinds
@pytest.mark.parametrize("organization_id", [1, 2])
def test_another_organizations_record_is_as_good_as_none(
    crm: Crm, stranger: Crm, forms: Forms, kind: str, organization_id: int
) -> None:
    record = created(stranger, kind)
    assert write(forms, kind, record, organization_id, kyc="mine") is None
    forms.commit()
    assert values(stranger, kind, record) == {}


@kinds
def test_the_transactions_organization_is_the_one_that_counts(crm: Crm, forms: Forms, kind: str) -> None:
    record = created(crm, kind)
    for organization in ("2", ""):
        forms.execute(f"set local app.organization_id = '{organization}'")
        assert write(forms, kind, record, kyc="mine") is None
    forms.commit()
    assert write(forms, kind, record, kyc="mine") is None
    forms.commit()
    assert values(crm, kind, record) == {}


@kinds
def test_writes_of_different_keys_at_once_all_stay(crm: Crm, forms: Forms, kind: str) -> None:
    record = created(crm, kind)
    assert write(forms, kind, record, first=1) == {}

    def second() -> Any:
        with connected(crm, "forms") as connection:
            connection.execute("set local app.organization_id = '1'")
            return write(connection, kind, record, second=2)

    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(second)
        forms.commit()
        assert later.result(20) == {"first": 1}
    assert values(crm, kind, record) == {"first": 1, "second": 2}


def test_only_a_map_is_kept(crm: Crm, forms: Forms) -> None:
    record = created(crm, "contact")
    with pytest.raises(psycopg.errors.CheckViolation):
        forms.execute("select contacts.write_custom_fields(1, 'contact', %s, '[1]')", (record,))


def test_there_are_two_kinds_of_records(crm: Crm, forms: Forms) -> None:
    with pytest.raises(psycopg.errors.CaseNotFound):
        write(forms, "lead", 1, kyc="pending")


@pytest.mark.parametrize("service", ["identity", "fields", "pipelines"])
def test_no_service_but_forms_may_call_it(crm: Crm, service: str) -> None:
    with connected(crm, service) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        write(connection, "contact", 1, kyc="pending")


def test_forms_reaches_nothing_else_of_contacts(crm: Crm, forms: Forms) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        forms.execute("select custom_fields from contacts.contacts")


def test_a_table_of_the_callers_own_does_not_stand_in_for_the_records(crm: Crm, forms: Forms) -> None:
    record = created(crm, "contact")
    forms.execute("create temporary table contacts (like pg_class)")
    assert write(forms, "contact", record, kyc="pending") == {}


def test_its_owner_can_do_no_more_than_it_needs(crm: Crm, admin_url: str) -> None:
    with psycopg.connect(admin_url) as connection:
        owner = connection.execute(
            "select rolname, rolcanlogin, rolbypassrls, rolsuper from pg_roles"
            " where oid = (select proowner from pg_proc where proname = 'write_custom_fields')"
        ).fetchone()
        assert owner == ("millrace_definer", False, False, False)
        granted = connection.execute(
            "select privilege_type, table_name, array_agg(column_name::text order by column_name)"
            " from information_schema.column_privileges"
            " where grantee = 'millrace_definer' and table_schema = 'contacts' group by 1, 2 order by 1, 2"
        ).fetchall()
        readable = ["custom_fields", "deleted_at", "id", "organization_id", "updated_at"]
        assert granted == [
            ("SELECT", "accounts", readable),
            ("SELECT", "contacts", readable),
            ("UPDATE", "accounts", ["custom_fields", "updated_at"]),
            ("UPDATE", "contacts", ["custom_fields", "updated_at"]),
        ]
        assert connection.execute(
            "select has_schema_privilege('millrace_definer', 'contacts', 'create'),"
            " has_function_privilege('public', 'contacts.write_custom_fields(bigint,text,bigint,jsonb)', 'execute')"
        ).fetchone() == (False, False)
