"""The table of custom field definitions and its statements."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    any_,
    bindparam,
    func,
    insert,
    select,
    text,
    true,
    update,
)

from services.fields.definition import CustomField
from services.fields.errors import CustomFieldKeyTaken, CustomFieldNotFound
from services.runtime.db import Transaction, refusing
from services.runtime.statements import Statement, columns_of, given, mine, statement
from services.runtime.tables import document, moment, new_metadata, organization_id, record_id

metadata = new_metadata()

custom_fields = Table(
    "custom_fields",
    metadata,
    organization_id(),
    record_id(),
    Column("object_type", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("field_type", Text, nullable=False),
    document("picklist_options"),
    document("validation_rules"),
    Column("section", Text, nullable=False, server_default=text("''")),
    Column("position", Integer, nullable=False, server_default=text("0")),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("deal_pipeline_id", BigInteger, nullable=False, server_default=text("0")),
    Column("document_template_id", BigInteger, nullable=False, server_default=text("0")),
    moment("created_at", nullable=False, server_default=text("now()")),
    moment("updated_at", nullable=False, server_default=text("now()")),
    UniqueConstraint("organization_id", "object_type", "key"),
)

_c = custom_fields.c
_whole = columns_of(custom_fields, CustomField)
_changeable = ("label", "picklist_options", "validation_rules", "section", "position", "is_active")
_created = (
    "organization_id", "id", "object_type", "key", "label", "field_type", "picklist_options", "validation_rules",
    "section", "position", "deal_pipeline_id", "document_template_id",
)  # fmt: skip
_this = (mine(custom_fields), _c.id == given("id", _c.id))
_these = (mine(custom_fields), _c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))

CREATE = statement(
    insert(custom_fields).values({name: given(name, _c[name]) for name in _created}).returning(*_whole), CustomField
)
GET = statement(select(*_whole).where(*_this), CustomField)
LOCK = statement(select(*_whole).where(*_this).with_for_update(), CustomField)
LOCK_MANY = statement(select(_c.id).where(*_these).order_by(_c.id).with_for_update(), int)
GET_MANY = statement(select(*_whole).where(*_these).order_by(_c.id), CustomField)
OF_OBJECT_TYPE = statement(
    select(*_whole).where(mine(custom_fields), _c.object_type == given("object_type", _c.object_type)), CustomField
)
SAVE = statement(
    update(custom_fields)
    .where(*_this)
    .values({name: given(name, _c[name]) for name in _changeable} | {"updated_at": func.now()})
    .returning(*_whole),
    CustomField,
)
_placed = (
    func.unnest(
        bindparam("ids", type_=ARRAY(BigInteger)),
        bindparam("sections", type_=ARRAY(Text)),
        bindparam("positions", type_=ARRAY(Integer)),
    )
    .table_valued("id", "section", "position", name="placed")
    .render_derived()
)
PLACE = statement(
    update(custom_fields)
    .where(mine(custom_fields), _c.id == _placed.c.id)
    .values(
        section=func.coalesce(_placed.c.section, _c.section),
        position=func.coalesce(_placed.c.position, _c.position),
        updated_at=func.now(),
    )
    .returning(*_whole),
    CustomField,
)


class Placement(NamedTuple):
    """Where a field goes; None keeps what it has."""

    id: int
    section: str | None
    position: int | None


def create(tx: Transaction, **members: Any) -> CustomField:
    """Adds a definition. Raises CustomFieldKeyTaken."""
    with refusing(unique=CustomFieldKeyTaken, field="key"):
        made = tx.one(CREATE, id=tx.new_id("custom_field"), **_documents(members))
    assert made is not None
    return made


def get(tx: Transaction, field_id: int) -> CustomField:
    """The definition. Raises CustomFieldNotFound."""
    return _found(tx.one(GET, id=field_id))


def lock(tx: Transaction, field_id: int) -> CustomField:
    """The definition, nobody else's to change until the transaction ends. Raises CustomFieldNotFound."""
    return _found(tx.one(LOCK, id=field_id))


def get_many(tx: Transaction, ids: Sequence[int]) -> list[CustomField]:
    """Those of the definitions that exist."""
    return tx.all(GET_MANY, ids=list(ids))


def of_object_type(tx: Transaction, object_type: str) -> list[CustomField]:
    """Every definition of one kind of record, archived ones too."""
    return tx.all(OF_OBJECT_TYPE, object_type=object_type)


def find(tx: Transaction, *, include_archived: bool, **equal: str) -> list[CustomField]:
    """Definitions with these members, by section, position, id."""
    return tx.all(_find(include_archived, tuple(sorted(equal))), **equal)


def save(tx: Transaction, field: CustomField) -> CustomField:
    """Writes what may change of a definition."""
    return _found(tx.one(SAVE, id=field.id, **_documents({name: getattr(field, name) for name in _changeable})))


def place(tx: Transaction, placements: Sequence[Placement]) -> list[CustomField]:
    """Moves fields. Raises CustomFieldNotFound when one of them is unknown."""
    ids, sections, positions = (list(column) for column in zip(*placements, strict=True))
    # Locked by id: two orders of the same fields would each wait for the other.
    locked = tx.all(LOCK_MANY, ids=ids)
    unknown = set(ids).difference(locked)
    if unknown:
        raise CustomFieldNotFound(field=f"fields[{min(map(ids.index, unknown))}].id")
    placed = tx.all(PLACE, ids=ids, sections=sections, positions=positions)
    return sorted(placed, key=lambda each: (each.section, each.position, each.id))


@cache
def _find(include_archived: bool, equal: tuple[str, ...]) -> Statement[CustomField]:
    conditions = [mine(custom_fields), *(_c[name] == given(name, _c[name]) for name in equal)]
    if not include_archived:
        conditions.append(_c.is_active == true())
    return statement(select(*_whole).where(*conditions).order_by(_c.section, _c.position, _c.id), CustomField)


def _found(field: CustomField | None) -> CustomField:
    if field is None:
        raise CustomFieldNotFound()
    return field


def _documents(members: Mapping[str, Any]) -> dict[str, Any]:
    """Lists that are JSON documents, and not arrays of the database."""
    options = members["picklist_options"]
    return {**members, "picklist_options": None if options is None else Jsonb(options)}
