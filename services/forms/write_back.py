"""What becomes of the answers on the subject's record: applied, skipped or failed, entry by entry.

spec v1 §2.6, D38, D54. A problem is told in its own row and refuses nothing. The definitions that judge are the live
ones, not those the form was published with.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from services.forms.schema import Entry


class Verdict(NamedTuple):
    """What the custom field's own rules say of a value. `object_type` is empty when the definition is gone."""

    object_type: str
    key: str
    is_active: bool
    value: Any
    error: str


class Decision(NamedTuple):
    """What is to happen with an entry; `key` is the member of custom_fields it is about, empty when there is none."""

    entry: Entry
    status: str
    key: str = ""
    new_value: Any = None
    error: str = ""


def entries_of(entries: Sequence[Entry], target: str) -> list[Entry]:
    """The entries that are about the submission's subject."""
    return [each for each in entries if each.target == target]


def decide(
    entries: Sequence[Entry], target: str, values: Mapping[str, Any], verdicts: Sequence[Verdict]
) -> list[Decision]:
    """A decision per entry, in order. `verdicts` are over `entries_of` the target, in their order."""
    told = iter(verdicts)
    return [
        _decision(each, values, next(told))
        if each.target == target
        else Decision(each, "skipped", error=f"the submission has no {each.target}")
        for each in entries
    ]


def changes(decisions: Sequence[Decision]) -> dict[str, Any]:
    """What is to be written into custom_fields; of several values for one key the last."""
    return {each.key: each.new_value for each in decisions if each.status == "applied"}


def results(decisions: Sequence[Decision], old: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The rows of write_back_result; later ones see earlier ones.

    `old` is custom_fields before any of it was written; None when the record is gone, so that nothing was.
    """
    current = dict(old or {})
    rows = []
    for each in decisions:
        if old is None and each.key:
            each = Decision(each.entry, "skipped", error=f"the {each.entry.target} is gone")
        rows.append(_row(each, current.get(each.key)))
        if each.status == "applied":
            current[each.key] = each.new_value
    return rows


def _decision(entry: Entry, values: Mapping[str, Any], verdict: Verdict) -> Decision:
    if verdict.object_type != entry.target:
        return Decision(entry, "skipped", error=f"is not a custom field of the {entry.target}")
    if not verdict.is_active:
        return Decision(entry, "skipped", verdict.key, error="the custom field is archived")
    if entry.field_key not in values:
        return Decision(entry, "skipped", verdict.key, error="no value was given")
    if verdict.error:
        return Decision(entry, "failed", verdict.key, values[entry.field_key], verdict.error)
    return Decision(entry, "applied", verdict.key, verdict.value)


def _row(decision: Decision, old_value: Any) -> dict[str, Any]:
    return {
        "target": decision.entry.target,
        "field_key": decision.entry.field_key,
        "custom_field_definition_id": decision.entry.custom_field_definition_id,
        "status": decision.status,
        "old_value": old_value,
        "new_value": decision.new_value,
        "error": decision.error,
    }
