"""The stages contacts stand on; their order is advisory, any may follow any other (spec v1 §8.2)."""

from dataclasses import dataclass

SEEDED = ("new", "qualified", "engaged", "proposal", "converted", "lost", "inactive")
"""The stages of a new organisation: their places in here, from 1, are their ids and their order."""
LAST_PLACE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ContactStage:
    """A contact stage; lower `sort_order` first."""

    id: int
    name: str
    description: str
    sort_order: int


def place_after(last: int) -> int:
    """Where a stage goes that is given no place: after the last."""
    return min(last + 1, LAST_PLACE)
