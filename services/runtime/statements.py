"""Statements: composed with SQLAlchemy Core, compiled once to the SQL text that psycopg prepares and runs.

Every table of a statement is scoped by `organization_id = :organization_id` in the text (`mine`): row-level security
alone would hold the wall, but would not route on a distributed database and would not use the leading index column.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast, overload

from sqlalchemy import ColumnElement, Table, bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.base import Executable
from sqlalchemy.types import BigInteger

Row = TypeVar("Row")

ORGANIZATION = bindparam("organization_id", type_=BigInteger())
"""The caller's organisation; `Transaction` binds it."""

REGISTERED: list["Statement[Any]"] = []
"""Every statement of the process, for the tests that walk them."""

_PARAMETER = re.compile(r"%\((\w+)\)s|%%")
_DIALECT = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]


class Nothing:
    """The row of a statement that returns none."""


class Statement(Generic[Row]):
    """SQL text with named parameters, and what a row of its answer becomes."""

    __slots__ = ("constants", "make", "names", "sql", "wire")

    def __init__(self, sql: str, constants: dict[str, Any], row: Callable[..., Row]) -> None:
        self.sql = sql
        self.constants = constants
        numbers: dict[str, int] = {}
        self.wire = _PARAMETER.sub(lambda found: _numbered(found, numbers), sql).encode()
        """The text as PostgreSQL prepares it, with numbered parameters."""
        self.names = tuple(numbers)
        """The parameters in the order of their numbers."""
        self.make = cast("Callable[[Sequence[Any]], Row]", lambda values: row(*values))
        REGISTERED.append(self)


def _numbered(found: re.Match[str], numbers: dict[str, int]) -> str:
    if found[0] == "%%":
        return "%"
    return f"${numbers.setdefault(found[1], len(numbers) + 1)}"


@overload
def statement(composed: Executable) -> Statement[Nothing]: ...
@overload
def statement(composed: Executable, row: Callable[..., Row]) -> Statement[Row]: ...
def statement(composed: Executable, row: Callable[..., Any] = Nothing) -> Statement[Any]:
    """Compiles a Core statement. `row` is called with a row's columns in order; a dataclass's fields must be these."""
    compiled = composed.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    constants = {name: bind.value for bind, name in compiled.bind_names.items() if not bind.required}
    if dataclasses.is_dataclass(row):
        fields = [field.name for field in dataclasses.fields(row)]
        columns = [entry.keyname for entry in compiled._result_columns]
        if fields != columns:
            raise TypeError(f"{row} has fields {fields}, the statement answers {columns}")
    return Statement(str(compiled), constants, row)


def columns_of(table: Table, row: type[Any]) -> list[ColumnElement[Any]]:
    """The table's columns that a dataclass names, in its order; what a select or returning of it answers."""
    return [table.c[field.name] for field in dataclasses.fields(row)]


def mine(table: Table) -> ColumnElement[bool]:
    """`table.organization_id` is the caller's."""
    return table.c.organization_id == ORGANIZATION


def given(name: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A parameter of the column's type."""
    return bindparam(name, type_=column.type)
