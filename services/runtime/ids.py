"""Ids: integers counted per organisation and kind, taken from the database in blocks so that creates never queue.

An organisation's first record of a kind is 1; gaps are fine. A process takes one id first and doubles its block each
time it comes back, up to a thousand, so quiet kinds have small gaps and busy ones rarely ask.
"""

import threading
from itertools import count
from typing import Any

from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from services.runtime.statements import ORGANIZATION, statement
from services.runtime.tables import standing
from services.runtime.wire import ConnectionLost, Wire

LARGEST_BLOCK = 1000

_blocks = standing.tables["id_blocks"]
_size = bindparam("size", type_=_blocks.c.next_id.type)
TAKE = statement(
    insert(_blocks)
    .values(organization_id=ORGANIZATION, kind=bindparam("kind"), next_id=_size + 1)
    .on_conflict_do_update(index_elements=["organization_id", "kind"], set_={"next_id": _blocks.c.next_id + _size})
    .returning(_blocks.c.next_id - _size),
    int,
)


class IdBlocks:
    """The blocks a process holds. It has a connection of its own: a transaction that asks never waits for the pool."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Wire | None = None
        self._lock = threading.Lock()
        self._blocks: dict[tuple[int, str], tuple[count[int], int, int]] = {}

    def take(self, organization_id: int, kind: str) -> int:
        """The next id of this kind in this organisation."""
        key = (organization_id, kind)
        with self._lock:
            numbers, end, size = self._blocks.get(key, (count(0), 0, 0))
            number = next(numbers)
            if number >= end:
                size = min(max(size * 2, 1), LARGEST_BLOCK)
                number = self._take_block(organization_id, kind, size)
                self._blocks[key] = (count(number + 1), number + size, size)
            return number

    def close(self) -> None:
        """Gives the connection back; blocks in hand become gaps."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take_block(self, organization_id: int, kind: str, size: int) -> int:
        parameters = {**TAKE.constants, "organization_id": organization_id, "kind": kind, "size": size}
        try:
            return self._run(organization_id, parameters)
        except ConnectionLost:
            # The connection sat idle and the database went away in between: once more on a new one.
            self.close()
            return self._run(organization_id, parameters)

    def _run(self, organization_id: int, parameters: dict[str, Any]) -> int:
        if self._connection is None:
            self._connection = Wire.connect(self._conninfo, autocommit=True)
            self._connection.ready()
        connection = self._connection
        connection.begin(b"begin", organization_id)
        try:
            rows, _ = connection.run(TAKE, parameters)
            connection.commit_now()
        except BaseException:
            connection.rollback_now()
            raise
        return rows[0]
