"""The tables of pipelines and runs, and their statements.

A run is written as a whole: its row, and the difference between its timeline before and after, in two statements for
any number of runs and rows. The rows travel as one JSON document, so that no statement's text depends on their number.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from psycopg.types.json import Jsonb
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    TableValuedAlias,
    Text,
    UniqueConstraint,
    and_,
    any_,
    bindparam,
    column,
    delete,
    exists,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from services.pipelines.definition import Pipeline, Schema
from services.pipelines.errors import (
    PipelineAlreadyEnrolled,
    PipelineNameTaken,
    PipelineNotFound,
    PipelineRunNotFound,
)
from services.pipelines.run import Journey, Run, RunAction
from services.runtime.db import Transaction, refusing
from services.runtime.lists import Listing
from services.runtime.statements import ORGANIZATION, columns_of, given, mine, statement
from services.runtime.tables import document, moment, new_metadata, organization_id, record_id

metadata = new_metadata()

families = Table(
    "pipeline_families",
    metadata,
    organization_id(),
    Column("name", Text, primary_key=True),
    Column("highest_version", Integer, nullable=False),
    Column("versions", Integer, nullable=False),
)
pipelines = Table(
    "pipelines",
    metadata,
    organization_id(),
    record_id(),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("subject_type", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    document("schema", nullable=False),
    Column("auto_enroll_contact_stage_id", BigInteger, nullable=False),
    Column("created_by", BigInteger, nullable=False),
    moment("published_at"),
    moment("archived_at"),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    moment("deleted_at"),
    UniqueConstraint("organization_id", "name", "version"),
    Index(
        "pipelines_triggers_idx",
        "organization_id",
        "auto_enroll_contact_stage_id",
        postgresql_where=text("status = 'published' and auto_enroll_contact_stage_id <> 0"),
    ),
)
runs = Table(
    "pipeline_runs",
    metadata,
    organization_id(),
    record_id(),
    Column("pipeline_definition_id", BigInteger, nullable=False),
    Column("definition_version", Integer, nullable=False),
    Column("family", Text, nullable=False),
    Column("subject_type", Text, nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("current_stage_key", Text, nullable=False),
    Column("enrolled_by_user_id", BigInteger, nullable=False),
    Column("enroll_source", Text, nullable=False),
    moment("started_at", nullable=False),
    document("variables", nullable=False),
    document("branch_notes", nullable=False),
    Column("cancel_reason", Text, nullable=False),
    Column("failure_reason", Text, nullable=False),
    moment("paused_at"),
    moment("completed_at"),
    moment("cancelled_at"),
    moment("failed_at"),
    document("schema", nullable=False),
    ForeignKeyConstraint(["organization_id", "pipeline_definition_id"], ["pipelines.organization_id", "pipelines.id"]),
    Index("pipeline_runs_newest_idx", "organization_id", "started_at", "id"),
    Index("pipeline_runs_pipeline_idx", "organization_id", "pipeline_definition_id", "started_at", "id"),
    Index("pipeline_runs_subject_idx", "organization_id", "subject_type", "subject_id", "started_at", "id"),
    Index("pipeline_runs_status_idx", "organization_id", "status", "started_at", "id"),
    Index(
        "pipeline_runs_open_key",
        "organization_id",
        "family",
        "subject_type",
        "subject_id",
        unique=True,
        postgresql_where=text("status in ('running', 'paused')"),
    ),
)
run_actions = Table(
    "pipeline_run_actions",
    metadata,
    organization_id(),
    record_id(),
    Column("pipeline_run_id", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("stage_key", Text, nullable=False),
    Column("action_key", Text, nullable=False),
    Column("action_type", Text, nullable=False),
    Column("required", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("form_definition_id", BigInteger, nullable=False),
    Column("form_submission_id", BigInteger, nullable=False),
    Column("deal_id", BigInteger, nullable=False),
    Column("engagement_id", BigInteger, nullable=False),
    document("checklist", nullable=False),
    document("result", nullable=False),
    Column("completed_by_user_id", BigInteger, nullable=False),
    moment("completed_at"),
    Column("error_message", Text, nullable=False),
    ForeignKeyConstraint(["organization_id", "pipeline_run_id"], ["pipeline_runs.organization_id", "pipeline_runs.id"]),
    Index("pipeline_run_actions_timeline_idx", "organization_id", "pipeline_run_id", "position"),
)

_p, _r, _a = pipelines.c, runs.c, run_actions.c
_pipeline = columns_of(pipelines, Pipeline)
_run = columns_of(runs, Run)
_action = columns_of(run_actions, RunAction)
_PIPELINE = [each.name for each in fields(Pipeline)]
_MUTABLE = (
    "description", "status", "schema", "auto_enroll_contact_stage_id", "published_at", "archived_at", "updated_at",
)  # fmt: skip
_RUN_MUTABLE = (
    "status", "current_stage_key", "variables", "branch_notes", "cancel_reason", "failure_reason", "paused_at",
    "completed_at", "cancelled_at", "failed_at",
)  # fmt: skip
_ACTION_MUTABLE = (
    "status", "form_submission_id", "deal_id", "engagement_id", "checklist", "result", "completed_by_user_id",
    "completed_at", "error_message",
)  # fmt: skip


def _journey_row(*values: Any) -> Journey:
    return Journey(Run(*values[:-1]), Schema.of(values[-1]))


def _rows(table: Table, names: Sequence[str]) -> TableValuedAlias:
    """The rows of the JSON document `rows`, with the table's types."""
    wanted = [column(name, table.c[name].type) for name in names if name != "organization_id"]
    made = func.jsonb_to_recordset(bindparam("rows", type_=JSONB)).table_valued(*wanted, name="given")
    return made.render_derived(with_types=True)


_is_open = _r.status.in_([literal_column("'running'"), literal_column("'paused'")])
_published: ColumnElement[str] = literal_column("'published'")
_this = (mine(pipelines), _p.id == given("id", _p.id), _p.deleted_at.is_(None))
_this_run = (mine(runs), _r.id == given("id", _r.id))


def _enrolled(subject: ColumnElement[Any] | int) -> ColumnElement[bool]:
    """Whether the subject has an open run of the pipeline's family."""
    return exists().where(
        mine(runs), _r.family == _p.name, _r.subject_type == _p.subject_type, _r.subject_id == subject, _is_open
    )


_taken = postgresql.insert(families).values(
    organization_id=ORGANIZATION, name=given("name", families.c.name), highest_version=1, versions=1
)
NEW_FAMILY = statement(
    # A name is free again once every version is deleted; versions go on from where they were.
    _taken.on_conflict_do_update(
        index_elements=["organization_id", "name"],
        set_={"highest_version": families.c.highest_version + 1, "versions": 1},
        where=and_(mine(families), families.c.versions == 0),
    ).returning(families.c.highest_version),
    int,
)
_this_family = (mine(families), families.c.name == given("name", families.c.name))
NEXT_VERSION = statement(
    update(families)
    .where(*_this_family)
    .values(highest_version=families.c.highest_version + 1, versions=families.c.versions + 1)
    .returning(families.c.highest_version),
    int,
)
LOSE_VERSION = statement(update(families).where(*_this_family).values(versions=families.c.versions - 1))

CREATE = statement(postgresql.insert(pipelines).values({name: given(name, _p[name]) for name in _PIPELINE}))
GET = statement(select(*_pipeline).where(*_this), Pipeline)
LOCK = statement(select(*_pipeline).where(*_this).with_for_update(), Pipeline)
SAVE = statement(update(pipelines).where(*_this).values({name: given(name, _p[name]) for name in _MUTABLE}))
DELETE = statement(update(pipelines).where(*_this).values(deleted_at=given("at", _p.deleted_at)))
HAS_RUNS = statement(
    select(_r.id).where(mine(runs), _r.pipeline_definition_id == given("id", _r.pipeline_definition_id)).limit(1), int
)
TO_ENROL = statement(
    # The lock keeps the version from being deleted between this look at it and the run's first row.
    select(*_pipeline, _enrolled(given("subject_id", _r.subject_id)))
    .where(*_this)
    .with_for_update(read=True, key_share=True, of=pipelines),
    lambda *values: (Pipeline(*values[:-1]), bool(values[-1])),
)
_newer = pipelines.alias("newer")
TRIGGERED = statement(
    select(*_pipeline)
    .where(
        mine(pipelines),
        _p.auto_enroll_contact_stage_id == given("contact_stage_id", _p.auto_enroll_contact_stage_id),
        _p.auto_enroll_contact_stage_id != literal_column("0"),
        _p.status == _published,
        ~exists().where(
            _newer.c.organization_id == ORGANIZATION,
            _newer.c.name == _p.name,
            _newer.c.version > _p.version,
            _newer.c.status == _published,
        ),
        ~_enrolled(given("subject_id", _r.subject_id)),
    )
    .order_by(_p.name)
    .with_for_update(read=True, key_share=True, of=pipelines),
    Pipeline,
)

LIVE = Listing(pipelines, _pipeline, Pipeline, _p.name, _p.version.desc(), where=[_p.deleted_at.is_(None)])
RUNS = Listing(runs, _run, Run, _r.started_at.desc(), _r.id.desc())

GET_RUN = statement(select(*_run).where(*_this_run), Run)
LOCK_RUN = statement(select(*_run, _r.schema).where(*_this_run).with_for_update(), _journey_row)
_rival = runs.alias("rival")
LOCK_RUN_WITH_RIVAL = statement(
    select(
        *_run,
        _r.schema,
        exists().where(
            _rival.c.organization_id == ORGANIZATION,
            _rival.c.family == _r.family,
            _rival.c.subject_type == _r.subject_type,
            _rival.c.subject_id == _r.subject_id,
            _rival.c.id != _r.id,
            _rival.c.status.in_([literal_column("'running'"), literal_column("'paused'")]),
        ),
    )
    .where(*_this_run)
    .with_for_update(of=runs),
    lambda *values: (_journey_row(*values[:-1]), bool(values[-1])),
)
LOCK_RUN_OF_ACTION = statement(
    # The join only finds the run: its timeline is read once the lock is held.
    select(*_run, _r.schema)
    .join(run_actions, and_(mine(run_actions), _a.pipeline_run_id == _r.id))
    .where(mine(runs), _a.id == given("action_id", _a.id))
    .with_for_update(of=runs),
    _journey_row,
)
LOCK_OPEN_RUNS = statement(
    select(*_run, _r.schema)
    .where(
        mine(runs),
        _r.subject_type == given("subject_type", _r.subject_type),
        _r.subject_id == given("subject_id", _r.subject_id),
        _is_open,
    )
    .order_by(_r.id)
    .with_for_update(),
    _journey_row,
)
TIMELINES = statement(
    select(*_action)
    .where(mine(run_actions), _a.pipeline_run_id == any_(bindparam("run_ids", type_=ARRAY(BigInteger))))
    .order_by(_a.pipeline_run_id, _a.position),
    RunAction,
)
GET_ACTION = statement(
    select(*_action, _r.subject_type, _r.subject_id)
    .join(runs, and_(mine(runs), _r.id == _a.pipeline_run_id))
    .where(mine(run_actions), _a.id == given("action_id", _a.id)),
    lambda *values: (RunAction(*values[:-2]), values[-2], values[-1]),
)

_new_runs = [each.name for each in fields(Run)] + ["schema"]
_given_runs = _rows(runs, _new_runs)
ADD_RUNS = statement(
    postgresql.insert(runs)
    .from_select(
        _new_runs,
        select(*(ORGANIZATION if name == "organization_id" else _given_runs.c[name] for name in _new_runs)),
    )
    .on_conflict_do_nothing(
        index_elements=["organization_id", "family", "subject_type", "subject_id"],
        index_where=_is_open,
    )
    .returning(_r.id),
    int,
)
_changed_runs = _rows(runs, ("id", *_RUN_MUTABLE))
SAVE_RUNS = statement(
    update(runs)
    .where(mine(runs), _r.id == _changed_runs.c.id)
    .values({name: _changed_runs.c[name] for name in _RUN_MUTABLE})
)
_new_actions = [each.name for each in fields(RunAction)]
_given_actions = _rows(run_actions, _new_actions)
_gone = (
    delete(run_actions).where(mine(run_actions), _a.id == any_(bindparam("gone", type_=ARRAY(BigInteger)))).cte("gone")
)
_written = postgresql.insert(run_actions).from_select(
    _new_actions,
    select(*(ORGANIZATION if name == "organization_id" else _given_actions.c[name] for name in _new_actions)),
)
SAVE_ACTIONS = statement(
    _written.on_conflict_do_update(
        index_elements=["organization_id", "id"],
        set_={name: _written.excluded[name] for name in _ACTION_MUTABLE},
    )
    .returning(_a.id)
    .add_cte(_gone),
    int,
)


def new_family(tx: Transaction, name: str) -> int:
    """Takes a name and answers its first version. Raises PipelineNameTaken."""
    version = tx.one(NEW_FAMILY, name=name)
    if version is None:
        raise PipelineNameTaken(field="name")
    return version


def next_version(tx: Transaction, name: str) -> int:
    """The number of the family's next version."""
    version = tx.one(NEXT_VERSION, name=name)
    assert version is not None
    return version


def create(tx: Transaction, pipeline: Pipeline) -> Pipeline:
    """Adds a version."""
    tx.run(CREATE, **_members(pipeline, _PIPELINE))
    return pipeline


def get(tx: Transaction, pipeline_id: int) -> Pipeline:
    """The version. Raises PipelineNotFound."""
    return _found(tx.one(GET, id=pipeline_id))


def lock(tx: Transaction, pipeline_id: int) -> Pipeline:
    """The version, nobody else's to change or to enrol in until the transaction ends. Raises PipelineNotFound."""
    return _found(tx.one(LOCK, id=pipeline_id))


def save(tx: Transaction, pipeline: Pipeline) -> Pipeline:
    """Writes what may change of a version."""
    tx.run(SAVE, id=pipeline.id, **_members(pipeline, _MUTABLE))
    return pipeline


def drop(tx: Transaction, pipeline: Pipeline, at: datetime) -> None:
    """Deletes a version softly."""
    tx.run(DELETE, id=pipeline.id, at=at)
    tx.run(LOSE_VERSION, name=pipeline.name)


def has_runs(tx: Transaction, pipeline_id: int) -> bool:
    """Whether the version was ever enrolled in."""
    return tx.one(HAS_RUNS, id=pipeline_id) is not None


def to_enrol(tx: Transaction, pipeline_id: int, subject_id: int) -> tuple[Pipeline, bool]:
    """The version to enrol in, kept from deletion meanwhile, and whether the subject has an open run of the family.

    Raises PipelineNotFound.
    """
    found = tx.one(TO_ENROL, id=pipeline_id, subject_id=subject_id)
    if found is None:
        raise PipelineNotFound(field="pipeline_definition_id")
    return found


def triggered(tx: Transaction, contact_stage_id: int, contact_id: int) -> list[Pipeline]:
    """What the contact is enrolled in on entering the stage: each family by its highest published version alone, unless
    it has an open run (spec v1 D100)."""
    return tx.all(TRIGGERED, contact_stage_id=contact_stage_id, subject_id=contact_id)


def get_run(tx: Transaction, run_id: int) -> Run:
    """The run. Raises PipelineRunNotFound."""
    return _found_run(tx.one(GET_RUN, id=run_id))


def timeline(tx: Transaction, run_id: int) -> list[RunAction]:
    """The run's actions in order. Raises PipelineRunNotFound."""
    found = tx.all(TIMELINES, run_ids=[run_id])
    if not found:
        get_run(tx, run_id)
    return found


def action_with_subject(tx: Transaction, action_id: int) -> tuple[RunAction, str, int] | None:
    """An action, with kind and id of the record its run is about."""
    return tx.one(GET_ACTION, action_id=action_id)


def lock_run(tx: Transaction, run_id: int) -> Journey:
    """The run, nobody else's to move until the transaction ends. Raises PipelineRunNotFound."""
    return _with_timelines(tx, [_found_run(tx.one(LOCK_RUN, id=run_id))])[0]


def lock_run_to_restart(tx: Transaction, run_id: int) -> Journey:
    """The run, locked. Raises PipelineRunNotFound, PipelineAlreadyEnrolled when another run is in its place (D99)."""
    journey, rivalled = _found_run(tx.one(LOCK_RUN_WITH_RIVAL, id=run_id))
    if rivalled:
        raise PipelineAlreadyEnrolled()
    return _with_timelines(tx, [journey])[0]


def lock_run_of_action(tx: Transaction, action_id: int) -> Journey | None:
    """The run an action belongs to, locked."""
    found = tx.one(LOCK_RUN_OF_ACTION, action_id=action_id)
    return _with_timelines(tx, [found])[0] if found else None


def lock_open_runs(tx: Transaction, subject_type: str, subject_id: int) -> list[Journey]:
    """The open runs about a record, locked."""
    return _with_timelines(tx, tx.all(LOCK_OPEN_RUNS, subject_type=subject_type, subject_id=subject_id))


def add_runs(tx: Transaction, journeys: Sequence[Journey]) -> list[Journey]:
    """Stores new runs, but none beside an open run of its family; answers those that were stored."""
    if not journeys:
        return []
    names = [each.name for each in fields(Run)]
    rows = [_members(each.run, names) | {"schema": each.schema.document()} for each in journeys]
    made = set(tx.all(ADD_RUNS, rows=_document(rows)))
    stored = [_numbered(tx, each) for each in journeys if each.run.id in made]
    _save_actions(tx, (), stored)
    return stored


def save_runs(tx: Transaction, before: Sequence[Journey], after: Sequence[Journey]) -> list[Journey]:
    """Writes what has changed of locked runs. Raises PipelineAlreadyEnrolled when one is open again beside another."""
    moved = [_numbered(tx, each) for each in after]
    rows = [
        _members(now.run, ("id", *_RUN_MUTABLE)) for was, now in zip(before, moved, strict=True) if was.run != now.run
    ]
    if rows:
        with refusing(unique=PipelineAlreadyEnrolled):
            tx.run(SAVE_RUNS, rows=_document(rows))
    _save_actions(tx, before, moved)
    return moved


def save_run(tx: Transaction, before: Journey, after: Journey) -> Journey:
    """Writes what has changed of a locked run. Raises PipelineAlreadyEnrolled."""
    return save_runs(tx, [before], [after])[0]


def _save_actions(tx: Transaction, before: Sequence[Journey], after: Sequence[Journey]) -> None:
    """Writes the difference of the timelines."""
    known = {row.id: row for journey in before for row in journey.timeline}
    now = [row for journey in after for row in journey.timeline]
    gone = known.keys() - {row.id for row in now}
    changed = [row for row in now if known.get(row.id) != row]
    if gone or changed:
        rows = [_members(row, _new_actions) for row in changed]
        tx.run(SAVE_ACTIONS, rows=_document(rows), gone=sorted(gone))


def _numbered(tx: Transaction, journey: Journey) -> Journey:
    """The journey with ids for the actions that have none."""
    rows = (row if row.id else replace(row, id=tx.new_id("pipeline_run_action")) for row in journey.timeline)
    return replace(journey, timeline=tuple(rows))


def _with_timelines(tx: Transaction, journeys: Sequence[Journey]) -> list[Journey]:
    if not journeys:
        return []
    rows = tx.all(TIMELINES, run_ids=[each.run.id for each in journeys])
    return [
        replace(each, timeline=tuple(row for row in rows if row.pipeline_run_id == each.run.id)) for each in journeys
    ]


def _members(row: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a row is stored as."""
    return {name: getattr(row, name) for name in names}


def _document(rows: Sequence[Mapping[str, Any]]) -> Jsonb:
    return Jsonb(rows, dumps=partial(json.dumps, default=datetime.isoformat))


Found = TypeVar("Found")


def _found(found: Found | None) -> Found:
    if found is None:
        raise PipelineNotFound()
    return found


def _found_run(found: Found | None) -> Found:
    if found is None:
        raise PipelineRunNotFound()
    return found
