"""Which value may stand in which field, and how it is stored (spec v1 §1.3, D22–D28)."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fields.definition import CustomField
from services.fields.judgement import Problem, judge, judge_all

NOW = datetime(2026, 1, 31, tzinfo=UTC)
OPTIONS = [{"value": value, "label": value.upper()} for value in ("pending", "approved", "")] + [
    {"value": "日本", "label": "Japan"}
]
TYPES = ("text", "number", "currency", "date", "datetime", "boolean", "url", "email", "picklist", "multiselect")


def defined(field_type: str, key: str = "field", **changed: Any) -> CustomField:
    members: dict[str, Any] = {
        "id": 1,
        "organization_id": 1,
        "object_type": "contact",
        "key": key,
        "label": "Field",
        "field_type": field_type,
        "picklist_options": OPTIONS if field_type in ("picklist", "multiselect") else None,
        "validation_rules": None,
        "section": "",
        "position": 0,
        "is_active": True,
        "deal_pipeline_id": 0,
        "document_template_id": 0,
        "created_at": NOW,
        "updated_at": NOW,
        **changed,
    }
    return CustomField(**members)


ACCEPTED: dict[str, list[Any]] = {
    "text": ["", " ", "a", "x" * 10_000, "5", "日本\n"],
    "number": [0, 5, -5, 2**53, -(2**53)],
    "currency": [0, 5, -5, 0.5, 1.2345, -0.0001, 1e15, 12345678.9],
    "date": ["2026-01-31", "2024-02-29", "0001-01-01", "9999-12-31"],
    "datetime": [
        "2026-01-31T09:30:00Z",
        "2026-01-31t09:30:00z",
        "2026-01-31T09:30:00+05:45",
        "2026-01-31T09:30:00-00:00",
        "2026-01-31T09:30:00.5Z",
        "2026-01-31T09:30:00.123456789Z",
    ],
    "boolean": [True, False],
    "url": [
        "http://example.com",
        "https://example.com/a?b=c#d",
        "HTTPS://EXAMPLE.COM",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
        "https://jo:pw@example.com/",
        "https://münchen.example/straße",
        "https://example.com/" + "x" * 2028,
    ],
    "email": ["jo@example.com", "Jo.O'Neil+tag@sub.example.co.uk", "jo@münchen.example", "j" * 60 + "@example.com"],
    "picklist": ["pending", "approved", "日本"],
    "multiselect": [["pending"], ["approved", "pending"], ["日本", "pending", "approved"]],
}
REFUSED: dict[str, list[Any]] = {
    "text": [5, True, None, [], {}, ["a"]],
    "number": ["5", 5.5, True, False, None, [5], {}, "", math.nan, math.inf, -math.inf, 2.0**53 + 2, 1e300],
    "currency": ["5", "USD 5", True, None, [5], {}, 0.00001, 1.23456, math.nan, math.inf, -math.inf, 1e-7],
    "date": [
        "2026-02-29",
        "2026-13-01",
        "2026-1-31",
        "20260131",
        "2026-01-31T00:00:00Z",
        " 2026-01-31",
        "2026-01-31\n",
        "31.01.2026",
        "0000-01-01",
        "٢٠٢٦-01-31",
        "",
        20260131,
        None,
        True,
        [],
    ],
    "datetime": [
        "2026-01-31",
        "2026-01-31T09:30:00",
        "2026-01-31T09:30Z",
        "2026-01-31 09:30:00Z",
        "2026-02-30T09:30:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T09:60:00Z",
        "2026-01-31T09:30:00+0545",
        "2026-01-31T09:30:00+25:00",
        "2026-01-31T09:30:00Z\n",
        "2026-01-31T09:30:0٠Z",
        "now",
        "",
        1769851800,
        None,
        True,
    ],
    "boolean": ["true", "", 0, 1, None, [], {}],
    "url": [
        "example.com",
        "//example.com",
        "/path",
        "ftp://example.com",
        "javascript:alert(1)",
        "http://",
        "https:///path",
        "http:example.com",
        "https:/example.com",
        "http://exa mple.com",
        " http://example.com",
        "http://example.com\n",
        "https://example.com/" + "x" * 2029,
        "",
        5,
        None,
        True,
        ["http://example.com"],
    ],
    "email": [
        "jo",
        "jo@",
        "@example.com",
        "jo@localhost",
        "jo@@example.com",
        "jo@a@example.com",
        "jo o@example.com",
        " jo@example.com",
        "jo@example.com ",
        "jo@example.com\n",
        "Jo <jo@example.com>",
        "jo@example..com",
        "jo@.example.com",
        "j" * 250 + "@example.com",
        "",
        5,
        None,
        True,
    ],
    "picklist": ["Pending", "PENDING", "pending ", "unknown", ["pending"], 0, True, None, {}],
    "multiselect": [
        [],
        "pending",
        ["pending", "pending"],
        ["pending", "unknown"],
        [None],
        [["pending"]],
        [{}],
        {"pending": True},
        None,
        True,
    ],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(field_type, value, id=f"{field_type}-{index}-{ascii(value)[:40]}")
        for field_type, values in table.items()
        for index, value in enumerate(values)
    ]


def test_the_tables_know_every_type() -> None:
    assert set(ACCEPTED) == set(REFUSED) == set(TYPES)


@pytest.mark.parametrize(("field_type", "value"), cases(ACCEPTED))
def test_a_value_that_fits_is_stored_as_given(field_type: str, value: Any) -> None:
    verdict = judge(defined(field_type), value)
    assert verdict.error == ""
    assert verdict.value == value
    assert type(verdict.value) is type(value)


@pytest.mark.parametrize(("field_type", "value"), cases(REFUSED))
def test_a_value_that_does_not_fit_is_refused(field_type: str, value: Any) -> None:
    assert judge(defined(field_type), value).error


@pytest.mark.parametrize("value", [5.0, -0.0, 1e15])
def test_a_whole_number_is_stored_as_an_integer_however_it_was_written(value: float) -> None:
    verdict = judge(defined("number"), value)
    assert (verdict.value, type(verdict.value)) == (int(value), int)


@pytest.mark.parametrize(
    ("field_type", "rules", "value", "fits"),
    [
        ("number", {"min": 3}, 3, True),
        ("number", {"min": 3}, 2, False),
        ("number", {"max": 3}, 3, True),
        ("number", {"max": 3}, 4, False),
        ("number", {"min": 3, "max": 3}, 3, True),
        ("number", {"min": 0}, -1, False),
        ("number", {"max": 0}, 1, False),
        ("number", {"max": -5}, -5, True),
        ("currency", {"min": 0.5}, 0.5, True),
        ("currency", {"min": 0.5}, 0.4999, False),
        ("currency", {"max": 99.99}, 99.99, True),
        ("currency", {"max": 99.99}, 100, False),
        ("currency", {"currency": "USD"}, 5, True),
        ("currency", {"min": 0, "max": 10, "currency": "EUR"}, 11, False),
    ],
)
def test_bounds_are_inclusive_and_a_currency_is_only_told(
    field_type: str, rules: dict[str, Any], value: float, fits: bool
) -> None:
    assert (judge(defined(field_type, validation_rules=rules), value).error == "") is fits


def test_an_archived_field_is_judged_like_any_other_by_itself() -> None:
    assert judge(defined("number", is_active=False), 5).error == ""


def test_a_map_is_judged_whole() -> None:
    fields = [defined("number", "age"), defined("text", "name"), defined("text", "old", is_active=False)]
    given = {"age": 5.0, "name": None, "size": 1, "old": "x"}
    stored, problems = judge_all(fields, given)
    assert (stored["age"], stored["name"]) == (5, None)
    assert [each.key for each in problems] == ["size", "old"]
    assert judge_all(fields, {"age": "5", "name": 5, "size": None})[1] == [
        Problem("age", "must be a whole number"),
        Problem("name", "must be a text"),
        Problem("size", "is not a custom field of this record"),
    ]
    assert judge_all(fields, {}) == ({}, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.sampled_from(TYPES), JSON)
def test_any_json_value_gets_a_verdict_and_what_is_stored_is_good_again(field_type: str, value: Any) -> None:
    definition = defined(field_type)
    verdict = judge(definition, value)
    if not verdict.error:
        assert judge(definition, verdict.value) == verdict
