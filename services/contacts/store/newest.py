"""Lists of live records, newest first, by page or by token: the same for contacts and accounts (spec v1 §0.6, D5)."""

from datetime import datetime
from functools import cache
from typing import Any, Protocol, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Table, bindparam, func, select, tuple_

from services.runtime.db import Transaction
from services.runtime.errors import Invalid
from services.runtime.paging import Page
from services.runtime.statements import Statement, columns_of, given, mine, statement

LARGEST_ID = 2**63 - 1


class Dated(Protocol):
    """A record with its place in a list."""

    @property
    def id(self) -> int:
        """Its id."""

    @property
    def created_at(self) -> datetime:
        """When it was created."""


Record = TypeVar("Record", bound=Dated)


def place(record: Dated) -> tuple[datetime, int]:
    """The sort values of a record, for the token of the next page."""
    return record.created_at, record.id


def find(tx: Transaction, table: Table, row: type[Record], page: Page, filters: dict[str, int]) -> list[Record]:
    """The records of a page with these members, and one more where more follow."""
    wanted = _find(table, row, tuple(filters), bool(page.after))
    where = _after(page) if page.after else {"offset": page.offset}
    return tx.all(wanted, limit=page.limit, **where, **filters)


def count(tx: Transaction, table: Table, filters: dict[str, int]) -> int:
    """How many records have these members."""
    return tx.one(_count(table, tuple(filters)), **filters) or 0


@cache
def _find(table: Table, row: type[Record], filters: tuple[str, ...], walking: bool) -> Statement[Record]:
    c = table.c
    query = select(*columns_of(table, row)).where(*_matching(table, filters))
    if walking:
        last = tuple_(given("after_created_at", c.created_at), given("after_id", c.id))
        query = query.where(tuple_(c.created_at, c.id) < last)
    else:
        query = query.offset(bindparam("offset", type_=BigInteger))
    query = query.order_by(c.created_at.desc(), c.id.desc()).limit(bindparam("limit", type_=BigInteger))
    return statement(query, row)


@cache
def _count(table: Table, filters: tuple[str, ...]) -> Statement[int]:
    return statement(select(func.count()).select_from(table).where(*_matching(table, filters)), int)


def _matching(table: Table, filters: tuple[str, ...]) -> list[ColumnElement[bool]]:
    c = table.c
    return [mine(table), c.deleted_at.is_(None), *(c[name] == given(name, c[name]) for name in filters)]


def _after(page: Page) -> dict[str, Any]:
    """Where a token continues; what a caller made up is refused here, not by the database."""
    try:
        created_at, last_id = page.after
        moment = datetime.fromisoformat(created_at)
        if not 0 <= last_id <= LARGEST_ID:
            raise ValueError(last_id)
    except (ValueError, TypeError) as error:
        raise Invalid("is not a token this list gave", field="page_token") from error
    return {"after_created_at": moment, "after_id": last_id}
