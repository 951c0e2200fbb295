"""Pages (spec v1 §0.6, D5; design: lists): numbered for people, tokens that walk a list whole, nothing made up."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from crm.contacts.v1 import contact_service_pb2 as contacts_pb
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.callers import Caller
from services.runtime.db import Database
from services.runtime.errors import Invalid
from services.runtime.lists import Listing
from services.runtime.paging import LARGEST_PER_PAGE, LAST_PAGE, list_meta, page_of
from services.runtime.statements import columns_of
from services.runtime.tables import standing

WHO = Caller(1, 1, request_id="req-1")
KINDS = (int, str, datetime)
MOMENT = datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)


def asked(**members: Any) -> contacts_pb.ListContactsRequest:
    return contacts_pb.ListContactsRequest(**members)


def token_of(values: tuple[Any, ...], request: contacts_pb.ListContactsRequest) -> str:
    """The token after a row of these sort values."""
    page = page_of(request, *KINDS)
    rows = [values] * (page.per_page + 1)
    return list_meta(WHO, page, rows, lambda row: row).next_page_token


def test_a_page_is_the_first_of_50_unless_asked_for_otherwise() -> None:
    page = page_of(asked())
    assert (page.number, page.per_page, page.limit, page.offset) == (1, 50, 51, 0)
    page = page_of(asked(page=3, per_page=20))
    assert (page.number, page.per_page, page.limit, page.offset) == (3, 20, 21, 40)
    assert page_of(asked(per_page=101)).per_page == LARGEST_PER_PAGE == 100


def test_numbered_pages_end_somewhere() -> None:
    page_of(asked(page=LAST_PAGE))
    with pytest.raises(Invalid) as raised:
        page_of(asked(page=LAST_PAGE + 1))
    assert [each.field for each in raised.value.violations] == ["page"]


def test_a_page_says_whether_more_follow() -> None:
    page = page_of(asked(per_page=2))
    full = list_meta(WHO, page, [1, 2], lambda row: (row,))
    more = list_meta(WHO, page, [1, 2, 3], lambda row: (row,), total=0)
    assert (full.has_more, full.next_page_token, full.HasField("total")) == (False, "", False)
    assert (more.has_more, bool(more.next_page_token), more.HasField("total")) == (True, True, True)
    assert (more.request_id, more.page, more.per_page) == ("req-1", 1, 2)


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.text().filter(lambda text: "\0" not in text))
def test_a_token_brings_back_the_very_values(number: int, text: str) -> None:
    token = token_of((number, text, MOMENT), asked(per_page=1))
    page = page_of(asked(page_token=token, per_page=7, page=9), *KINDS)
    assert (page.after, page.number, page.per_page, page.offset) == ((number, text, MOMENT), 0, 7, 0)


def test_a_token_belongs_to_its_query() -> None:
    token = token_of((1, "a", MOMENT), asked(owner_id=7))
    page_of(asked(owner_id=7, page_token=token, per_page=3, include_total=True), *KINDS)
    for other in (asked(page_token=token), asked(owner_id=8, page_token=token)):
        with pytest.raises(Invalid):
            page_of(other, *KINDS)


def forged(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def test_a_token_that_was_made_up_is_refused() -> None:
    fingerprint = page_of(asked()).fingerprint
    good = [1, "a", MOMENT.isoformat()]
    page_of(asked(page_token=forged([fingerprint, *good])), *KINDS)
    wrong: list[Any] = [None, True, 1.5, [], {}, 2**40, -(2**70)]
    made_up = [
        *("a", "é", "%%%", "=", "\0", *map(forged, (None, 5, "a", {}, [], [None]))),
        base64.b64encode(b"[" * 100_000).decode(),
        base64.b64encode(b"\xff\xfe").decode(),
        *(forged([fingerprint, *values]) for values in ([], [1], [*good, 4], ["x", *good[1:]], [*good[:2], "x"])),
        forged([fingerprint, 1, "a\0b", good[2]]),
        forged(["", *good]),
        *(forged([fingerprint, *good[:at], each, *good[at + 1 :]]) for at in range(3) for each in wrong),
    ]
    for token in made_up:
        with pytest.raises(Invalid) as raised:
            page_of(asked(page_token=token), *KINDS)
        assert [each.field for each in raised.value.violations] == ["page_token"], token


@dataclass(frozen=True)
class Row:
    """A row of the outbox, which has columns enough to be sorted by."""

    id: int
    receiver: str
    attempts: int
    created_at: datetime


_outbox = standing.tables["outbox"]
_c = _outbox.c
_columns = columns_of(_outbox, Row)
LISTINGS = {
    "id": Listing(_outbox, _columns, Row, _c.id),
    "created_at desc, id desc": Listing(_outbox, _columns, Row, _c.created_at.desc(), _c.id.desc()),
    "receiver, attempts desc, id": Listing(_outbox, _columns, Row, _c.receiver, _c.attempts.desc(), _c.id),
    "attempts desc, receiver, id desc": Listing(_outbox, _columns, Row, _c.attempts.desc(), _c.receiver, _c.id.desc()),
    "receiver, id where attempts > 0": Listing(_outbox, _columns, Row, _c.receiver, _c.id, where=[_c.attempts > 0]),
}


@pytest.fixture
def listed(superuser: psycopg.Connection) -> psycopg.Connection:
    """Sixty rows of two organisations with many ties."""
    superuser.execute(
        "insert into fields.outbox"
        " (organization_id, id, receiver, rpc, payload, user_id, request_id, attempts, created_at)"
        " select 1 + n % 2, n, 'r' || n % 3, '', '', n % 4, '', n % 5, timestamptz '2026-01-31 09:30:00.123456+05:45'"
        " + (n % 7) * interval '1 microsecond' from generate_series(1, 60) n"
    )
    return superuser


def walk(db: Database, listing: Listing[Row], **equal: int) -> list[int]:
    """The ids of a list, page by page until there is no more."""
    ids, token, more = list[int](), "", True
    while more:
        page = page_of(asked(page_token=token, per_page=4), *listing.kinds)
        with db.reading(WHO) as tx:
            rows = listing.find(tx, page, **equal)
        meta = list_meta(WHO, page, rows, listing.place)
        ids += [row.id for row in rows[:4]]
        token, more = meta.next_page_token, meta.has_more
    return ids


@pytest.mark.parametrize("order", LISTINGS)
@pytest.mark.parametrize("equal", [{}, {"user_id": 2}], ids=["all", "some"])
def test_a_walk_by_tokens_and_one_by_numbers_meet_every_row_once_in_order(
    db: Database, listed: psycopg.Connection, order: str, equal: dict[str, int]
) -> None:
    listing = LISTINGS[order]
    sorting, _, condition = order.partition(" where ")
    conditions = ["organization_id = 1", condition or "true", *(f"{name} = {value}" for name, value in equal.items())]
    query = f"select id from fields.outbox where {' and '.join(conditions)} order by {sorting}"
    wanted = [row_id for (row_id,) in listed.execute(query.encode()).fetchall()]
    numbered: list[int] = []
    for number in range(1, 12):
        page = page_of(asked(page=number, per_page=4), *listing.kinds)
        with db.reading(WHO) as tx:
            numbered += [row.id for row in listing.find(tx, page, **equal)[:4]]
            assert listing.count(tx, **equal) == len(wanted)
    assert walk(db, listing, **equal) == numbered == wanted
    assert len(wanted) > 4


def test_rows_that_come_and_go_do_not_disturb_a_walk(db: Database, listed: psycopg.Connection) -> None:
    listing, seen, token = LISTINGS["id"], list[int](), ""
    for _ in range(8):
        page = page_of(asked(page_token=token, per_page=4), *listing.kinds)
        with db.reading(WHO) as tx:
            rows = listing.find(tx, page)
        token = list_meta(WHO, page, rows, listing.place).next_page_token
        seen += [row.id for row in rows[:4]]
        listed.execute("delete from fields.outbox where id = any(%s)", (seen,))
    assert seen == list(range(2, 61, 2))
    assert token == ""
