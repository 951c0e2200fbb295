"""Columns and standing tables that every service's schema has: id blocks, idempotency keys, outbox.

Tables carry no schema name: a service's role has its own schema as search path, and only that.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

NAMING = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}


def organization_id() -> Column[int]:
    """The tenant; first in every key and index."""
    return Column("organization_id", BigInteger, primary_key=True, autoincrement=False)


def record_id(name: str = "id") -> Column[int]:
    """A number counted per organisation and kind."""
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def moment(name: str, **options: Any) -> Column[Any]:
    """A point in time, UTC."""
    return Column(name, DateTime(timezone=True), **options)


def document(name: str, **options: Any) -> Column[Any]:
    """A JSON document."""
    return Column(name, JSONB, **options)


def new_metadata() -> MetaData:
    """The metadata of one service, with the standing tables in it."""
    metadata = MetaData(naming_convention=NAMING)
    Table(
        "id_blocks",
        metadata,
        organization_id(),
        Column("kind", Text, primary_key=True),
        Column("next_id", BigInteger, nullable=False),
    )
    Table(
        "idempotency_keys",
        metadata,
        organization_id(),
        Column("user_id", BigInteger, primary_key=True),
        Column("rpc", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("request_hash", LargeBinary, nullable=False),
        Column("response", LargeBinary),
        moment("expires_at", nullable=False),
        Index(None, "organization_id", "expires_at"),
    )
    Table(
        "outbox",
        metadata,
        organization_id(),
        record_id(),
        Column("receiver", Text, nullable=False),
        Column("rpc", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("user_id", BigInteger, nullable=False),
        Column("request_id", Text, nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("last_error", Text, nullable=False, server_default=text("''")),
        moment("created_at", nullable=False, server_default=text("now()")),
        moment("due_at"),
        Index(None, "organization_id", "due_at"),
    )
    return metadata


standing = new_metadata()
"""The standing tables alone, for the runtime's own statements."""
