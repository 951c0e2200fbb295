"""Small conversions between messages and Python that every servicer needs."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.runtime.errors import Violation, report


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A point in time as protobuf has it; None stays unset."""
    if moment is None:
        return None
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def refuse_immutable(request: Message, immutable: Sequence[str], mutable: Sequence[str]) -> None:
    """Refuses a partial update that names what never changes, or that would change nothing (spec v1 D18, D19)."""
    named = [Violation(name, "can not be changed") for name in immutable if request.HasField(name)]
    if not named and not any(request.HasField(name) for name in mutable):
        named = [Violation(mutable[0], f"nothing to change: give at least one of {', '.join(mutable)}")]
    report(named)


def named_twice(field: str, ids: Sequence[int]) -> Iterator[Violation]:
    """A violation for every repeat in `field[…].id`."""
    seen: set[int] = set()
    for index, each in enumerate(ids):
        if each in seen:
            yield Violation(f"{field}[{index}].id", f"{each} stands twice")
        seen.add(each)
