"""The rules a schema obeys, one case per rule and way to break it (spec v1 §2.7)."""

from typing import Any

import pytest

from services.forms.schema import Definition, Schema, drafted, frozen, violations
from services.runtime.errors import Invalid
from tests.forms.world import entry, inline, options, reference, schema

DEFINITIONS = {
    1: Definition(1, "contact", True, "picklist", {}, options("a", "b")),
    2: Definition(2, "account", True, "number", {"min": 1}, ()),
    3: Definition(3, "contact", False, "text", {}, ()),
    4: Definition(4, "deal", True, "text", {}, ()),
    5: Definition(5, "contact", True, "multiselect", {}, options("x")),
}
TEXT = inline("note")
HEADER = {"key": "about", "kind": "section_header"}


def read(asked: dict[str, Any]) -> Schema:
    return drafted(Schema.of(asked))


def paths(asked: dict[str, Any]) -> list[str]:
    return [each.field.removeprefix("schema.") for each in violations(read(asked), DEFINITIONS)]


RIGHT: dict[str, dict[str, Any]] = {
    "nothing at all": schema(),
    "headers alone": schema(HEADER),
    "a header with a label": schema({**HEADER, "label": "About you"}),
    "the longest key": schema(inline("a" * 100)),
    "an override of a reference": schema(reference("a", 1, label_override="Other")),
    "a required reference": schema(reference("a", 1, required=True)),
    "a reference of an account": schema(reference("a", 2)),
    "a reference as it is read from a published form": schema(
        reference("a", 1, type="picklist", picklist_options=options("old"), validation={"min": 3})
    ),
    "two references of one definition": schema(reference("a", 1), reference("b", 1)),
    "two write-backs of one field": schema(TEXT, write_back=[entry("note", 1), entry("note", 2, "account")]),
    "a write-back of a reference": schema(reference("a", 1), write_back=[entry("a", 1)]),
    "equal bounds": schema(inline("a", "number", validation={"min": 3, "max": 3})),
    "one bound": schema(inline("a", "number", validation={"max": -3})),
    "whole bounds written as decimals": schema(inline("a", "number", validation={"max": 3.0})),
    "a rating from 0 to 100": schema(inline("a", "rating", validation={"min": 0, "max": 100})),
    "a rating's lower bound alone": schema(inline("a", "rating", validation={"min": 5})),
    "an amount with decimals and a currency": schema(
        inline("a", "currency", validation={"min": 0.5, "max": 9.75, "currency": "USD"})
    ),
    "bounds of a date": schema(inline("a", "date", validation={"min": "2026-01-01", "max": "2026-01-01"})),
    "bounds of a date-time in two zones": schema(
        inline("a", "datetime", validation={"min": "2026-01-01T10:00:00+02:00", "max": "2026-01-01T09:00:00Z"})
    ),
    "rules of a text": schema(inline("a", "text", validation={"max_length": 1})),
    "rules of a long text": schema(inline("a", "long_text", validation={"max_length": 10000})),
    "rules of an upload": schema(
        inline(
            "a",
            "file_upload",
            validation={"max_files": 2, "max_size_mb": 0.5, "allowed_mime": ["image/*", "application/vnd.a+xml"]},
        )
    ),
    "a picklist": schema(inline("a", "picklist", picklist_options=options("x"))),
    "multiselect by its other name": schema(inline("a", "multiselect", picklist_options=options("x"))),
    **{
        f"a {each} without rules": schema(inline("a", each))
        for each in (
            "text", "long_text", "number", "currency", "rating", "boolean", "date", "datetime", "url", "email", "phone",
            "file_upload", "signature",
        )
    },
}  # fmt: skip

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    # 2: keys valid and unique
    "no key": (schema(inline("", label="A")), ["fields[0].key"]),
    "a capital in a key": (schema(inline("Kyc")), ["fields[0].key"]),
    "a key that begins with a digit": (schema(inline("1a")), ["fields[0].key"]),
    "a dash in a key": (schema(inline("a-b")), ["fields[0].key"]),
    "a line break after a key": (schema(inline("a\n")), ["fields[0].key"]),
    "a key that is too long": (schema(inline("a" * 101)), ["fields[0].key"]),
    "a key twice": (schema(TEXT, TEXT), ["fields[1].key"]),
    "a key thrice": (schema(TEXT, TEXT, TEXT), ["fields[1].key", "fields[2].key"]),
    "a header's key again": (schema(HEADER, inline("about")), ["fields[1].key"]),
    "a header without a key": (schema({"kind": "section_header"}), ["fields[0].key"]),
    # 3: kind, type, options
    "no kind": (schema({"key": "a", "label": "A"}), ["fields[0].kind"]),
    "an unknown kind": (schema({"key": "a", "label": "A", "kind": "computed"}), ["fields[0].kind"]),
    "no type": (schema(inline("a", "")), ["fields[0].type"]),
    "an unknown type": (schema(inline("a", "colour")), ["fields[0].type"]),
    "a picklist without options": (schema(inline("a", "picklist")), ["fields[0].picklist_options"]),
    "a multi-picklist without options": (schema(inline("a", "multi_picklist")), ["fields[0].picklist_options"]),
    "a multiselect without options": (schema(inline("a", "multiselect")), ["fields[0].picklist_options"]),
    "an option without a value": (
        schema(inline("a", "picklist", picklist_options=[{"value": "", "label": "X"}])),
        ["fields[0].picklist_options[0].value"],
    ),
    "an option without a label": (
        schema(inline("a", "picklist", picklist_options=[{"value": "x", "label": " "}])),
        ["fields[0].picklist_options[0].label"],
    ),
    "an option twice": (
        schema(inline("a", "multi_picklist", picklist_options=options("x", "y", "x"))),
        ["fields[0].picklist_options[2].value"],
    ),
    "options of a text": (
        schema(inline("a", "text", picklist_options=options("x"))),
        ["fields[0].picklist_options"],
    ),
    "an override of an inline field": (schema(inline("a", label_override="B")), ["fields[0].label_override"]),
    "a definition of an inline field": (
        schema(inline("a", custom_field_definition_id=1)),
        ["fields[0].custom_field_definition_id"],
    ),
    "a required header": (schema({**HEADER, "required": True}), ["fields[0].required"]),
    "a header with a type": (schema({**HEADER, "type": "text"}), ["fields[0].type"]),
    "a header with rules": (schema({**HEADER, "validation": {"min": 1}}), ["fields[0].validation"]),
    "a header with options": (
        schema({**HEADER, "picklist_options": options("x")}),
        ["fields[0].picklist_options"],
    ),
    "a header with a definition": (
        schema({**HEADER, "custom_field_definition_id": 1}),
        ["fields[0].custom_field_definition_id"],
    ),
    # 4: labels
    "an inline field without a label": (schema(inline("a", label="")), ["fields[0].label"]),
    "a label of blanks": (schema(inline("a", label="  ")), ["fields[0].label"]),
    "a reference without a label": (schema(reference("a", 1, label="", label_override="B")), ["fields[0].label"]),
    # 5: rules by type
    **{
        f"{name} of a {kind}": (schema(inline("a", kind, validation={name: 1})), [f"fields[0].validation.{name}"])
        for kind, name in (
            ("text", "min"), ("long_text", "max"), ("number", "max_length"), ("number", "currency"),
            ("currency", "max_length"), ("rating", "step"), ("boolean", "min"), ("date", "max_length"),
            ("datetime", "currency"), ("url", "max_length"), ("email", "max_length"), ("phone", "max_length"),
            ("file_upload", "min"), ("signature", "max_size_mb"),
        )
    },
    "rules of a picklist": (
        schema(inline("a", "picklist", picklist_options=options("x"), validation={"max_length": 3})),
        ["fields[0].validation.max_length"],
    ),
    **{
        f"{value!r} as {name} of a {kind}": (
            schema(inline("a", kind, validation={name: value})),
            [f"fields[0].validation.{name}"],
        )
        for kind, name, values in (
            ("text", "max_length", (0, -1, 1.5, "5", True, None)),
            ("long_text", "max_length", (0,)),
            ("number", "min", (1.5, "1", None, False)),
            ("number", "max", (float("nan"), float("inf"))),
            ("currency", "min", ("1", None, float("nan"))),
            ("currency", "currency", ("usd", "US", "DOLLAR", 840, None)),
            ("rating", "min", (-1, 0.5)),
            ("rating", "max", (101, "5")),
            ("date", "min", ("2026-02-30", "2026-2-1", 20260101)),
            ("datetime", "max", ("2026-01-01", "2026-01-01T10:00:00", None)),
            ("file_upload", "max_files", (0, 1.5, "2")),
            ("file_upload", "max_size_mb", (0, -1, "5")),
            ("file_upload", "allowed_mime", ([], "image/png", ["png"], ["image/png", 5], ["*/*"])),
        )
        for value in values
    },
    **{
        f"a {kind} whose min is above its max": (
            schema(inline("a", kind, validation={"min": low, "max": high})),
            ["fields[0].validation.min"],
        )
        for kind, low, high in (
            ("number", 2, 1),
            ("currency", 1.5, 1.25),
            ("rating", 4, 3),
            ("date", "2026-01-02", "2026-01-01"),
            ("datetime", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00+02:00"),
        )
    },
    "a rating above the bound it does not give": (
        schema(inline("a", "rating", validation={"min": 6})),
        ["fields[0].validation.min"],
    ),
    "a rating below the bound it does not give": (
        schema(inline("a", "rating", validation={"max": 0})),
        ["fields[0].validation.min"],
    ),
    # 6: definitions
    "a reference of nothing": (schema(reference("a", 0)), ["fields[0].custom_field_definition_id"]),
    "a reference below nothing": (schema(reference("a", -1)), ["fields[0].custom_field_definition_id"]),
    "an unknown reference": (schema(reference("a", 99)), ["fields[0].custom_field_definition_id"]),
    "an archived reference": (schema(reference("a", 3)), ["fields[0].custom_field_definition_id"]),
    "a reference of a deal": (schema(reference("a", 4)), ["fields[0].custom_field_definition_id"]),
    "an unknown write-back": (
        schema(TEXT, write_back=[entry("note", 99)]),
        ["write_back[0].custom_field_definition_id"],
    ),
    "an archived write-back": (
        schema(TEXT, write_back=[entry("note", 3)]),
        ["write_back[0].custom_field_definition_id"],
    ),
    # 7: write-back
    "a write-back of no field": (schema(TEXT, write_back=[entry("", 1)]), ["write_back[0].field_key"]),
    "a write-back of an unknown field": (schema(TEXT, write_back=[entry("other", 1)]), ["write_back[0].field_key"]),
    "a write-back of a header": (schema(HEADER, write_back=[entry("about", 1)]), ["write_back[0].field_key"]),
    "a write-back to nowhere": (schema(TEXT, write_back=[entry("note", 1, "")]), ["write_back[0].target"]),
    "a write-back to a deal": (schema(TEXT, write_back=[entry("note", 1, "deal")]), ["write_back[0].target"]),
    "a write-back to another kind of record": (
        schema(TEXT, write_back=[entry("note", 2), entry("note", 1, "account")]),
        ["write_back[0].custom_field_definition_id", "write_back[1].custom_field_definition_id"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", RIGHT.values(), ids=RIGHT)
def test_a_schema_obeys_the_rules(asked: dict[str, Any]) -> None:
    assert paths(asked) == []


@pytest.mark.parametrize(("asked", "expected"), WRONG.values(), ids=WRONG)
def test_a_broken_rule_is_named_with_its_path(asked: dict[str, Any], expected: list[str]) -> None:
    assert paths(asked) == expected


def test_everything_that_is_wrong_is_told_at_once() -> None:
    asked = schema(
        inline("Bad", "number", label="", validation={"step": 1, "min": "x"}),
        reference("a", 99),
        inline("a", "picklist"),
        write_back=[entry("b", 3, "deal")],
    )
    assert paths(asked) == [
        "fields[0].key",
        "fields[0].label",
        "fields[0].validation.step",
        "fields[0].validation.min",
        "fields[1].custom_field_definition_id",
        "fields[2].key",
        "fields[2].picklist_options",
        "write_back[0].field_key",
        "write_back[0].target",
        "write_back[0].custom_field_definition_id",
    ]


def test_multiselect_is_kept_by_its_other_name() -> None:
    kept = read(schema(inline("a", "multiselect", picklist_options=options("x"))))
    assert kept.fields[0].type == "multi_picklist"


def test_a_draft_keeps_nothing_of_what_its_references_copy_at_publish() -> None:
    kept = read(schema(reference("a", 1, type="text", validation={"min": 1}, picklist_options=options("old"))))
    assert (kept.fields[0].type, kept.fields[0].validation, kept.fields[0].picklist_options) == ("", {}, ())


def test_freezing_copies_type_rules_and_options_into_references_alone() -> None:
    asked = read(schema(reference("a", 1), reference("b", 2), reference("c", 5), TEXT))
    picked, number, several, text = frozen(asked, DEFINITIONS).fields
    assert (picked.type, picked.validation, picked.picklist_options) == ("picklist", {}, options("a", "b"))
    assert (number.type, number.validation, number.picklist_options) == ("number", {"min": 1}, ())
    assert (several.type, several.picklist_options) == ("multi_picklist", options("x"))
    assert text == asked.fields[3]


def test_a_schema_is_read_as_it_was_stored() -> None:
    asked = frozen(read(schema(reference("a", 1), TEXT, HEADER, write_back=[entry("a", 1)])), DEFINITIONS)
    assert Schema.of(asked.document()) == asked


def test_a_schema_names_its_definitions_once_each() -> None:
    asked = read(schema(reference("a", 2), TEXT, reference("b", 2), write_back=[entry("a", 5), entry("a", -1)]))
    assert asked.definition_ids() == [2, 5]


def test_a_schema_names_no_more_definitions_than_one_question_holds() -> None:
    most = schema(*(reference(f"a{n}", n) for n in range(1, 401)), write_back=[entry("a1", n) for n in range(301, 501)])
    assert len(read(most).definition_ids()) == 500
    most["write_back"].append(entry("a1", 501))
    with pytest.raises(Invalid) as refused:
        read(most).definition_ids()
    assert [each.field for each in refused.value.violations] == ["schema"]
