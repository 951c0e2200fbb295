"""What happens when two do the same thing at once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import psycopg
import pytest
from crm.forms.v1 import form_pb2

from tests.forms.world import ANSWERS, World, entry, inline, kyc, rows, schema
from tests.harness import Failure, at_once, eventually

NOTE = schema(inline("note"))


class Watched:
    """The test's database from aside: what a rival holds there, and how many wait for it."""

    def __init__(self, admin_url: str) -> None:
        self._url = admin_url

    @contextmanager
    def holding(self, command: str, *parameters: int) -> Iterator[None]:
        """Keeps the locks of a command until `release`."""
        with psycopg.connect(self._url) as self._rival, psycopg.connect(self._url, autocommit=True) as self._watch:
            self._rival.execute(command, parameters or None)
            yield

    def until_waiting(self, number: int) -> None:
        """Returns once so many wait for a lock."""
        ours = b"select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        with eventually() as until:
            until(lambda: len(self._watch.execute(ours).fetchall()) == number)

    def release(self) -> None:
        """Lets go of everything held."""
        self._rival.rollback()


@pytest.fixture
def watched(admin_url: str) -> Watched:
    """The test's database from aside."""
    return Watched(admin_url)


def reasons(outcomes: Sequence[object]) -> list[str]:
    """The reasons of those that failed."""
    return [Failure(each).reason for each in outcomes if isinstance(each, grpc.RpcError)]


def test_of_two_families_of_one_name_one_begins(world: World) -> None:
    outcomes = at_once([lambda: world.create(NOTE)] * 4)
    assert reasons(outcomes) == ["ErrFormNameTaken"] * 3
    assert world.list(include_total=True).meta.total == 1


def test_forks_at_once_get_numbers_of_their_own(world: World) -> None:
    first = world.published(NOTE)
    second = world.publish(world.fork(first.id).id)
    outcomes = at_once([lambda: world.fork(first.id), lambda: world.fork(second.id)] * 3)
    assert sorted(each.version for each in outcomes if isinstance(each, form_pb2.Form)) == [3, 4, 5, 6, 7, 8]


def test_of_publishes_at_once_one_wins(world: World, watched: Watched) -> None:
    draft = world.create(kyc(world.definition()))
    with watched.holding("select from forms.forms where id = %s for update", draft.id), ThreadPoolExecutor(3) as pool:
        publishes = [pool.submit(world.publish, draft.id) for _ in range(3)]
        watched.until_waiting(3)
        watched.release()
        outcomes = [each.exception(10) for each in publishes]
    assert sorted(reasons(outcomes)) == ["ErrFormNotDraft"] * 2
    assert world.get(draft.id).status == "published"


def test_of_submissions_for_one_action_at_once_one_wins_and_writes(world: World) -> None:
    form, contact = world.published(kyc(world.definition())), world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    # Both are told that the action is pending before either is stored.
    together = threading.Barrier(2)
    world.pipelines.while_checking = lambda: together.wait(20)
    action: dict[str, Any] = {"contact_id": contact, "context_type": "pipeline_run_action", "context_id": 7}
    outcomes = at_once(
        [
            partial(world.submit, form.id, {**ANSWERS, "kyc_status": status}, **action)
            for status in ("approved", "rejected")
        ]
    )
    assert reasons(outcomes) == ["ErrRunActionNotPending"]
    (stored,) = world.submissions().data
    assert world.fields_of(contact) == {"kyc_status": stored.values["kyc_status"]}
    assert [each.form_submission_id for each in world.pipelines.completed] == [stored.id]


def test_submissions_about_one_contact_at_once_lose_no_write_back(world: World) -> None:
    keys = [f"key_{n}" for n in range(6)]
    definitions = {key: world.definition(key, field_type="text") for key in keys}
    shared = world.definition("shared", field_type="text")
    form = world.published(
        schema(
            *(inline(key) for key in keys),
            inline("shared"),
            write_back=[*(entry(key, each) for key, each in definitions.items()), entry("shared", shared)],
        )
    )
    contact = world.contact()
    outcomes = at_once([partial(world.submit, form.id, {key: key, "shared": key}, contact_id=contact) for key in keys])
    assert reasons(outcomes) == []
    found = world.fields_of(contact)
    last = found.pop("shared")
    assert found == {key: key for key in keys}
    # Each saw what the one before had written: together they are a chain.
    told = [rows(each)[-1] for each in world.submissions().data]
    chain = {old: new for _, _, old, new in told}
    assert len(chain) == len(keys)
    walked = [chain[None]]
    while walked[-1] in chain:
        walked.append(chain[walked[-1]])
    assert (sorted(walked), walked[-1]) == (keys, last)


def test_a_form_is_archived_before_or_after_a_submission_and_never_meanwhile(world: World) -> None:
    for n in range(5):
        form, contact = world.published(NOTE, f"form {n}"), world.contact()
        submit = partial(world.submit, form.id, {"note": "x"}, contact_id=contact)
        calls: list[Callable[[], Any]] = [partial(world.archive, form.id), submit, submit, submit]
        archived, *submitted = at_once(calls)
        assert not isinstance(archived, Exception)
        assert set(reasons(submitted)) <= {"ErrFormNotPublished"}
        stored = len(world.submissions(form_definition_id=form.id).data)
        assert stored == sum(not isinstance(each, Exception) for each in submitted)


def test_a_name_freed_and_taken_at_once_is_one_familys(world: World) -> None:
    for n in range(5):
        name = f"form {n}"
        draft = world.create(NOTE, name)
        create = partial(world.create, NOTE, name)
        calls: list[Callable[[], Any]] = [partial(world.delete, draft.id), create, create, create]
        deleted, *created = at_once(calls)
        assert not isinstance(deleted, Exception)
        made = [each for each in created if isinstance(each, form_pb2.Form)]
        assert set(reasons(created)) <= {"ErrFormNameTaken"}
        assert [each.version for each in made] in ([], [2])
        assert [each.version for each in world.list(name=name).data] == [each.version for each in made]


def test_a_submission_holds_its_form_until_it_is_stored(world: World, watched: Watched) -> None:
    form, contact = world.published(NOTE), world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    action: dict[str, Any] = {"contact_id": contact, "context_type": "pipeline_run_action", "context_id": 7}
    # A rival's uncommitted submission for the same action keeps this one between its insert and its commit. It holds
    # nothing else: foreign keys, which would lock the form, are off for it.
    rival = (
        "set local session_replication_role = replica; insert into forms.form_submissions (organization_id, id,"
        " form_definition_id, form_version, schema_snapshot, values, context_type, context_id, write_back_result,"
        " submitted_by_user_id) values (1, 99, 1, 1, '{}', '{}', 'pipeline_run_action', 7, '[]', 1)"
    )
    with watched.holding(rival), ThreadPoolExecutor(2) as pool:
        submitting = pool.submit(world.submit, form.id, {"note": "x"}, **action)
        watched.until_waiting(1)
        archiving = pool.submit(world.archive, form.id)
        watched.until_waiting(2)
        watched.release()
        assert submitting.result(10).form_definition_id == form.id
        assert archiving.result(10).status == "archived"
