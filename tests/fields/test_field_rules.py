"""What the services that keep values ask of fields (spec v1 §1.5): one question, verdicts for all values."""

import math
from typing import Any

import grpc
import pytest
from crm.fields.v1 import field_rules_service_pb2 as pb
from crm.fields.v1.field_rules_service_pb2_grpc import FieldRulesServiceStub
from google.protobuf import struct_pb2

from services.runtime.values import plain, plain_value, struct_of, value_of
from tests.fields.conftest import Definitions, a_field, kyc_status
from tests.harness import Houses, Someone, failing


def judged(rules: FieldRulesServiceStub, who: Someone, values: dict[str, Any], **scope: Any) -> pb.JudgeValuesResponse:
    request = pb.JudgeValuesRequest(object_type="contact", values=struct_of(values))
    request.MergeFrom(pb.JudgeValuesRequest(**scope))
    return rules.JudgeValues(request, metadata=who.metadata())


def test_good_values_come_back_as_they_are_to_be_stored(
    rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    definitions.make(kyc_status())
    definitions.make(a_field("age", field_type="number"))
    definitions.make(
        a_field("tags", field_type="multiselect", picklist_options={"options": [{"value": "a", "label": "A"}]})
    )
    values = {"kyc_status": "approved", "age": 44.0, "tags": ["a"]}
    answer = judged(rules, admin, values)
    assert not answer.violations
    assert plain(answer.values) == values


def test_null_asks_for_removal_and_needs_a_known_key(
    rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    definitions.make(kyc_status())
    assert plain(judged(rules, admin, {"kyc_status": None}).values) == {"kyc_status": None}
    assert [each.key for each in judged(rules, admin, {"unknown": None}).violations] == ["unknown"]


def test_all_that_is_wrong_is_told_and_nothing_is_to_be_stored(
    rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    definitions.make(kyc_status())
    definitions.make(a_field("age", field_type="number"))
    definitions.archive(definitions.make(a_field("old")).id)
    definitions.make(a_field("of_deals", object_type="deal"))
    given = {"kyc_status": "maybe", "age": "44", "old": "x", "of_deals": "x", "unknown": 1, "": 2}
    answer = judged(rules, admin, given)
    assert {each.key for each in answer.violations} == set(given)
    assert all(each.message for each in answer.violations)
    assert not answer.HasField("values")


def test_no_values_are_good_values(rules: FieldRulesServiceStub, admin: Someone) -> None:
    answer = judged(rules, admin, {})
    assert not answer.violations
    assert answer.HasField("values")
    assert plain(answer.values) == {}


def test_numbers_that_json_has_not_are_refused(
    rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    definitions.make(a_field("age", field_type="number"))
    definitions.make(a_field("price", field_type="currency"))
    for number in (math.nan, math.inf, -math.inf):
        for key in ("age", "price"):
            request = pb.JudgeValuesRequest(object_type="contact")
            request.values.fields[key].number_value = number
            answer = rules.JudgeValues(request, metadata=admin.metadata())
            assert [each.key for each in answer.violations] == [key]


def test_another_organisations_definitions_count_for_nothing(
    houses: Houses, rules: FieldRulesServiceStub, definitions: Definitions
) -> None:
    definitions.make(kyc_status())
    stranger = houses.someone(organization_id=2)
    assert [each.key for each in judged(rules, stranger, {"kyc_status": "approved"}).violations] == ["kyc_status"]


def test_a_scoped_definition_is_a_field_of_its_scope_alone(
    rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    """Design §9: a definition may be scoped by deal pipeline or document template, 0 = everywhere."""
    definitions.make(a_field("anywhere", object_type="deal"))
    definitions.make(a_field("of_7", object_type="deal", deal_pipeline_id=7))
    definitions.make(a_field("of_template", object_type="quotation", document_template_id=3))

    def wrong(object_type: str, key: str, **scope: int) -> list[str]:
        request = pb.JudgeValuesRequest(object_type=object_type, values=struct_of({key: "x"}), **scope)
        return [each.key for each in rules.JudgeValues(request, metadata=admin.metadata()).violations]

    assert wrong("deal", "anywhere") == wrong("deal", "anywhere", deal_pipeline_id=7) == []
    assert wrong("deal", "of_7", deal_pipeline_id=7) == []
    assert wrong("deal", "of_7", deal_pipeline_id=8) == wrong("deal", "of_7") == ["of_7"]
    assert wrong("quotation", "of_template", document_template_id=3) == []
    assert wrong("quotation", "of_template") == ["of_template"]


@pytest.mark.parametrize("object_type", ["", "invoice", "CONTACT"])
def test_an_unknown_kind_of_record_is_refused(rules: FieldRulesServiceStub, admin: Someone, object_type: str) -> None:
    failure = failing(rules.JudgeValues, pb.JudgeValuesRequest(object_type=object_type), admin)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["object_type"])


def entry(definition_id: int, value: Any) -> pb.DefinitionValue:
    return pb.DefinitionValue(custom_field_definition_id=definition_id, value=value_of(value))


def test_values_by_definition_get_a_verdict_each_in_order(
    houses: Houses, rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    age = definitions.make(a_field("age", field_type="number", object_type="account"))
    old = definitions.archive(definitions.make(a_field("old")).id)
    entries = [entry(old.id, "x"), entry(age.id, 44.0), entry(99, "x"), entry(age.id, "44"), entry(age.id, None)]
    request = pb.JudgeDefinitionValuesRequest(entries=entries)
    verdicts = rules.JudgeDefinitionValues(request, metadata=houses.someone("viewer").metadata()).verdicts
    assert [each.custom_field_definition_id for each in verdicts] == [old.id, age.id, 99, age.id, age.id]
    assert [(each.object_type, each.key, each.is_active) for each in verdicts] == [
        ("contact", "old", False),
        ("account", "age", True),
        ("", "", False),
        ("account", "age", True),
        ("account", "age", True),
    ]
    assert [plain_value(each.value) for each in verdicts[:2]] == ["x", 44]
    assert [bool(each.error) for each in verdicts] == [False, False, False, True, True]


def test_a_value_that_is_not_there_is_judged_as_null(
    rules: FieldRulesServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = definitions.make(a_field("name"))
    entries = [pb.DefinitionValue(custom_field_definition_id=made.id)]
    request = pb.JudgeDefinitionValuesRequest(entries=[*entries, entry(made.id, None)])
    verdicts = rules.JudgeDefinitionValues(request, metadata=admin.metadata()).verdicts
    assert verdicts[0].error == verdicts[1].error != ""


def test_definitions_are_read_in_one_batch_archived_ones_too(
    houses: Houses, rules: FieldRulesServiceStub, definitions: Definitions
) -> None:
    made = [definitions.make(a_field(key)) for key in "abc"]
    archived = definitions.archive(made[1].id)
    request = pb.BatchGetCustomFieldsRequest(ids=[made[2].id, 99, archived.id, made[2].id])
    answer = rules.BatchGetCustomFields(request, metadata=houses.someone("viewer").metadata())
    assert list(answer.definitions) == [archived, made[2]]
    stranger = houses.someone(organization_id=2)
    assert not rules.BatchGetCustomFields(request, metadata=stranger.metadata()).definitions


@pytest.mark.parametrize(
    ("rpc", "request_", "field"),
    [
        ("BatchGetCustomFields", pb.BatchGetCustomFieldsRequest(ids=range(1, 502)), "ids"),
        (
            "JudgeDefinitionValues",
            pb.JudgeDefinitionValuesRequest(
                entries=[pb.DefinitionValue(custom_field_definition_id=1, value=struct_pb2.Value())] * 501
            ),
            "entries",
        ),
    ],
    ids=["ids", "entries"],
)
def test_a_batch_has_a_bound(rules: FieldRulesServiceStub, admin: Someone, rpc: str, request_: Any, field: str) -> None:
    failure = failing(getattr(rules, rpc), request_, admin)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
