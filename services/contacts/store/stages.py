"""Statements over contact stages."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ARRAY, BigInteger, Integer, any_, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql

from services.contacts.errors import ContactStageInUse, ContactStageNameTaken, ContactStageNotFound
from services.contacts.stage import SEEDED, ContactStage, place_after
from services.contacts.store.tables import contact_stages
from services.runtime.db import Transaction, refusing
from services.runtime.statements import ORGANIZATION, columns_of, given, mine, statement

_c = contact_stages.c
_whole = columns_of(contact_stages, ContactStage)
_changeable = ("name", "description", "sort_order")
_this = (mine(contact_stages), _c.id == given("id", _c.id))

HIGHEST_PLACE = statement(select(func.coalesce(func.max(_c.sort_order), 0)).where(mine(contact_stages)), int)
CREATE = statement(
    insert(contact_stages)
    .values({name: given(name, _c[name]) for name in ("organization_id", "id", *_changeable)})
    .returning(*_whole),
    ContactStage,
)
GET = statement(select(*_whole).where(*_this), ContactStage)
GET_MANY = statement(
    select(*_whole)
    .where(mine(contact_stages), _c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))
    .order_by(_c.id),
    ContactStage,
)
LIST = statement(select(*_whole).where(mine(contact_stages)).order_by(_c.sort_order, _c.id), ContactStage)
CHANGE = statement(
    update(contact_stages)
    .where(*_this)
    .values({name: func.coalesce(given(name, _c[name]), _c[name]) for name in _changeable})
    .returning(*_whole),
    ContactStage,
)
DELETE = statement(delete(contact_stages).where(*_this))
_placed = (
    func.unnest(bindparam("ids", type_=ARRAY(BigInteger)), bindparam("sort_orders", type_=ARRAY(Integer)))
    .table_valued("id", "sort_order", name="placed")
    .render_derived()
)
PLACE = statement(
    update(contact_stages)
    .where(mine(contact_stages), _c.id == _placed.c.id)
    .values(sort_order=_placed.c.sort_order)
    .returning(_c.id),
    int,
)
SEED = statement(
    postgresql.insert(contact_stages)
    .values(
        [
            {"organization_id": ORGANIZATION, "id": place, "name": name, "description": "", "sort_order": place}
            for place, name in enumerate(SEEDED, 1)
        ]
    )
    .on_conflict_do_nothing()
)


class Placement(NamedTuple):
    """Where a stage goes."""

    id: int
    sort_order: int


def create(tx: Transaction, name: str, description: str, sort_order: int | None) -> ContactStage:
    """Adds a stage, after the last where no place is given. Raises ContactStageNameTaken."""
    if sort_order is None:
        sort_order = place_after(tx.one(HIGHEST_PLACE) or 0)
    members = {"name": name, "description": description, "sort_order": sort_order}
    with refusing(unique=ContactStageNameTaken, field="name"):
        made = tx.one(CREATE, id=tx.new_id("contact_stage"), **members)
    assert made is not None
    return made


def get(tx: Transaction, stage_id: int) -> ContactStage:
    """The stage. Raises ContactStageNotFound."""
    return _found(tx.one(GET, id=stage_id))


def get_many(tx: Transaction, ids: Sequence[int]) -> list[ContactStage]:
    """Those of the stages that exist, by id."""
    return tx.all(GET_MANY, ids=list(ids))


def in_order(tx: Transaction) -> list[ContactStage]:
    """All stages, by sort_order, then id."""
    return tx.all(LIST)


def change(
    tx: Transaction,
    stage_id: int,
    name: str | None = None,
    description: str | None = None,
    sort_order: int | None = None,
) -> ContactStage:
    """Changes what is given. Raises ContactStageNotFound, ContactStageNameTaken."""
    with refusing(unique=ContactStageNameTaken, field="name"):
        return _found(tx.one(CHANGE, id=stage_id, name=name, description=description, sort_order=sort_order))


def delete_unused(tx: Transaction, stage_id: int) -> None:
    """Removes a stage. Raises ContactStageNotFound, and ContactStageInUse while a contact stands on it.

    The foreign key decides, so that no contact can come to stand on it in between.
    """
    with refusing(missing=ContactStageInUse):
        if not tx.run(DELETE, id=stage_id):
            raise ContactStageNotFound()


def place(tx: Transaction, placements: Sequence[Placement]) -> None:
    """Moves stages. Raises ContactStageNotFound when one of them is unknown."""
    # By id, so that two who move the same stages wait for one another and not crosswise.
    ids, sort_orders = zip(*sorted(placements), strict=True)
    placed = tx.all(PLACE, ids=list(ids), sort_orders=list(sort_orders))
    unknown = set(ids).difference(placed)
    for index, placement in enumerate(placements):
        if placement.id in unknown:
            raise ContactStageNotFound(field=f"stages[{index}].id")


def seed(tx: Transaction) -> None:
    """Gives an organisation without stages the seeded ones."""
    if not in_order(tx):
        # Their ids are fixed; what is taken here is kept from the stages people add later.
        for _ in SEEDED:
            tx.new_id("contact_stage")
        tx.run(SEED)


def _found(stage: ContactStage | None) -> ContactStage:
    if stage is None:
        raise ContactStageNotFound()
    return stage
