"""Paginated lists: rows of one table in a fixed order, narrowed by equality, by page number or after a last row.

One statement per combination of filters, composed and compiled the first time it is asked for. The order's columns and
the index behind them are what makes page_token walk in constant time.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Generic

from crm.runtime.v1.meta_pb2 import ListMeta
from sqlalchemy import BigInteger, ColumnElement, Select, Table, and_, bindparam, func, or_, select, tuple_
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import desc_op

from services.runtime.db import Transaction
from services.runtime.paging import ListRequest, Page, list_meta, page_of
from services.runtime.statements import Row, Statement, given, mine, statement


class Listing(Generic[Row]):
    """A list of a table's rows. `order` are columns, `.desc()` where they fall; together they are unique."""

    def __init__(
        self,
        table: Table,
        columns: Sequence[ColumnElement[Any]],
        row: type[Row],
        *order: ColumnElement[Any],
        where: Sequence[ColumnElement[bool]] = (),
    ) -> None:
        self._table, self._columns, self._row, self._where = table, columns, row, where
        self._order = order
        self._sorted_by = [(_column(each), _falls(each)) for each in order]
        self._find = cache(self._compose_find)
        self._count = cache(self._compose_count)

    def page(self, tx: Transaction, request: ListRequest, **equal: Any) -> tuple[list[Row], ListMeta]:
        """The page that a request asks for of the rows with these members, and what the answer says about itself.

        Raises Invalid for a page_token that is not of this query.
        """
        page = page_of(request, *self.kinds)
        rows = self.find(tx, page, **equal)
        total = self.count(tx, **equal) if request.include_total else None
        return rows[: page.per_page], list_meta(tx.who, page, rows, self.place, total)

    @property
    def kinds(self) -> tuple[type, ...]:
        """The Python types of the sort values."""
        return tuple(column.type.python_type for column, _ in self._sorted_by)

    def place(self, row: Row) -> tuple[Any, ...]:
        """A row's sort values, for the token of the next page."""
        return tuple(getattr(row, column.key or "") for column, _ in self._sorted_by)

    def find(self, tx: Transaction, page: Page, **equal: Any) -> list[Row]:
        """The rows of a page, and one more where more follow."""
        after = {f"after_{column.key}": value for (column, _), value in zip(self._sorted_by, page.after, strict=False)}
        where = after or {"offset": page.offset}
        return tx.all(self._find(tuple(equal), bool(after)), limit=page.limit, **where, **equal)

    def count(self, tx: Transaction, **equal: Any) -> int:
        """How many rows match."""
        return tx.one(self._count(tuple(equal)), **equal) or 0

    def _compose_find(self, equal: tuple[str, ...], walking: bool) -> Statement[Row]:
        query = self._matching(select(*self._columns), equal).order_by(*self._order)
        query = query.where(self._beyond()) if walking else query.offset(bindparam("offset", type_=BigInteger()))
        return statement(query.limit(bindparam("limit", type_=BigInteger())), self._row)

    def _compose_count(self, equal: tuple[str, ...]) -> Statement[int]:
        return statement(self._matching(select(func.count()).select_from(self._table), equal), int)

    def _matching(self, query: Select[Any], equal: tuple[str, ...]) -> Select[Any]:
        c = self._table.c
        return query.where(mine(self._table), *self._where, *(c[name] == given(name, c[name]) for name in equal))

    def _beyond(self) -> ColumnElement[bool]:
        """Rows after the last one, said so that an index follows.

        Where all columns go one way that is one comparison of tuples; else the first column alone says where to start.
        """
        last = {column.key: given(f"after_{column.key}", column) for column, _ in self._sorted_by}
        if len({falls for _, falls in self._sorted_by}) == 1:
            columns, values = tuple_(*(column for column, _ in self._sorted_by)), tuple_(*last.values())
            return columns < values if self._sorted_by[0][1] else columns > values
        ways, equal = [], list[ColumnElement[bool]]()
        for column, falls in self._sorted_by:
            value = last[column.key]
            ways.append(and_(*equal, column < value if falls else column > value))
            equal.append(column == value)
        first, falls = self._sorted_by[0]
        return and_(first <= last[first.key] if falls else first >= last[first.key], or_(*ways))


def _falls(order: ColumnElement[Any]) -> bool:
    return isinstance(order, UnaryExpression) and order.modifier is desc_op


def _column(order: ColumnElement[Any]) -> ColumnElement[Any]:
    return order.element if isinstance(order, UnaryExpression) else order
