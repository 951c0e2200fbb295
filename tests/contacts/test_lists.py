"""Lists of contacts and accounts: order, pages, tokens, filters (spec v1 §0.6, D4, D5)."""

import base64
import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from crm.contacts.v1 import account_service_pb2 as account_pb
from crm.contacts.v1 import contact_service_pb2 as pb
from grpc import StatusCode

from tests.contacts.conftest import Crm, outcome

BAD_TOKEN = (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", ["page_token"])


@pytest.fixture
def five(crm: Crm) -> list[int]:
    """Ids of five contacts, newest first."""
    return [crm.contact(first_name=f"No {number}").id for number in range(5)][::-1]


def ids(answer: Any) -> list[int]:
    return [each.id for each in answer.data]


def walk(fetch: Callable[[str], Any]) -> list[list[int]]:
    """The ids of every page, following the tokens."""
    pages: list[list[int]] = []
    token = ""
    while not pages or token:
        answer = fetch(token)
        pages.append(ids(answer))
        token = answer.meta.next_page_token
        assert answer.meta.has_more == bool(token)
    return pages


def test_contacts_come_newest_first(crm: Crm, five: list[int]) -> None:
    answer = crm.list()
    assert ids(answer) == five
    assert (answer.meta.page, answer.meta.per_page, answer.meta.has_more) == (1, 50, False)
    assert not answer.meta.HasField("total")
    assert answer.meta.request_id


def test_contacts_of_one_moment_come_by_id_backwards(crm: Crm, five: list[int], admin_url: str) -> None:
    with psycopg.connect(admin_url) as connection:
        connection.execute("update contacts.contacts set created_at = '2026-01-01T00:00:00Z'")
    assert ids(crm.list()) == five
    assert walk(lambda token: crm.list(per_page=2, page_token=token)) == [five[:2], five[2:4], five[4:]]


def test_numbered_pages_hold_each_row_once(crm: Crm, five: list[int]) -> None:
    assert [ids(crm.list(page=page, per_page=2)) for page in (1, 2, 3, 4)] == [five[:2], five[2:4], five[4:], []]
    assert [crm.list(page=page, per_page=2).meta.has_more for page in (1, 2, 3)] == [True, True, False]


def test_tokens_walk_the_list_whatever_is_added_meanwhile(crm: Crm, five: list[int]) -> None:
    def fetch(token: str) -> Any:
        crm.contact(first_name="Later")
        return crm.list(per_page=2, page_token=token)

    first, *rest = walk(fetch)
    assert first[1:] + [each for page in rest for each in page] == five


def test_the_total_counts_every_match(crm: Crm, five: list[int]) -> None:
    crm.delete(five[0])
    assert crm.list(per_page=1, include_total=True).meta.total == 4
    assert crm.list(per_page=1, include_total=True, owner_id=9).meta.total == 0


def test_filters_combine(crm: Crm) -> None:
    crm.seed()
    account, other = crm.account().id, crm.account().id
    wanted = [
        crm.contact(account_id=account, contact_stage_id=1).id,
        crm.contact(account_id=account, contact_stage_id=2).id,
        crm.contact(account_id=other, contact_stage_id=1).id,
        crm.contact(account_id=account, contact_stage_id=1, owner_id=0).id,
        crm.contact().id,
    ]
    assert ids(crm.list(account_id=account)) == [wanted[3], wanted[1], wanted[0]]
    assert ids(crm.list(owner_id=1)) == [wanted[4], wanted[2], wanted[1], wanted[0]]
    assert ids(crm.list(contact_stage_id=1)) == [wanted[3], wanted[2], wanted[0]]
    assert ids(crm.list(account_id=account, contact_stage_id=1, owner_id=1)) == [wanted[0]]
    assert ids(crm.list(account_id=99)) == []
    assert walk(lambda token: crm.list(account_id=account, per_page=1, page_token=token)) == [
        [wanted[3]],
        [wanted[1]],
        [wanted[0]],
    ]


def test_a_token_of_another_query_is_refused(crm: Crm, five: list[int]) -> None:
    token = crm.list(per_page=2).meta.next_page_token
    assert outcome(crm.refusal(pb.ListContactsRequest(page_token=token, owner_id=1))) == BAD_TOKEN
    assert outcome(crm.refusal(account_pb.ListAccountsRequest(page_token=token, owner_id=1))) == BAD_TOKEN


@pytest.mark.parametrize(
    "values",
    [[], ["yesterday", 1], ["2026-01-01T00:00:00+00:00"], ["2026-01-01T00:00:00+00:00", "1"], [7, 7], [None, None],
     ["2026-01-01T00:00:00+00:00", 2**70], ["2026-01-01T00:00:00+00:00", 1, 2]],
)  # fmt: skip
def test_a_made_up_token_is_refused(crm: Crm, five: list[int], values: list[Any]) -> None:
    token = crm.list(per_page=2).meta.next_page_token
    fingerprint, *_ = json.loads(base64.urlsafe_b64decode(token + "==="))
    forged = base64.urlsafe_b64encode(json.dumps([fingerprint, *values]).encode()).decode().rstrip("=")
    assert outcome(crm.refusal(pb.ListContactsRequest(page_token=forged))) == BAD_TOKEN
    assert outcome(crm.refusal(pb.ListContactsRequest(page_token="?"))) == BAD_TOKEN


def test_bad_pages_are_refused(crm: Crm) -> None:
    for request, field in (
        (pb.ListContactsRequest(page=-1), "page"),
        (pb.ListContactsRequest(page=1_000_000), "page"),
        (pb.ListContactsRequest(per_page=-1), "per_page"),
    ):
        assert outcome(crm.refusal(request)) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", [field])
    assert crm.list(per_page=1000).meta.per_page == 100


def test_accounts_are_listed_alike(crm: Crm) -> None:
    def list_(**members: Any) -> account_pb.ListAccountsResponse:
        return crm.accounts.ListAccounts(account_pb.ListAccountsRequest(**members), metadata=crm.who.metadata())

    top = crm.account().id
    below = [crm.account(parent_account_id=top).id for _ in range(3)][::-1]
    deleted = crm.account(parent_account_id=top).id
    crm.delete_account(deleted)
    assert ids(list_()) == [*below, top]
    assert ids(list_(parent_account_id=top)) == below
    assert ids(list_(owner_id=2)) == []
    assert list_(parent_account_id=top, include_total=True).meta.total == 3
    assert walk(lambda token: list_(per_page=3, page_token=token)) == [below, [top]]
    assert outcome(crm.refusal(account_pb.ListAccountsRequest(page=-1))) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        ["page"],
    )
