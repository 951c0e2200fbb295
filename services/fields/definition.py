"""What a custom field definition may be: options where the type has choices, rules that belong to the type.

spec v1 §1.2, §1.3, D22, D24, D27.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.runtime.errors import Violation
from services.runtime.values import is_number, is_whole

PICK_TYPES = frozenset({"picklist", "multiselect"})
RULES_BY_TYPE: Mapping[str, frozenset[str]] = {
    "number": frozenset({"min", "max"}),
    "currency": frozenset({"min", "max", "currency"}),
}
"""The members validation_rules may have; other types have none."""
CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class CustomField:
    """A definition. `picklist_options` is a list of {value, label}; both documents are None when there is nothing."""

    id: int
    organization_id: int
    object_type: str
    key: str
    label: str
    field_type: str
    picklist_options: list[dict[str, str]] | None
    validation_rules: dict[str, Any] | None
    section: str
    position: int
    is_active: bool
    deal_pipeline_id: int
    document_template_id: int
    created_at: datetime
    updated_at: datetime

    def belongs_to(self, deal_pipeline_id: int, document_template_id: int) -> bool:
        """Whether records of this deal pipeline and document template have it; 0 = none of either."""
        return self.deal_pipeline_id in (0, deal_pipeline_id) and self.document_template_id in (0, document_template_id)


def violations(
    field_type: str, options: list[dict[str, str]] | None, rules: dict[str, Any] | None
) -> Iterator[Violation]:
    """Everything wrong with a definition's options and rules."""
    yield from _wrong_options(field_type, options)
    yield from _wrong_rules(field_type, rules or {})


def _wrong_options(field_type: str, options: list[dict[str, str]] | None) -> Iterator[Violation]:
    if field_type not in PICK_TYPES:
        if options is not None:
            yield Violation("picklist_options", f"a {field_type} field has no options")
        return
    if not options:
        yield Violation("picklist_options.options", f"a {field_type} field needs at least one option")
        return
    seen: set[str] = set()
    for index, option in enumerate(options):
        path = f"picklist_options.options[{index}]"
        for member in ("value", "label"):
            if not option[member].strip():
                yield Violation(f"{path}.{member}", "must not be empty")
        if option["value"] in seen:
            yield Violation(f"{path}.value", f"'{option['value']}' stands twice")
        seen.add(option["value"])


def _wrong_rules(field_type: str, rules: Mapping[str, Any]) -> Iterator[Violation]:
    known = RULES_BY_TYPE.get(field_type, frozenset())
    for name in sorted(rules.keys() - known):
        yield Violation(f"validation_rules.{name}", f"is not a rule of {field_type} fields")
    fits = is_whole if field_type == "number" else is_number
    for bound in sorted({"min", "max"} & rules.keys() & known):
        if not fits(rules[bound]):
            yield Violation(
                f"validation_rules.{bound}", "must be a whole number" if fits is is_whole else "must be a number"
            )
    bounds = [rules[bound] for bound in ("min", "max") if is_number(rules.get(bound))]
    if bounds != sorted(bounds):
        yield Violation("validation_rules.min", "must not be above max")
    if "currency" in rules and "currency" in known and not _is_currency(rules["currency"]):
        yield Violation("validation_rules.currency", "must be three capital letters such as USD")


def _is_currency(value: Any) -> bool:
    return isinstance(value, str) and CURRENCY.fullmatch(value) is not None
