"""Errors on the wire (design: errors): code, reason, fields, the HTTP body for the gateway, and nothing internal."""

import json
from collections.abc import Mapping
from typing import Any, cast

import grpc
import psycopg
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2

from services.runtime import errors
from services.runtime.callers import Caller
from services.runtime.channels import ask
from services.runtime.errors import ServiceError, Violation
from services.runtime.server import HTTP_STATUS
from tests.harness import Houses, Someone, eventually, failing
from tests.runtime import toy
from tests.runtime.conftest import break_connections, text_field


class DrawerJammed(errors.Refused):
    """The drawer is jammed."""


class Trailer:
    """Everything a failed call answered."""

    def __init__(self, error: grpc.RpcError) -> None:
        call = cast("grpc.Call", error)
        self.code, self.message = call.code(), call.details()
        self.metadata: Mapping[str, Any] = dict(call.trailing_metadata() or ())
        self.status = status_pb2.Status.FromString(self.metadata["grpc-status-details-bin"])
        self.body = json.loads(self.metadata["x-millrace-error"])

    def details(self, kind: Any) -> list[Any]:
        return [kind.FromString(each.value) for each in self.status.details if each.Is(kind.DESCRIPTOR)]


def raising(error: Exception) -> toy.Behavior:
    def fail(_who: Caller, _text: str) -> str:
        raise error

    return fail


def failed(houses: Houses, behavior: toy.Behavior, **metadata: str) -> Trailer:
    """What a call of a toy that does this answers."""
    with toy.serving(houses.settings("forms"), behavior) as served, pytest.raises(grpc.RpcError) as raised:
        served.rpc()(StringValue(), metadata=houses.someone().metadata(**metadata), timeout=20)
    return Trailer(raised.value)


def test_a_named_error_is_told_in_full(houses: Houses) -> None:
    violations = [Violation("drawer.hinge", "is bent"), Violation("drawer.items[3]", "is wide")]
    trailer = failed(houses, raising(DrawerJammed(violations=violations)), x_request_id="req-7")
    assert (trailer.code, trailer.message) == (grpc.StatusCode.FAILED_PRECONDITION, "The drawer is jammed.")
    assert (trailer.status.code, trailer.status.message) == (9, "The drawer is jammed.")
    (info,) = trailer.details(error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("ErrDrawerJammed", "millrace")
    (bad,) = trailer.details(error_details_pb2.BadRequest)
    assert [(each.field, each.description) for each in bad.field_violations] == violations
    assert trailer.metadata["x-request-id"] == "req-7"
    assert trailer.body == {
        "code": 400,
        "message": "The drawer is jammed.",
        "error_code": "ErrDrawerJammed",
        "details": [
            {"field": "drawer.hinge", "message": "is bent"},
            {"field": "drawer.items[3]", "message": "is wide"},
        ],
        "request_id": "req-7",
    }


@pytest.mark.parametrize(
    ("family", "code", "http"),
    [
        (errors.Invalid, "INVALID_ARGUMENT", 400),
        (errors.NotFound, "NOT_FOUND", 404),
        (errors.Conflict, "ALREADY_EXISTS", 409),
        (errors.Refused, "FAILED_PRECONDITION", 400),
        (errors.Forbidden, "PERMISSION_DENIED", 403),
        (errors.Unauthenticated, "UNAUTHENTICATED", 401),
        (errors.Aborted, "ABORTED", 409),
        (errors.Unavailable, "UNAVAILABLE", 503),
        (errors.DeadlineExceeded, "DEADLINE_EXCEEDED", 504),
        (errors.Internal, "INTERNAL", 500),
    ],
)
def test_a_family_has_its_code_and_is_its_own_reason(
    houses: Houses, family: type[ServiceError], code: str, http: int
) -> None:
    trailer = failed(houses, raising(family()))
    assert trailer.code.name == code
    assert trailer.details(error_details_pb2.ErrorInfo)[0].reason == code
    assert not trailer.details(error_details_pb2.BadRequest)
    assert (trailer.body["code"], trailer.body["error_code"], trailer.body["details"]) == (http, code, [])
    assert trailer.body["request_id"].startswith("req_")
    assert HTTP_STATUS.get(code, 500) == http


def test_any_text_survives_the_wire(houses: Houses) -> None:
    text = 'Straße "5" \\ \n\t – 日本 🦆'
    trailer = failed(houses, raising(errors.Invalid(text, field=text)))
    assert (trailer.message, trailer.body["message"]) == (text, text)
    assert trailer.body["details"] == [{"field": text, "message": text}]
    assert trailer.details(error_details_pb2.BadRequest)[0].field_violations[0].field == text


SECRETS = ("hunter2", "sk_live", "custom_fields", "psycopg", "Traceback", "DETAIL", "toy.py")


def unexpected(_who: Caller, _text: str) -> str:
    try:
        raise psycopg.errors.UndefinedTable('relation "custom_fields" does not exist, password hunter2')
    except psycopg.Error as error:
        raise KeyError("sk_live_key") from error


@pytest.mark.parametrize(
    "behavior",
    [unexpected, raising(AssertionError("hunter2")), raising(psycopg.errors.UndefinedTable("hunter2"))],
    ids=["chained", "assertion", "database"],
)
def test_nothing_internal_reaches_a_caller(houses: Houses, behavior: toy.Behavior) -> None:
    trailer = failed(houses, behavior)
    assert (trailer.code, trailer.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (trailer.body["message"], trailer.body["error_code"]) == ("internal error", "INTERNAL")
    everything = repr(trailer.metadata) + repr(trailer.status) + trailer.message
    assert not [secret for secret in SECRETS if secret in everything]


def test_all_violations_of_a_request_are_told_at_once(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    failure = failing(fields.CreateCustomField, pb.CreateCustomFieldRequest(field_type="colour", key="A b"), admin)
    assert failure.code == grpc.StatusCode.INVALID_ARGUMENT
    assert {"object_type", "key", "label", "field_type"} <= set(failure.fields)


def test_a_violation_names_the_very_member(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    placements = [pb.FieldPlacement(id=each) for each in (1, -5, 2, 0)]
    failure = failing(fields.ReorderCustomFields, pb.ReorderCustomFieldsRequest(fields=placements), admin)
    assert failure.fields == ["fields[1].id", "fields[3].id"]


def with_violations(many: int) -> toy.Behavior:
    violations = [Violation(f"schema.fields[{index}].key", "stands twice – or more often") for index in range(many)]
    return raising(errors.Invalid(violations=violations))


@pytest.mark.parametrize("many", [10, 100, 5000])
def test_however_many_violations_there_are_a_grpc_caller_learns_of_them(houses: Houses, many: int) -> None:
    """Its library's default bound is 8 KiB: of a larger trailer it would learn nothing at all."""
    trailer = failed(houses, with_violations(many))
    assert trailer.code == grpc.StatusCode.INVALID_ARGUMENT
    told = [(each["field"], each["message"]) for each in trailer.body["details"]]
    (bad,) = trailer.details(error_details_pb2.BadRequest)
    assert [(each.field, each.description) for each in bad.field_violations] == told
    assert [field for field, _ in told[:10]] == [f"schema.fields[{index}].key" for index in range(10)]
    if many > 10:
        assert len(told) > 20
        assert told[-1] == ("", f"{min(many, errors.MOST_VIOLATIONS) - len(told) + 1} more")


def test_an_http_caller_learns_of_more(houses: Houses) -> None:
    options = [("grpc.max_metadata_size", 64 * 1024), ("grpc.absolute_max_metadata_size", 64 * 1024)]
    settings = houses.settings("forms")
    with toy.serving(settings, with_violations(150)), grpc.insecure_channel(settings.listen, options) as channel:
        metadata = houses.someone().metadata(x_envoy_original_path="/api/v1/toy")
        with pytest.raises(grpc.RpcError) as raised:
            toy.Toy(channel).rpc()(StringValue(), metadata=metadata)
        assert len(Trailer(raised.value).body["details"]) == 150


def test_a_long_message_does_not_drown_the_answer(houses: Houses) -> None:
    trailer = failed(houses, raising(errors.Invalid("x" * 50_000, field="y" * 50_000)))
    assert trailer.code == grpc.StatusCode.INVALID_ARGUMENT
    assert trailer.message.startswith("xxx")


def test_another_services_error_arrives_unchanged(houses: Houses, admin: Someone) -> None:
    """Through `ask`, two servers deep."""
    fields = CrmCustomFieldServiceStub(houses.start("fields").channel("fields"))

    def relay(who: Caller, _text: str) -> str:
        ask(fields.CreateCustomField, who, text_field("size"))
        return "made"

    with toy.serving(houses.settings("forms"), relay) as served:
        assert served.rpc()(StringValue(), metadata=admin.metadata()).value == "made"
        direct = failing(fields.CreateCustomField, text_field("size"), admin)
        relayed = failing(served.rpc(), StringValue(), admin)
        assert repr(relayed) == repr(direct)
        assert relayed.reason == "ErrCustomFieldKeyTaken"
        houses.stop("fields")
        gone = failing(served.rpc(), StringValue(), admin)
        assert (gone.code, gone.reason, gone.message) == (
            grpc.StatusCode.UNAVAILABLE,
            "UNAVAILABLE",
            errors.Unavailable().message,
        )


def test_the_request_id_is_the_callers_or_a_fresh_one(houses: Houses, admin: Someone) -> None:
    with toy.serving(houses.settings("forms"), lambda who, _text: who.request_id) as served:

        def answered(given: str) -> str:
            return served.rpc()(StringValue(), metadata=admin.metadata(x_request_id=given)).value

        for good in ("a", "req-1", "~!@#$%^&*()", "x" * 128):
            assert answered(good) == good
        for bad in ("", "a b", "x" * 129):
            assert answered(bad).startswith("req_")


@pytest.mark.parametrize("field", ["section", "label"])
def test_a_text_with_the_nul_character_is_the_callers_mistake(
    fields: CrmCustomFieldServiceStub, admin: Someone, field: str
) -> None:
    failure = failing(fields.CreateCustomField, text_field("size", **{field: "a\0b"}), admin)
    assert failure.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_database_that_is_away_is_unavailable_until_it_is_back(
    fields: CrmCustomFieldServiceStub, admin: Someone, admin_url: str, database: str
) -> None:
    request, name = pb.ListCustomFieldsRequest(), database
    fields.CreateCustomField(text_field("size"), metadata=admin.metadata())
    with psycopg.connect(admin_url.replace(f"/{name}", "/postgres"), autocommit=True) as aside:
        aside.execute(f"alter database {name} allow_connections false".encode())
        aside.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = %s and usename = 'millrace_fields'",
            (name,),
        )
        for failure in (
            failing(fields.ListCustomFields, request, admin),
            failing(fields.CreateCustomField, text_field("colour"), admin),
        ):
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
            assert name not in failure.message
        aside.execute(f"alter database {name} allow_connections true".encode())
    with eventually(20) as until:

        def answers() -> bool:
            try:
                return len(fields.ListCustomFields(request, metadata=admin.metadata(), timeout=20).data) == 1
            except grpc.RpcError:
                return False

        until(answers)
    fields.CreateCustomField(text_field("colour"), metadata=admin.metadata())


def test_connections_that_broke_while_idle_cost_the_caller_nothing(
    houses: Houses, fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    for key in ("a", "b", "c"):
        fields.CreateCustomField(text_field(key), metadata=admin.metadata())
        break_connections(superuser)
    listed = fields.ListCustomFields(pb.ListCustomFieldsRequest(), metadata=admin.metadata())
    assert [each.key for each in listed.data] == ["a", "b", "c"]
