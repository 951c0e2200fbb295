"""Ids (design: data): counted per organisation and kind, from 1, never twice, without queueing at the database."""

from collections.abc import Iterator
from itertools import chain

import psycopg
import pytest

from services.runtime import ids
from services.runtime.db import connection_info
from services.runtime.ids import IdBlocks
from tests.harness import Houses, at_once
from tests.runtime.conftest import break_connections


@pytest.fixture
def conninfo(houses: Houses) -> str:
    return connection_info(houses.settings("fields"), "fields")


@pytest.fixture
def blocks(conninfo: str) -> Iterator[IdBlocks]:
    taken = IdBlocks(conninfo)
    yield taken
    taken.close()


class Trips:
    """How often a process asked the database, and for how many."""

    def __init__(self, blocks: IdBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        take = blocks._take_block

        def counted(organization_id: int, kind: str, size: int) -> int:
            self.sizes.append(size)
            return take(organization_id, kind, size)

        monkeypatch.setattr(blocks, "_take_block", counted)


def test_the_first_is_1_for_every_organisation_and_kind(blocks: IdBlocks) -> None:
    assert [blocks.take(1, "deal"), blocks.take(1, "contact"), blocks.take(2, "deal")] == [1, 1, 1]
    assert [blocks.take(1, "deal"), blocks.take(1, "contact"), blocks.take(2, "deal")] == [2, 2, 2]


def test_one_process_counts_without_gaps(blocks: IdBlocks) -> None:
    assert [blocks.take(1, "deal") for _ in range(500)] == list(range(1, 501))


def test_blocks_grow_so_that_busy_kinds_rarely_ask(blocks: IdBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = Trips(blocks, monkeypatch)
    for _ in range(5000):
        blocks.take(1, "deal")
    assert trips.sizes[:4] == [1, 2, 4, 8]
    assert set(trips.sizes[10:]) == {ids.LARGEST_BLOCK}
    assert len(trips.sizes) < 20


def test_ids_taken_at_once_are_distinct(conninfo: str) -> None:
    processes = [IdBlocks(conninfo) for _ in range(4)]

    def take(process: IdBlocks) -> list[int]:
        return [process.take(1, "deal") for _ in range(300)]

    outcomes = at_once([lambda process=process: take(process) for process in (*processes, *processes)])  # type: ignore[misc]
    taken = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert len(taken) == 8
    everything = list(chain.from_iterable(taken))
    assert len(set(everything)) == len(everything) == 2400
    assert min(everything) == 1
    for process in processes:
        process.close()


def test_a_new_process_goes_on_where_the_last_one_stopped(conninfo: str) -> None:
    first = IdBlocks(conninfo)
    taken = [first.take(1, "deal") for _ in range(5)]
    first.close()
    second = IdBlocks(conninfo)
    assert second.take(1, "deal") > max(taken)
    second.close()


def test_a_connection_that_broke_costs_no_call(blocks: IdBlocks, superuser: psycopg.Connection) -> None:
    taken = []
    for _ in range(4):
        taken.append(blocks.take(1, "deal"))
        break_connections(superuser)
    assert taken == [1, 2, 3, 4]


def test_a_failed_take_hands_out_nothing(
    blocks: IdBlocks, superuser: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert blocks.take(1, "deal") == 1
    superuser.execute("alter table fields.id_blocks rename to elsewhere")
    with pytest.raises(psycopg.Error):
        blocks.take(1, "deal")
    superuser.execute("alter table fields.elsewhere rename to id_blocks")
    assert blocks.take(1, "deal") == 2


def test_a_used_up_block_is_not_handed_out_past_its_end_after_a_failure(
    blocks: IdBlocks, superuser: psycopg.Connection, conninfo: str
) -> None:
    """Between a failure and the next block another process may have taken what would come next."""
    blocks.take(1, "deal")
    superuser.execute("alter table fields.id_blocks rename to elsewhere")
    for _ in range(3):
        with pytest.raises(psycopg.Error):
            blocks.take(1, "deal")
    superuser.execute("alter table fields.elsewhere rename to id_blocks")
    other = IdBlocks(conninfo)
    theirs = [other.take(1, "deal") for _ in range(5)]
    other.close()
    assert not set(theirs) & {blocks.take(1, "deal") for _ in range(20)}
