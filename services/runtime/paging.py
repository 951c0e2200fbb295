"""Pages of a list: numbered pages for people, tokens that continue after the last row for machines.

A token carries the sort values of the last row and a fingerprint of the query, so it is refused with another query. One
row more than the page is read to know whether more follow (spec v1 §0.6, D5; design: lists).
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from crm.runtime.v1 import meta_pb2
from google.protobuf.message import Message

from services.runtime.callers import Caller
from services.runtime.errors import Invalid

DEFAULT_PER_PAGE = 50
LARGEST_PER_PAGE = 100
LAST_PAGE = 10_000
"""Numbered pages end here: a deeper walk is what page_token is for."""

Row = TypeVar("Row")


class ListRequest(Protocol):
    """What every list request carries."""

    page: int
    per_page: int
    page_token: str
    include_total: bool

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...


class Page(NamedTuple):
    """Which rows of a list are wanted."""

    number: int
    """From 1; 0 when walking by token."""
    per_page: int
    after: tuple[Any, ...]
    """Sort values of the row before; empty for a numbered page."""
    fingerprint: str

    @property
    def limit(self) -> int:
        """One more than fit, to see whether more follow."""
        return self.per_page + 1

    @property
    def offset(self) -> int:
        """Rows to pass over."""
        return max(self.number - 1, 0) * self.per_page


def page_of(request: ListRequest, *kinds: type) -> Page:
    """The page a list request asks for; `kinds` are the types of the list's sort values.

    Raises Invalid for a token that is not of this query or that a caller made up.
    """
    per_page = min(request.per_page or DEFAULT_PER_PAGE, LARGEST_PER_PAGE)
    fingerprint = _fingerprint(request)
    if request.page_token:
        return Page(0, per_page, _after(request.page_token, fingerprint, kinds), fingerprint)
    if request.page > LAST_PAGE:
        raise Invalid(f"must be at most {LAST_PAGE}; use page_token to walk further", field="page")
    return Page(request.page or 1, per_page, (), fingerprint)


def list_meta(
    who: Caller, page: Page, rows: Sequence[Row], key: Callable[[Row], tuple[Any, ...]], total: int | None = None
) -> meta_pb2.ListMeta:
    """What a list answer says about itself. `rows` still holds the extra row; `key` gives a row's sort values."""
    more = len(rows) > page.per_page
    return meta_pb2.ListMeta(
        request_id=who.request_id,
        page=page.number,
        per_page=page.per_page,
        has_more=more,
        next_page_token=_token(key(rows[page.per_page - 1]), page.fingerprint) if more else "",
        total=total,
    )


def _fingerprint(request: ListRequest) -> str:
    """The query without its paging, in short."""
    assert isinstance(request, Message)
    query = type(request)()
    query.CopyFrom(request)
    for name in ("page", "per_page", "page_token", "include_total"):
        query.ClearField(name)
    return hashlib.sha256(query.SerializeToString(deterministic=True)).hexdigest()[:12]


def _token(values: tuple[Any, ...], fingerprint: str) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([fingerprint, *plain]).encode()).decode().rstrip("=")


def _after(token: str, fingerprint: str, kinds: Sequence[type]) -> tuple[Any, ...]:
    try:
        found, *values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if found == fingerprint:
            return tuple(_sort_value(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid("is not a token this list gave", field="page_token") from error
    raise Invalid("belongs to another query", field="page_token")


def _sort_value(value: Any, kind: type) -> Any:
    """A value as the database will take it; what a caller made up is refused here."""
    if kind is datetime:
        return datetime.fromisoformat(value)
    if kind is int and type(value) is int and abs(value) < 2**31:
        return value
    if kind is str and isinstance(value, str) and "\x00" not in value:
        return value
    raise ValueError(value)
