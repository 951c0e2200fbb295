"""Which values answer which fields, accepted and refused (spec v1 §2.5, D46–D52)."""

from typing import Any

import pytest

from services.forms.answers import judge
from services.forms.schema import Schema
from tests.forms.world import inline, options, reference, schema

PICK = {"picklist_options": options("a", "b", "c")}

# type, members of the field, values accepted, values refused
TYPES: list[tuple[str, dict[str, Any], list[Any], list[Any]]] = [
    ("text", {}, ["x", " ", "é" * 5000], [1, True, ["x"], {"a": "x"}]),
    ("text", {"validation": {"max_length": 3}}, ["abc", "ééé"], ["abcd"]),
    ("long_text", {"validation": {"max_length": 3}}, ["abc", "a\nb"], ["abcd", 5]),
    ("number", {}, [0, -5, 2**53], [1.5, "5", True, [1], 2.0**54, float("inf"), float("nan")]),
    ("number", {"validation": {"min": 1, "max": 3}}, [1, 3], [0, 4]),
    ("number", {"validation": {"min": 0}}, [0, 10**9], [-1]),
    ("currency", {}, [0, 12.5, -0.0001, 10], [0.00001, "12.50", False, float("nan")]),
    ("currency", {"validation": {"min": 0.5, "max": 2, "currency": "EUR"}}, [0.5, 2], [0.4999, 2.0001]),
    ("rating", {}, [1, 5], [0, 6, 2.5, "3", True]),
    ("rating", {"validation": {"max": 10}}, [1, 10], [0, 11]),
    ("rating", {"validation": {"min": 0}}, [0, 5], [-1, 6]),
    ("boolean", {}, [True, False], [0, 1, "true", ["x"]]),
    ("date", {}, ["2026-02-28", "2024-02-29"], ["2026-02-29", "2026-2-28", "2026-02-28T00:00:00Z", 20260228]),
    (
        "date",
        {"validation": {"min": "2026-01-01", "max": "2026-12-31"}},
        ["2026-01-01", "2026-12-31"],
        ["2025-12-31", "2027-01-01"],
    ),
    (
        "datetime",
        {},
        ["2026-01-31T09:30:00Z", "2026-01-31t09:30:00.5+05:45"],
        ["2026-01-31", "2026-01-31T09:30:00", "2026-01-31T25:00:00Z", 5],
    ),
    (
        "datetime",
        {"validation": {"min": "2026-01-01T10:00:00+02:00", "max": "2026-01-01T09:00:00Z"}},
        ["2026-01-01T08:00:00Z", "2026-01-01T14:45:00+05:45"],
        ["2026-01-01T07:59:59Z", "2026-01-01T09:00:00.000001Z", "2026-01-01T09:00:00+02:00"],
    ),
    ("url", {}, ["https://example.com/a?b=c"], ["example.com", "ftp://example.com", "https://", "javascript:1", 5]),
    ("email", {}, ["ada@example.com"], ["ada", "ada@localhost", "a b@example.com", ["ada@example.com"]]),
    ("phone", {}, ["+49 (30) 1234-567", "1234567"], ["123456", "+1234567890123456", "12345678 ext 5", 1234567]),
    ("picklist", PICK, ["a", "c"], ["d", "A", 1, ["a"], {"a": 1}]),
    ("multi_picklist", PICK, [["a"], ["c", "a"]], ["a", ["d"], ["a", "a"], [1], [["a"]], {"a": 1}]),
    (
        "file_upload",
        {},
        [["upload_7f3a1b2c"], ["upload_1", "upload_2"]],
        ["upload_1", ["file_1"], ["upload_"], ["upload_1", "upload_1"], [7], ["upload_1\n"], ["upload_" + "a" * 65]],
    ),
    ("file_upload", {"validation": {"max_files": 1}}, [["upload_1"]], [["upload_1", "upload_2"]]),
    ("signature", {}, ["upload_7f3a1b2c"], ["data:image/png;base64,AA", ["upload_1"], 5]),
]  # fmt: skip

ACCEPTED = [(kind, members, value) for kind, members, accepted, _ in TYPES for value in accepted]
REFUSED = [(kind, members, value) for kind, members, _, refused in TYPES for value in refused]


def judged(fields: list[dict[str, Any]], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    stored, wrong = judge(Schema.of(schema(*fields)), given)
    return stored, [each.field for each in wrong]


@pytest.mark.parametrize(("kind", "members", "value"), ACCEPTED)
def test_a_value_is_stored_as_it_was_given(kind: str, members: dict[str, Any], value: Any) -> None:
    assert judged([inline("a", kind, **members)], {"a": value}) == ({"a": value}, [])


@pytest.mark.parametrize(("kind", "members", "value"), REFUSED)
def test_a_value_is_refused_by_its_key(kind: str, members: dict[str, Any], value: Any) -> None:
    assert judged([inline("a", kind, **members)], {"a": value})[1] == ["values.a"]


@pytest.mark.parametrize("kind", sorted({kind for kind, *_ in TYPES}))
@pytest.mark.parametrize("value", [None, "", []], ids=repr)
def test_what_is_no_value_is_left_out(kind: str, value: Any) -> None:
    field = inline("a", kind, **PICK if "picklist" in kind else {})
    assert judged([field], {"a": value}) == ({}, [])
    assert judged([{**field, "required": True}], {"a": value}) == ({}, ["values.a"])


def test_a_missing_value_is_wrong_where_it_is_required_and_nowhere_else() -> None:
    fields = [inline("a", required=True), inline("b"), reference("c", 1, type="number", required=True)]
    assert judged(fields, {}) == ({}, ["values.a", "values.c"])


def test_false_and_zero_are_values() -> None:
    fields = [inline("a", "boolean", required=True), inline("b", "number", required=True)]
    assert judged(fields, {"a": False, "b": 0}) == ({"a": False, "b": 0}, [])


def test_unknown_keys_and_those_of_headers_are_wrong_even_without_a_value() -> None:
    fields = [{"key": "about", "kind": "section_header"}, inline("a")]
    assert judged(fields, {"a": "x", "about": "x", "other": None}) == ({"a": "x"}, ["values.about", "values.other"])


def test_a_reference_is_judged_by_what_it_copied() -> None:
    field = reference("a", 1, type="picklist", **PICK)
    assert judged([field], {"a": "a"}) == ({"a": "a"}, [])
    assert judged([field], {"a": "z"})[1] == ["values.a"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    fields = [inline("a", required=True), inline("b", "number"), inline("c", "url")]
    assert judged(fields, {"b": "x", "c": "x", "d": 1})[1] == ["values.a", "values.b", "values.c", "values.d"]
