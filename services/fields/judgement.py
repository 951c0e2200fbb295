"""Whether a value may stand in a custom field, and how it is stored. The one place that decides it.

spec v1 §1.3, §1.5, D22–D29.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from services.fields.definition import CustomField
from services.runtime.values import (
    decimals,
    is_number,
    is_whole,
    wrong_date,
    wrong_email,
    wrong_moment,
    wrong_url,
)

CURRENCY_DECIMALS = 4


class Verdict(NamedTuple):
    """The value as it is to be stored, or what is wrong with it."""

    value: Any
    error: str = ""


class Problem(NamedTuple):
    """What is wrong with the value under a key."""

    key: str
    message: str


def judge(definition: CustomField, value: Any) -> Verdict:
    """Judges one value by its definition, archived or not."""
    return _JUDGES[definition.field_type](definition, value)


def judge_all(definitions: Iterable[CustomField], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Judges a whole custom_fields map: the values as stored, and all that is wrong. None asks for removal."""
    by_key = {definition.key: definition for definition in definitions}
    stored: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in values.items():
        definition = by_key.get(key)
        if definition is None:
            problems.append(Problem(key, "is not a custom field of this record"))
        elif not definition.is_active:
            problems.append(Problem(key, "is archived"))
        elif value is None:
            stored[key] = None
        else:
            verdict = judge(definition, value)
            stored[key] = verdict.value
            if verdict.error:
                problems.append(Problem(key, verdict.error))
    return stored, problems


def _text(_definition: CustomField, value: Any) -> Verdict:
    return Verdict(value, "" if isinstance(value, str) else "must be a text")


def _number(definition: CustomField, value: Any) -> Verdict:
    if not is_whole(value):
        return Verdict(value, "must be a whole number")
    return Verdict(int(value), _out_of_bounds(definition, value))


def _currency(definition: CustomField, value: Any) -> Verdict:
    if not is_number(value):
        return Verdict(value, "must be a number")
    if decimals(value) > CURRENCY_DECIMALS:
        return Verdict(value, f"must have at most {CURRENCY_DECIMALS} decimals")
    return Verdict(value, _out_of_bounds(definition, value))


def _boolean(_definition: CustomField, value: Any) -> Verdict:
    return Verdict(value, "" if isinstance(value, bool) else "must be true or false")


def _picklist(definition: CustomField, value: Any) -> Verdict:
    return Verdict(value, "" if value in _choices(definition) else "must be one of the options")


def _multiselect(definition: CustomField, value: Any) -> Verdict:
    if not isinstance(value, list) or not value:
        return Verdict(value, "must be a list of one or more options")
    if any(each not in _choices(definition) for each in value):
        return Verdict(value, "must hold only options")
    if len(set(value)) != len(value):
        return Verdict(value, "must not hold an option twice")
    return Verdict(value)


def _shaped(wrong: Callable[[Any], str | None]) -> Callable[[CustomField, Any], Verdict]:
    return lambda _definition, value: Verdict(value, wrong(value) or "")


def _choices(definition: CustomField) -> list[str]:
    return [option["value"] for option in definition.picklist_options or ()]


def _out_of_bounds(definition: CustomField, value: float) -> str:
    rules = definition.validation_rules or {}
    if "min" in rules and value < rules["min"]:
        return f"must be at least {rules['min']}"
    if "max" in rules and value > rules["max"]:
        return f"must be at most {rules['max']}"
    return ""


_JUDGES: Mapping[str, Callable[[CustomField, Any], Verdict]] = {
    "text": _text,
    "number": _number,
    "currency": _currency,
    "date": _shaped(wrong_date),
    "datetime": _shaped(wrong_moment),
    "boolean": _boolean,
    "url": _shaped(wrong_url),
    "email": _shaped(wrong_email),
    "picklist": _picklist,
    "multiselect": _multiselect,
}
