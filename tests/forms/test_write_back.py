"""What becomes of write-back entries: the matrix of applied, skipped and failed (spec v1 §2.6, D54)."""

from typing import Any

import pytest

from services.forms.schema import Entry
from services.forms.write_back import Verdict, changes, decide, entries_of, results

FINE = Verdict("contact", "status", True, "approved", "")
ARCHIVED = FINE._replace(is_active=False)
BAD = FINE._replace(error="must be one of the options")
UNKNOWN = Verdict("", "", False, None, "")
ELSEWHERE = FINE._replace(object_type="account")
ENTRY = Entry("kyc", "contact", 42)
GIVEN = {"kyc": "approved"}

# verdict, values, custom_fields before (None: the record is gone) → status, old value, new value, what is written
MATRIX: dict[str, tuple[Verdict, dict[str, Any], dict[str, Any] | None, tuple[str, Any, Any], dict[str, Any]]] = {
    "a first value": (FINE, GIVEN, {}, ("applied", None, "approved"), {"status": "approved"}),
    "another value": (FINE, GIVEN, {"status": "pending"}, ("applied", "pending", "approved"), {"status": "approved"}),
    "a value again": (FINE, GIVEN, {"status": "approved"}, ("applied", "approved", "approved"), {"status": "approved"}),
    "a value that is stored otherwise": (
        FINE._replace(value=5), {"kyc": 5.0}, {"status": 4}, ("applied", 4, 5), {"status": 5},
    ),
    "no value": (FINE, {}, {"status": "pending"}, ("skipped", "pending", None), {}),
    "no value that would be bad": (BAD, {}, {}, ("skipped", None, None), {}),
    "an archived definition": (ARCHIVED, GIVEN, {"status": "pending"}, ("skipped", "pending", None), {}),
    "an archived definition and a bad value": (
        ARCHIVED._replace(error="bad"), GIVEN, {}, ("skipped", None, None), {},
    ),
    "a definition that is gone": (UNKNOWN, GIVEN, {"status": "pending"}, ("skipped", None, None), {}),
    "a definition of another kind": (ELSEWHERE, GIVEN, {"status": "pending"}, ("skipped", None, None), {}),
    "a bad value": (BAD, GIVEN, {}, ("failed", None, "approved"), {}),
    "a bad value over another": (BAD, GIVEN, {"status": "pending"}, ("failed", "pending", "approved"), {}),
    "a record that is gone": (FINE, GIVEN, None, ("skipped", None, None), {"status": "approved"}),
    "a bad value and a record that is gone": (BAD, GIVEN, None, ("skipped", None, None), {}),
}  # fmt: skip


@pytest.mark.parametrize(("verdict", "values", "old", "row", "written"), MATRIX.values(), ids=MATRIX)
def test_an_entry_is_applied_skipped_or_failed(
    verdict: Verdict,
    values: dict[str, Any],
    old: dict[str, Any] | None,
    row: tuple[str, Any, Any],
    written: dict[str, Any],
) -> None:
    decided = decide([ENTRY], "contact", values, [verdict])
    assert changes(decided) == written
    (told,) = results(decided, old)
    assert (told["status"], told["old_value"], told["new_value"]) == row
    assert bool(told["error"]) == (told["status"] != "applied")
    assert (told["target"], told["field_key"], told["custom_field_definition_id"]) == ("contact", "kyc", 42)


def test_an_entry_of_another_target_is_skipped_and_not_asked_about() -> None:
    entries = [Entry("a", "account", 1), ENTRY, Entry("b", "account", 2)]
    assert entries_of(entries, "contact") == [ENTRY]
    told = results(decide(entries, "contact", GIVEN, [FINE]), {})
    assert [each["status"] for each in told] == ["skipped", "applied", "skipped"]


def test_a_later_entry_sees_what_an_earlier_one_wrote() -> None:
    entries = [Entry("a", "contact", 1), Entry("b", "contact", 1), Entry("c", "contact", 1)]
    verdicts = [FINE._replace(value="x"), FINE._replace(error="bad"), FINE._replace(value="z")]
    decided = decide(entries, "contact", {"a": "x", "b": "y", "c": "z"}, verdicts)
    assert changes(decided) == {"status": "z"}
    told = results(decided, {"status": "w"})
    assert [(each["status"], each["old_value"], each["new_value"]) for each in told] == [
        ("applied", "w", "x"),
        ("failed", "x", "y"),
        ("applied", "x", "z"),
    ]


def test_no_entries_write_nothing() -> None:
    assert decide([], "contact", GIVEN, []) == []
    assert results([], None) == []
