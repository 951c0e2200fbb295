"""What an HTTP/JSON caller sees of the contract."""

import datetime as dt

import httpx
import pytest
from crm.fields.v1 import custom_field_pb2
from crm.fields.v1 import custom_field_service_pb2 as pb
from google.protobuf import json_format, struct_pb2, timestamp_pb2

from tests.gateway.fakes import Stage


def definition(**members: object) -> pb.GetCustomFieldResponse:
    return pb.GetCustomFieldResponse(data=custom_field_pb2.CustomField(**members))  # type: ignore[arg-type]


def test_success_is_200_and_json(api: httpx.Client, stage: Stage) -> None:
    answer = api.post("/custom-fields", json={"key": "annual_revenue"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["data"]["key"] == "annual_revenue"


def test_nothing_of_grpc_is_left_in_a_json_answers_headers(api: httpx.Client, stage: Stage) -> None:
    names = set(api.get("/custom-fields/7").headers)
    assert not {name for name in names if name.startswith(("grpc-", "x-envoy-", "x-millrace-"))}


def test_ids_are_numbers_and_zeros_and_empties_are_there(api: httpx.Client, stage: Stage) -> None:
    stage.answer = lambda request, context: definition(id=2_147_483_647)
    assert api.get("/custom-fields/7").json() == {
        "data": {
            "id": 2_147_483_647,
            "organization_id": 0,
            "object_type": "",
            "key": "",
            "label": "",
            "field_type": "",
            "section": "",
            "position": 0,
            "is_active": False,
            "deal_pipeline_id": 0,
            "document_template_id": 0,
        }
    }


def test_an_empty_list_is_a_list(api: httpx.Client, stage: Stage) -> None:
    assert api.get("/custom-fields").json() == {"data": []}


def test_times_are_rfc_3339_in_utc(api: httpx.Client, stage: Stage) -> None:
    created_at = timestamp_pb2.Timestamp()
    created_at.FromDatetime(dt.datetime(2025, 3, 1, 9, 30, tzinfo=dt.UTC))
    stage.answer = lambda request, context: definition(created_at=created_at)
    assert api.get("/custom-fields/7").json()["data"]["created_at"] == "2025-03-01T09:30:00Z"


def test_free_values_come_back_as_they_were_sent(api: httpx.Client, stage: Stage) -> None:
    rules: dict[str, object] = {"min": 0, "max": 1.5, "none": None, "list": [1, None, "é"], "empty": {}, "no": False}
    answer = api.patch("/custom-fields/7", json={"validation_rules": rules})
    assert json_format.MessageToDict(stage.call.request.validation_rules) == rules
    assert answer.json()["data"]["validation_rules"] == rules


def test_null_in_free_values_reaches_the_service_as_null(api: httpx.Client, stage: Stage) -> None:
    api.patch("/custom-fields/7", json={"validation_rules": {"vip": None}})
    assert stage.call.request.validation_rules == struct_pb2.Struct(
        fields={"vip": struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)}
    )


def test_a_member_left_out_is_not_the_same_as_an_empty_one(api: httpx.Client, stage: Stage) -> None:
    api.patch("/custom-fields/7", json={"section": "", "position": 0})
    request = stage.call.request
    assert (request.HasField("section"), request.HasField("position"), request.HasField("label")) == (True, True, False)


def test_an_unknown_body_member_is_ignored(api: httpx.Client, stage: Stage) -> None:
    assert api.post("/custom-fields", json={"key": "kyc_status", "colour": "red"}).status_code == 200


@pytest.mark.parametrize("name", ["object_type", "objectType"])
def test_filters_are_query_parameters(api: httpx.Client, stage: Stage, name: str) -> None:
    api.get("/custom-fields", params={name: "contact", "section": "a + b"})
    assert stage.call.request == pb.ListCustomFieldsRequest(object_type="contact", section="a + b")


def test_a_path_id_reaches_the_service(api: httpx.Client, stage: Stage) -> None:
    api.get("/custom-fields/42")
    assert stage.call.request == pb.GetCustomFieldRequest(id=42)


@pytest.mark.parametrize("body", [None, {}, {"id": 42}])
def test_a_colon_verb_takes_a_body_or_none(api: httpx.Client, stage: Stage, body: dict[str, int] | None) -> None:
    assert api.post("/custom-fields/42:archive", json=body).status_code == 200
    assert stage.call.request == pb.ArchiveCustomFieldRequest(id=42)


def test_a_body_is_json_whatever_its_content_type_says(api: httpx.Client, stage: Stage) -> None:
    sent = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
    assert api.post("/custom-fields", content='{"key": "vat_id"}', headers=sent).json()["data"]["key"] == "vat_id"


def test_a_service_sees_what_the_caller_says_about_the_request(api: httpx.Client, stage: Stage) -> None:
    api.post("/custom-fields", json={}, headers={"idempotency-key": "k-1", "x-idempotency-key": "k-2"})
    seen = stage.call.metadata
    assert seen["authorization"] == api.headers["authorization"]
    assert (seen["idempotency-key"], seen["x-idempotency-key"]) == ("k-1", "k-2")


def test_a_service_knows_its_deadline(api: httpx.Client, stage: Stage) -> None:
    api.get("/custom-fields/7")
    assert 11 < stage.call.remaining < 16


def test_headers_of_the_gateways_own_are_not_taken_from_callers(api: httpx.Client, stage: Stage) -> None:
    api.get("/custom-fields/7", headers={"x-millrace-error": "mine", "x-envoy-anything": "mine"})
    assert "mine" not in stage.call.metadata.values()
