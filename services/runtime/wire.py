"""How statements reach PostgreSQL: prepared once per connection, and the first of a transaction along with its begin.

psycopg converts and carries the values; its cursors are passed by. A transaction of n statements makes n + 1 round
trips instead of n + 2; a read, whose statements need nothing of one another, makes one trip for each with begin and
commit in it. At our rates that is most of a read's price.
"""

import select
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import psycopg
from psycopg import abc, adapt, pq
from psycopg.adapt import PyFormat
from psycopg.types.json import JsonbDumper

from services.runtime.statements import Row, Statement

_DONE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_OPEN = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class ConnectionLost(psycopg.OperationalError):
    """The connection broke before the transaction's commit was sent: nothing of it happened."""


class CommitFailed(psycopg.OperationalError):
    """The commit was not acknowledged: its effect is unknown to us."""


class Wire(psycopg.Connection[Any]):
    """A connection as transactions use it; the pool makes these."""

    _names: dict[str, bytes]
    _numbers: Iterator[int]
    _transformer: abc.Transformer
    _readable: select.poll
    _writable: select.poll
    _begin: tuple[bytes, bytes] | None = None
    """What the next statement is preceded by; None once the transaction is open."""
    _alone: bool = False
    """Whether each statement is a transaction of its own."""

    def ready(self) -> None:
        """Called once by the pool for a new connection."""
        self.adapters.register_dumper(dict, JsonbDumper)
        self._names, self._numbers = {}, count()
        self._transformer = adapt.Transformer(self)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self.pgconn.socket, select.POLLIN)
        self._writable.register(self.pgconn.socket, select.POLLIN | select.POLLOUT)

    def begin(self, begin: bytes, organization_id: int) -> None:
        """Opens a transaction of one organisation; it is sent with the first statement."""
        self._begin = (begin, b"set local app.organization_id = '%d'" % organization_id)
        self._alone = False

    def read(self, organization_id: int) -> None:
        """Has each statement run as a read-only transaction of its own, begin and commit in one trip with it."""
        self.begin(b"begin read only", organization_id)
        self._alone = True

    def run(self, wanted: Statement[Row], parameters: dict[str, Any]) -> tuple[list[Row], int]:
        """Runs a statement: its rows and how many it touched. Raises psycopg's errors."""
        # As text: PostgreSQL knows each parameter's type from the statement, psycopg guesses a binary one by the value.
        values = self._transformer.dump_sequence(
            [parameters[name] for name in wanted.names], [PyFormat.TEXT] * len(wanted.names)
        )
        name = self._names.get(wanted.sql)
        if self._begin is not None:
            result = self._run_first(wanted, name, values)
        else:
            if name is None:
                name = self._new_name()
                self._expect(self.pgconn.prepare(name, wanted.wire))
                self._names[wanted.sql] = name
            result = self._expect(self.pgconn.exec_prepared(name, values))  # type: ignore[arg-type]
        if result.status == pq.ExecStatus.COMMAND_OK:
            return [], result.command_tuples or 0
        self._transformer.set_pgresult(result)
        rows: list[Row] = self._transformer.load_rows(0, result.ntuples, wanted.make)
        return rows, result.ntuples

    def commit_now(self) -> None:
        """Commits. Raises CommitFailed when PostgreSQL did not say so."""
        if self._begin is not None:
            self._begin = None
            return
        result = self.pgconn.exec_(b"commit")
        if result.status != pq.ExecStatus.COMMAND_OK or result.command_status != b"COMMIT":
            raise CommitFailed(result.error_message.decode(errors="replace"))

    def rollback_now(self) -> None:
        """Rolls back if there is anything to roll back; a broken connection has nothing."""
        if self.pgconn.transaction_status in _OPEN:
            self.pgconn.exec_(b"rollback")
        self._begin = None

    def _run_first(
        self, wanted: Statement[Row], name: bytes | None, values: Sequence[abc.Buffer | None]
    ) -> pq.abc.PGresult:
        assert self._begin is not None
        pgconn, known = self.pgconn, name
        try:
            pgconn.enter_pipeline_mode()
            for command in self._begin:
                pgconn.send_query_params(command, None)
            if name is None:
                name = self._new_name()
                pgconn.send_prepare(name, wanted.wire)
            pgconn.send_query_prepared(name, values)
            if self._alone:
                pgconn.send_query_params(b"commit", None)
            pgconn.pipeline_sync()
            while pgconn.flush():
                self._writable.poll()
            results = self._drain(answer_at=len(self._begin) + (known is None))
        except psycopg.OperationalError as error:
            if pgconn.status == pq.ConnStatus.BAD:
                raise ConnectionLost(str(error)) from error
            raise
        answer = results.pop(-2 if self._alone else -1)
        if not self._alone:
            self._begin = None
        elif results[-1].status == pq.ExecStatus.PIPELINE_ABORTED:
            results.pop()  # the commit of a statement that was refused
        for result in results:
            self._expect(result)
        if known is None:
            # Prepared, even should its run be refused below: preparing is not undone with the transaction.
            self._names[wanted.sql] = name
        return self._expect(answer)

    def _drain(self, answer_at: int) -> list[pq.abc.PGresult]:
        """Every result up to the end of the batch.

        PostgreSQL sends a batch's results together, but for an answer that is long: what stands before and behind the
        answer is there when its neighbour is, and each look would hand the interpreter to another thread.
        """
        results: list[pq.abc.PGresult] = []
        while True:
            if len(results) in (0, answer_at):
                self._wait()
            result = self.pgconn.get_result()
            if result is None:
                if self.pgconn.status == pq.ConnStatus.BAD:
                    raise ConnectionLost(self.pgconn.error_message.decode(errors="replace"))
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                self.pgconn.exit_pipeline_mode()
                return results
            if result.status == pq.ExecStatus.FATAL_ERROR and self.pgconn.status == pq.ConnStatus.BAD:
                raise ConnectionLost(result.error_message.decode(errors="replace"))
            results.append(result)

    def _wait(self) -> None:
        """Waits for the next result without holding the interpreter: get_result would hold it."""
        while self.pgconn.is_busy():
            self._readable.poll()
            self.pgconn.consume_input()

    def _new_name(self) -> bytes:
        """A name never used on this connection."""
        return b"s%d" % next(self._numbers)

    def _expect(self, result: pq.abc.PGresult) -> pq.abc.PGresult:
        if result.status not in _DONE:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
        return result
