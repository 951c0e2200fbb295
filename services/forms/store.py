"""The tables of form families, versions and submissions, and their statements."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    any_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql

from services.forms.errors import (
    FormNameTaken,
    FormNotFound,
    FormNotPublished,
    FormSubmissionNotFound,
    RunActionNotPending,
)
from services.forms.lifecycle import Form
from services.runtime.db import Transaction, refusing
from services.runtime.lists import Listing
from services.runtime.statements import ORGANIZATION, columns_of, given, mine, statement
from services.runtime.tables import document, moment, new_metadata, organization_id, record_id

RUN_ACTION = "pipeline_run_action"
"""The context_type with a meaning: the submission completes the run action that context_id names (D57)."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One filled-in form. Members that are None are none; `schema_snapshot` is None where it was not asked for."""

    id: int
    organization_id: int
    form_definition_id: int
    form_version: int
    schema_snapshot: dict[str, Any] | None
    values: dict[str, Any]
    contact_id: int | None
    account_id: int | None
    context_type: str | None
    context_id: int | None
    write_back_result: list[dict[str, Any]]
    submitted_by_user_id: int
    submitted_at: datetime


metadata = new_metadata()

# What makes a name one family's and a version number one version's, whoever creates and forks at the same time: the
# row outlives the versions it counts.
form_families = Table(
    "form_families",
    metadata,
    organization_id(),
    Column("name", Text, primary_key=True),
    Column("latest_version", Integer, nullable=False),
    Column("live_versions", Integer, nullable=False),
)

forms = Table(
    "forms",
    metadata,
    organization_id(),
    record_id(),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'draft'")),
    document("schema", nullable=False),
    Column("created_by", BigInteger, nullable=False),
    moment("published_at"),
    moment("archived_at"),
    moment("created_at", nullable=False, server_default=text("now()")),
    moment("updated_at", nullable=False, server_default=text("now()")),
    moment("deleted_at"),
    # Also the order of the list: within a name the few versions are sorted as they come.
    UniqueConstraint("organization_id", "name", "version"),
    ForeignKeyConstraint(["organization_id", "name"], ["form_families.organization_id", "form_families.name"]),
    Index(None, "organization_id", "status", "name", "version"),
)

form_submissions = Table(
    "form_submissions",
    metadata,
    organization_id(),
    record_id(),
    Column("form_definition_id", BigInteger, nullable=False),
    Column("form_version", Integer, nullable=False),
    document("schema_snapshot", nullable=False),
    document("values", nullable=False),
    Column("contact_id", BigInteger),
    Column("account_id", BigInteger),
    Column("context_type", Text),
    Column("context_id", BigInteger),
    document("write_back_result", nullable=False),
    Column("submitted_by_user_id", BigInteger, nullable=False),
    moment("submitted_at", nullable=False, server_default=text("now()")),
    moment("deleted_at"),
    ForeignKeyConstraint(["organization_id", "form_definition_id"], ["forms.organization_id", "forms.id"]),
    # One index per filter, then the order newest first, read backwards.
    Index(None, "organization_id", "submitted_at", "id"),
    Index("form_submissions_form_idx", "organization_id", "form_definition_id", "submitted_at", "id"),
    *(
        Index(
            f"form_submissions_{name}_idx",
            "organization_id",
            name,
            "submitted_at",
            "id",
            postgresql_where=text(f"{name} is not null"),
        )
        for name in ("contact_id", "account_id", "context_type", "context_id")
    ),
    # Two submissions at once complete an action once. A deleted one gives the action free: it may have been stored
    # while pipelines could not say that the action is another form's or subject's.
    Index(
        "form_submissions_action_idx",
        "organization_id",
        "context_id",
        unique=True,
        postgresql_where=text(f"context_type = '{RUN_ACTION}' and deleted_at is null"),
    ),
)

_f, _s = forms.c, form_submissions.c
_form = columns_of(forms, Form)
_created = ("organization_id", "id", "name", "description", "version", "schema", "created_by")
_changeable = ("description", "schema", "status")
_this_form = (mine(forms), _f.id == given("id", _f.id), _f.deleted_at.is_(None))
_this_family = (mine(form_families), form_families.c.name == given("name", form_families.c.name))

LIVE = Listing(forms, _form, Form, _f.name, _f.version.desc(), where=[_f.deleted_at.is_(None)])
"""Form versions by name, newest version first."""

_new_family = postgresql.insert(form_families).values(
    organization_id=ORGANIZATION, name=given("name", form_families.c.name), latest_version=1, live_versions=1
)
BEGIN_FAMILY = statement(
    # A name is free once none of its versions is left; their numbers stay taken (D35, D40).
    _new_family.on_conflict_do_update(
        index_elements=["organization_id", "name"],
        set_={"latest_version": form_families.c.latest_version + 1, "live_versions": 1},
        where=form_families.c.live_versions == 0,
    ).returning(form_families.c.latest_version),
    int,
)
GROW_FAMILY = statement(
    update(form_families)
    .where(*_this_family)
    .values(latest_version=form_families.c.latest_version + 1, live_versions=form_families.c.live_versions + 1)
    .returning(form_families.c.latest_version),
    int,
)
SHRINK_FAMILY = statement(
    update(form_families).where(*_this_family).values(live_versions=form_families.c.live_versions - 1)
)
CREATE = statement(insert(forms).values({name: given(name, _f[name]) for name in _created}).returning(*_form), Form)
GET = statement(select(*_form).where(*_this_form), Form)
LOCK = statement(select(*_form).where(*_this_form).with_for_update(), Form)
GET_MANY = statement(
    select(*_form)
    .where(mine(forms), _f.id == any_(bindparam("ids", type_=ARRAY(BigInteger))), _f.deleted_at.is_(None))
    .order_by(_f.id),
    Form,
)
SAVE = statement(
    update(forms)
    .where(*_this_form)
    .values(
        {name: given(name, _f[name]) for name in _changeable}
        | {
            f"{status}_at": func.coalesce(
                _f[f"{status}_at"], case((given("status", _f.status) == literal_column(f"'{status}'"), func.now()))
            )
            for status in ("published", "archived")
        }
        # now() is when the transaction began, which may have waited for the change before.
        | {"updated_at": func.greatest(_f.updated_at, func.now())}
    )
    .returning(*_form),
    Form,
)
DELETE = statement(update(forms).where(*_this_form).values(deleted_at=func.now(), updated_at=func.now()))
IS_SUBMITTED = statement(
    select(exists().where(mine(form_submissions), _s.form_definition_id == given("id", _f.id))), bool
)

_submission = columns_of(form_submissions, Submission)
_without_snapshot = [null().label("schema_snapshot") if each is _s.schema_snapshot else each for each in _submission]
LIVE_SUBMISSIONS = Listing(
    form_submissions,
    _without_snapshot,
    Submission,
    _s.submitted_at.desc(),
    _s.id.desc(),
    where=[_s.deleted_at.is_(None)],
)
"""Submissions without their snapshots, newest first."""
_said = ("id", "values", "contact_id", "account_id", "context_type", "context_id", "write_back_result",
         "submitted_by_user_id")  # fmt: skip
_this_submission = (mine(form_submissions), _s.id == given("id", _s.id), _s.deleted_at.is_(None))

WRITE_CUSTOM_FIELDS = statement(
    select(
        func.contacts.write_custom_fields(
            ORGANIZATION,
            bindparam("kind", type_=Text),
            bindparam("record_id", type_=BigInteger),
            bindparam("changes", type_=postgresql.JSONB),
        )
    ),
    lambda old: old,
)
SUBMIT = statement(
    # The form is looked at once more, and held until the commit: whoever archives it comes before this submission,
    # which then is refused, or after it. One statement, so that a submission needs no more than four.
    insert(form_submissions)
    .from_select(
        ["organization_id", "form_definition_id", "form_version", "schema_snapshot", *_said],
        select(_f.organization_id, _f.id, _f.version, _f.schema, *(given(name, _s[name]).label(name) for name in _said))
        .where(
            mine(forms),
            _f.id == given("form_definition_id", _f.id),
            _f.status == literal_column("'published'"),
            _f.deleted_at.is_(None),
        )
        .with_for_update(read=True),
    )
    .returning(*_without_snapshot),
    Submission,
)
GET_SUBMISSION = statement(select(*_submission).where(*_this_submission), Submission)
DELETE_SUBMISSION = statement(update(form_submissions).where(*_this_submission).values(deleted_at=func.now()))


def create(tx: Transaction, *, name: str, description: str, schema: dict[str, Any]) -> Form:
    """Begins a family with a draft. Raises FormNameTaken."""
    version = tx.one(BEGIN_FAMILY, name=name)
    if version is None:
        raise FormNameTaken(field="name")
    return _insert(tx, name=name, description=description, schema=schema, version=version)


def fork(tx: Transaction, form: Form) -> Form:
    """Adds a draft to a form's family, with what the form asks."""
    version = tx.one(GROW_FAMILY, name=form.name)
    return _insert(tx, name=form.name, description=form.description, schema=form.schema, version=version)


def get(tx: Transaction, form_id: int) -> Form:
    """The form version. Raises FormNotFound."""
    return _found(tx.one(GET, id=form_id))


def lock(tx: Transaction, form_id: int) -> Form:
    """The form version, nobody else's to change or submit until the transaction ends. Raises FormNotFound."""
    return _found(tx.one(LOCK, id=form_id))


def get_many(tx: Transaction, ids: Sequence[int]) -> list[Form]:
    """Those of the form versions that exist, by id."""
    return tx.all(GET_MANY, ids=list(ids))


def save(tx: Transaction, form: Form) -> Form:
    """Writes what may change of a form; the moments of its changes of status are taken here."""
    return _found(tx.one(SAVE, id=form.id, **{name: getattr(form, name) for name in _changeable}))


def is_submitted(tx: Transaction, form: Form) -> bool:
    """Whether it ever had a submission, deleted ones counted (D44)."""
    return tx.one(IS_SUBMITTED, id=form.id) is True


def delete(tx: Transaction, form: Form) -> None:
    """Takes a locked form version out of sight and off its family."""
    tx.run(DELETE, id=form.id)
    tx.run(SHRINK_FAMILY, name=form.name)


def write_custom_fields(tx: Transaction, kind: str, record_id: int, changes: dict[str, Any]) -> dict[str, Any] | None:
    """Merges changes into a record's custom_fields: what they were before, None when the record is gone.

    Without changes the record is read and left as it is.
    """
    return tx.one(WRITE_CUSTOM_FIELDS, kind=kind, record_id=record_id, changes=changes)


def submit(
    tx: Transaction,
    form: Form,
    *,
    values: dict[str, Any],
    contact_id: int,
    account_id: int,
    context_type: str,
    context_id: int,
    write_back_result: list[dict[str, Any]],
) -> Submission:
    """Adds a submission of a form that is still published. Raises FormNotPublished, RunActionNotPending."""
    with refusing(unique=RunActionNotPending, field="context_id"):
        made = tx.one(
            SUBMIT,
            id=tx.new_id("form_submission"),
            form_definition_id=form.id,
            values=values,
            contact_id=contact_id or None,
            account_id=account_id or None,
            context_type=context_type or None,
            context_id=context_id or None,
            write_back_result=Jsonb(write_back_result),
            submitted_by_user_id=tx.who.user_id,
        )
    if made is None:
        raise FormNotPublished()
    return replace(made, schema_snapshot=form.schema)


def get_submission(tx: Transaction, submission_id: int) -> Submission:
    """The submission with its snapshot. Raises FormSubmissionNotFound."""
    found = tx.one(GET_SUBMISSION, id=submission_id)
    if found is None:
        raise FormSubmissionNotFound()
    return found


def delete_submission(tx: Transaction, submission_id: int) -> None:
    """Takes a submission out of sight. Raises FormSubmissionNotFound."""
    if not tx.run(DELETE_SUBMISSION, id=submission_id):
        raise FormSubmissionNotFound()


def _insert(tx: Transaction, **members: Any) -> Form:
    made = tx.one(CREATE, id=tx.new_id("form"), created_by=tx.who.user_id, **members)
    assert made is not None
    return made


def _found(form: Form | None) -> Form:
    if form is None:
        raise FormNotFound()
    return form
