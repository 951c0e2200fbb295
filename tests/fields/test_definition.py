"""Which definitions may be (spec v1 §1.2, §1.3, D22, D24, D27), as rules and over the wire."""

import math
from typing import Any

import grpc
import pytest
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from hypothesis import given
from hypothesis import strategies as st

from services.fields.definition import violations
from services.runtime.values import struct_of
from tests.fields.conftest import Definitions, a_field
from tests.harness import Someone, failing

PLAIN = ("text", "number", "currency", "date", "datetime", "boolean", "url", "email")
PICKED = ("picklist", "multiselect")
RULELESS = ("text", "date", "datetime", "boolean", "url", "email", *PICKED)
ONE = [{"value": "a", "label": "A"}]


Choices = list[dict[str, str]]


def faults(field_type: str, options: Choices | None = None, rules: dict[str, Any] | None = None) -> set[str]:
    """The members at fault; a type with choices has some unless others are given."""
    if options is None and field_type in PICKED:
        options = ONE
    return {each.field for each in violations(field_type, options, rules)}


@pytest.mark.parametrize("field_type", PICKED)
@pytest.mark.parametrize(
    ("options", "at_fault"),
    [
        (ONE, set()),
        ([{"value": "a", "label": "Same"}, {"value": "b", "label": "Same"}], set()),
        ([{"value": "a", "label": "A"}, {"value": "A", "label": "A"}], set()),
        ([], {"picklist_options.options"}),
        ([{"value": "", "label": "A"}], {"picklist_options.options[0].value"}),
        ([{"value": "a", "label": ""}], {"picklist_options.options[0].label"}),
        ([{"value": " ", "label": "\t"}], {"picklist_options.options[0].value", "picklist_options.options[0].label"}),
        ([*ONE, *ONE], {"picklist_options.options[1].value"}),
        ([*ONE, *ONE, *ONE], {"picklist_options.options[1].value", "picklist_options.options[2].value"}),
    ],
    ids=lambda given: "" if isinstance(given, set) else ascii(given),
)
def test_choices_are_complete_and_distinct(field_type: str, options: Choices, at_fault: set[str]) -> None:
    assert faults(field_type, options) == at_fault


@pytest.mark.parametrize("field_type", PICKED)
def test_a_type_with_choices_needs_them(field_type: str) -> None:
    assert {each.field for each in violations(field_type, None, None)} == {"picklist_options.options"}


@pytest.mark.parametrize("field_type", PLAIN)
@pytest.mark.parametrize("options", [ONE, []], ids=["some", "none"])
def test_other_types_have_no_choices(field_type: str, options: Choices) -> None:
    assert faults(field_type, options) == {"picklist_options"}


@pytest.mark.parametrize("field_type", RULELESS)
@pytest.mark.parametrize("rule", ["min", "max", "currency", "pattern", ""])
def test_types_without_rules_take_none(field_type: str, rule: str) -> None:
    assert faults(field_type, rules={rule: 1}) == {f"validation_rules.{rule}"}
    assert faults(field_type, rules={}) == set()
    assert faults(field_type, rules=None) == set()


@pytest.mark.parametrize(
    ("field_type", "rules", "at_fault"),
    [
        ("number", {"min": 1, "max": 5}, set()),
        ("number", {"min": 5, "max": 5}, set()),
        ("number", {"min": -5}, set()),
        ("number", {"min": 5, "max": 1}, {"min"}),
        ("number", {"min": 1.5}, {"min"}),
        ("number", {"min": "1", "max": True}, {"min", "max"}),
        ("number", {"max": None}, {"max"}),
        ("number", {"max": math.nan}, {"max"}),
        ("number", {"currency": "USD"}, {"currency"}),
        ("number", {"step": 1, "min": "x"}, {"step", "min"}),
        ("currency", {"min": 0.5, "max": 99.99, "currency": "USD"}, set()),
        ("currency", {"min": 1, "max": 0.5}, {"min"}),
        ("currency", {"min": math.inf}, {"min"}),
        ("currency", {"max": [1]}, {"max"}),
        ("currency", {"currency": "usd"}, {"currency"}),
        ("currency", {"currency": "US"}, {"currency"}),
        ("currency", {"currency": "USDT"}, {"currency"}),
        ("currency", {"currency": "USD\n"}, {"currency"}),
        ("currency", {"currency": "ÄÖÜ"}, {"currency"}),
        ("currency", {"currency": 840}, {"currency"}),
        ("currency", {"currency": ""}, {"currency"}),
        ("currency", {"decimals": 2}, {"decimals"}),
    ],
    ids=lambda given: "" if isinstance(given, set) else ascii(given),
)
def test_rules_belong_to_the_type_and_make_sense(field_type: str, rules: dict[str, Any], at_fault: set[str]) -> None:
    assert faults(field_type, rules=rules) == {f"validation_rules.{name}" for name in at_fault}


@given(
    st.sampled_from((*PLAIN, *PICKED)),
    st.dictionaries(
        st.sampled_from(["min", "max", "currency", "x"]),
        st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.integers()) | st.integers(),
    ),
)
def test_any_rules_get_a_verdict(field_type: str, rules: dict[str, Any]) -> None:
    assert {field.partition(".")[0] for field in faults(field_type, rules=rules)} <= {"validation_rules"}


def test_everything_wrong_with_a_definition_is_told_at_once(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    request = a_field(
        "price",
        field_type="currency",
        picklist_options={"options": ONE},
        validation_rules=struct_of({"min": "x", "currency": "usd", "step": 1}),
    )
    failure = failing(fields.CreateCustomField, request, admin)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(failure.fields) == {
        "picklist_options",
        "validation_rules.min",
        "validation_rules.currency",
        "validation_rules.step",
    }


@pytest.mark.parametrize("field_type", PICKED)
def test_a_message_without_options_is_no_options(
    fields: CrmCustomFieldServiceStub, admin: Someone, field_type: str
) -> None:
    failure = failing(fields.CreateCustomField, a_field("size", field_type=field_type, picklist_options={}), admin)
    assert failure.fields == ["picklist_options.options"]


def test_rules_come_back_as_they_were_given(definitions: Definitions) -> None:
    rules = struct_of({"min": -1.5, "max": 99.99, "currency": "USD"})
    made = definitions.make(a_field("price", field_type="currency", validation_rules=rules))
    assert definitions.get(made.id).validation_rules == rules
    whole = struct_of({"min": 0, "max": 2**53})
    assert definitions.make(a_field("n", field_type="number", validation_rules=whole)).validation_rules == whole
