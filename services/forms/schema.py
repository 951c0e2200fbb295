"""What a form may ask: its fields, their rules, and where answers go on a record.

spec v1 §2.3–2.7, D36, D39, D45–D48, D53. Rule numbers are those of §2.7; rule 1 (not empty) and the state of the form
are `lifecycle`'s.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from services.runtime.errors import Violation, report
from services.runtime.values import is_number, is_whole, moment_of, wrong_date, wrong_moment

KINDS = ("inline", "reference", "section_header")
TARGETS = ("contact", "account")
PICK_TYPES = frozenset({"picklist", "multi_picklist"})
ALIASES: Mapping[str, str] = {"multiselect": "multi_picklist"}
"""Types by another name, as custom fields call them; stored and shown under one (D53)."""
RULES: Mapping[str, frozenset[str]] = {
    "text": frozenset({"max_length"}),
    "long_text": frozenset({"max_length"}),
    "number": frozenset({"min", "max"}),
    "currency": frozenset({"min", "max", "currency"}),
    "rating": frozenset({"min", "max"}),
    "boolean": frozenset(),
    "date": frozenset({"min", "max"}),
    "datetime": frozenset({"min", "max"}),
    "url": frozenset(),
    "email": frozenset(),
    "phone": frozenset(),
    "picklist": frozenset(),
    "multi_picklist": frozenset(),
    "file_upload": frozenset({"max_files", "max_size_mb", "allowed_mime"}),
    "signature": frozenset(),
}
"""Every type of an inline field, and the members its `validation` may have."""
RATING = {"min": 1, "max": 5}
"""The bounds of a rating that gives none (D46)."""
RATING_RANGE = range(101)
MOST_DEFINITIONS = 500
"""How many custom fields a form may name; what the fields service answers in one question."""

_KEY = re.compile(r"[a-z][a-z0-9_]{0,99}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_MIME = re.compile(r"[\w.+-]+/([\w.+-]+|\*)", re.ASCII)
_OF_INLINE = ("type", "validation", "picklist_options")
"""What a reference copies from its definition at publish, and what an inline field says itself."""
_FOREIGN: Mapping[str, tuple[str, ...]] = {
    "inline": ("label_override", "custom_field_definition_id"),
    "reference": (),
    "section_header": ("label_override", "required", "custom_field_definition_id", *_OF_INLINE),
}
"""Members that have no meaning for a kind."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `picklist_options` is a list of {value, label}."""

    key: str = ""
    kind: str = ""
    label: str = ""
    label_override: str = ""
    required: bool = False
    type: str = ""
    validation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    custom_field_definition_id: int = 0
    picklist_options: Sequence[Mapping[str, str]] = ()

    @property
    def holds_value(self) -> bool:
        """Whether a submission may answer it."""
        return self.kind in ("inline", "reference")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one answer goes: the field's value becomes this custom field of the target."""

    field_key: str = ""
    target: str = ""
    custom_field_definition_id: int = 0


@dataclass(frozen=True, slots=True)
class Definition:
    """A custom field definition as forms need to know it; its type may be an alias."""

    id: int
    object_type: str
    is_active: bool
    type: str
    validation: Mapping[str, Any]
    picklist_options: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Schema:
    """What a form asks, in order, and where answers go, in order."""

    fields: Sequence[Field] = ()
    write_back: Sequence[Entry] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Schema":
        """The schema that a stored document is."""
        return cls(
            tuple(Field(**each) for each in document["fields"]), tuple(Entry(**each) for each in document["write_back"])
        )

    def document(self) -> dict[str, Any]:
        """The schema as it is stored; its members are those of the message."""
        return asdict(self)

    @property
    def data_fields(self) -> dict[str, Field]:
        """The fields that hold values, by key."""
        return {each.key: each for each in self.fields if each.holds_value}

    def definition_ids(self) -> list[int]:
        """The custom fields it names. Raises Invalid when there are more than MOST_DEFINITIONS."""
        named = {each.custom_field_definition_id for each in self.fields}
        named |= {each.custom_field_definition_id for each in self.write_back}
        found = sorted(each for each in named if each > 0)
        if len(found) > MOST_DEFINITIONS:
            report([Violation("schema", f"must name at most {MOST_DEFINITIONS} custom fields")])
        return found


def drafted(schema: Schema) -> Schema:
    """A schema as its author gave it, in the form it is kept.

    Aliases are resolved. What references copy at publish is left out, so that a schema that was read from a published
    version can be given back as it is.
    """
    return replace(schema, fields=tuple(_drafted(each) for each in schema.fields))


def frozen(schema: Schema, definitions: Mapping[int, Definition]) -> Schema:
    """A schema with what its references copy at publish: type, rules and options (D38)."""
    return replace(schema, fields=tuple(_frozen(each, definitions) for each in schema.fields))


def violations(schema: Schema, definitions: Mapping[int, Definition]) -> Iterator[Violation]:
    """Everything that breaks rules 2–7; `definitions` are those of the schema's that exist."""
    seen: set[str] = set()
    for index, field in enumerate(schema.fields):
        for member, message in _wrong_field(field, seen, definitions):
            yield Violation(f"schema.fields[{index}].{member}", message)
        seen.add(field.key)
    keys = schema.data_fields.keys()
    for index, entry in enumerate(schema.write_back):
        for member, message in _wrong_entry(entry, keys, definitions):
            yield Violation(f"schema.write_back[{index}].{member}", message)


Wrong = Iterator[tuple[str, str]]
"""Pairs of a member and what is wrong with it."""


def _drafted(field: Field) -> Field:
    if field.kind == "reference":
        return replace(field, type="", validation={}, picklist_options=())
    return replace(field, type=ALIASES.get(field.type, field.type))


def _frozen(field: Field, definitions: Mapping[int, Definition]) -> Field:
    if field.kind != "reference":
        return field
    definition = definitions[field.custom_field_definition_id]
    return replace(
        field,
        type=ALIASES.get(definition.type, definition.type),
        validation=definition.validation,
        picklist_options=definition.picklist_options,
    )


def _wrong_field(field: Field, seen: set[str], definitions: Mapping[int, Definition]) -> Wrong:
    if not _KEY.fullmatch(field.key):
        yield "key", "must be a lower-case identifier of at most 100 characters"
    elif field.key in seen:
        yield "key", f"'{field.key}' stands twice"
    if field.kind not in KINDS:
        yield "kind", f"must be one of {', '.join(KINDS)}"
        return
    if field.holds_value and not field.label.strip():
        yield "label", "must not be empty"
    for member in _FOREIGN[field.kind]:
        if getattr(field, member):
            yield member, f"is not a member of {field.kind} fields"
    if field.kind == "inline":
        yield from _wrong_type(field)
    elif field.kind == "reference":
        yield from _wrong_definition(field.custom_field_definition_id, TARGETS, definitions)


def _wrong_type(field: Field) -> Wrong:
    if field.type not in RULES:
        yield "type", f"must be one of {', '.join(RULES)}"
        return
    rules = field.validation
    known = RULES[field.type]
    for name in sorted(rules.keys() - known):
        yield f"validation.{name}", f"is not a rule of {field.type} fields"
    for name in sorted(rules.keys() & known):
        if message := _wrong_rule(field.type, name, rules[name]):
            yield f"validation.{name}", message
    yield from _wrong_bounds(field.type, rules)
    yield from _wrong_options(field)


def _wrong_rule(field_type: str, name: str, value: Any) -> str | None:
    if name in ("max_length", "max_files"):
        return None if is_whole(value) and value > 0 else "must be a whole number above 0"
    if name == "max_size_mb":
        return None if is_number(value) and value > 0 else "must be a number above 0"
    if name == "currency":
        return None if _is_text_of(_CURRENCY, value) else "must be three capital letters such as USD"
    if name == "allowed_mime":
        fits = isinstance(value, list) and value and all(_is_text_of(_MIME, each) for each in value)
        return None if fits else "must be a list of one or more types such as image/png or image/*"
    return _wrong_bound(field_type, value)


def _is_text_of(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _wrong_bound(field_type: str, value: Any) -> str | None:
    if field_type == "date":
        return wrong_date(value)
    if field_type == "datetime":
        return wrong_moment(value)
    if field_type == "currency":
        return None if is_number(value) else "must be a number"
    if not is_whole(value):
        return "must be a whole number"
    if field_type == "rating" and value not in RATING_RANGE:
        return f"must be from {RATING_RANGE[0]} to {RATING_RANGE[-1]}"
    return None


def _wrong_bounds(field_type: str, rules: Mapping[str, Any]) -> Wrong:
    """Whether min is above max, where both are well-formed."""
    bounds = {name: rules[name] for name in ("min", "max") if name in rules}
    if not bounds.keys() <= RULES[field_type] or any(_wrong_bound(field_type, each) for each in bounds.values()):
        return
    if bounds and field_type == "rating":
        bounds = RATING | bounds
    ordered = [moment_of(each) if field_type == "datetime" else each for each in bounds.values()]
    if ordered != sorted(ordered):
        yield "validation.min", "must not be above max"


def _wrong_options(field: Field) -> Wrong:
    if field.type not in PICK_TYPES:
        if field.picklist_options:
            yield "picklist_options", f"a {field.type} field has no options"
        return
    if not field.picklist_options:
        yield "picklist_options", f"a {field.type} field needs at least one option"
    seen: set[str] = set()
    for index, option in enumerate(field.picklist_options):
        for member in ("value", "label"):
            if not option[member].strip():
                yield f"picklist_options[{index}].{member}", "must not be empty"
        if option["value"] in seen:
            yield f"picklist_options[{index}].value", f"'{option['value']}' stands twice"
        seen.add(option["value"])


def _wrong_entry(entry: Entry, keys: Collection[str], definitions: Mapping[int, Definition]) -> Wrong:
    if entry.field_key not in keys:
        yield "field_key", "must be the key of an inline or reference field"
    if entry.target not in TARGETS:
        yield "target", f"must be one of {', '.join(TARGETS)}"
    wanted = (entry.target,) if entry.target in TARGETS else TARGETS
    yield from _wrong_definition(entry.custom_field_definition_id, wanted, definitions)


def _wrong_definition(definition_id: int, object_types: Sequence[str], definitions: Mapping[int, Definition]) -> Wrong:
    definition = definitions.get(definition_id)
    if definition is None:
        yield "custom_field_definition_id", "is no custom field"
    elif not definition.is_active:
        yield "custom_field_definition_id", "is archived"
    elif definition.object_type not in object_types:
        yield "custom_field_definition_id", f"is not a custom field of {' or '.join(object_types)}"
