"""Idempotency keys (spec v1 D14; design: runtime shape): one effect and one answer however often a call is repeated."""

import random
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from google.protobuf.wrappers_pb2 import StringValue

from services.runtime.db import Database
from services.runtime.errors import Refused
from tests.harness import Houses, Someone, at_once, failing
from tests.runtime import toy
from tests.runtime.conftest import text_field

CREATE = "/crm.fields.v1.CrmCustomFieldService/CreateCustomField"
REUSED = (grpc.StatusCode.FAILED_PRECONDITION, "ErrIdempotencyKeyReused")


def sent(houses: Houses, request: pb.CreateCustomFieldRequest, metadata: Any) -> bytes:
    """The answer's very bytes."""
    method = houses.channel("fields").unary_unary(
        CREATE, request_serializer=pb.CreateCustomFieldRequest.SerializeToString, response_deserializer=bytes
    )
    return method(request, metadata=metadata, timeout=20)


def count(superuser: psycopg.Connection, table: str) -> int:
    found = superuser.execute(f"select count(*) from fields.{table}").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("header", ["idempotency_key", "x_idempotency_key"])
def test_a_repeat_gets_the_very_answer(
    houses: Houses,
    fields: CrmCustomFieldServiceStub,
    admin: Someone,
    superuser: psycopg.Connection,
    header: str,
) -> None:
    first = sent(houses, text_field("size"), admin.metadata(x_request_id="first", **{header: "k"}))
    again = sent(houses, text_field("size"), admin.metadata(x_request_id="again", **{header: "k"}))
    assert first == again
    assert pb.CreateCustomFieldResponse.FromString(again).meta.request_id == "first"
    assert count(superuser, "custom_fields") == 1


def test_another_request_under_the_key_is_refused_and_does_nothing(
    fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    fields.CreateCustomField(text_field("size"), metadata=admin.metadata(idempotency_key="k"))
    failure = failing(fields.CreateCustomField, text_field("colour"), admin, idempotency_key="k")
    assert (failure.code, failure.reason) == REUSED
    assert failure.fields == ["Idempotency-Key"]
    assert count(superuser, "custom_fields") == 1


def test_calls_at_once_have_one_effect_and_one_answer(
    houses: Houses, fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    keyed = admin.metadata(idempotency_key="k")
    outcomes = at_once([lambda: sent(houses, text_field("size"), keyed)] * 8)
    assert isinstance(outcomes[0], bytes)
    assert outcomes == outcomes[:1] * 8
    assert count(superuser, "custom_fields") == 1


def test_different_requests_at_once_under_one_key_have_one_effect(
    fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    keyed = admin.metadata(idempotency_key="k")
    requests = [text_field(f"field_{n}") for n in range(4)]
    outcomes = at_once(
        [lambda request=request: fields.CreateCustomField(request, metadata=keyed, timeout=20) for request in requests]  # type: ignore[misc]
    )
    assert sum(isinstance(each, pb.CreateCustomFieldResponse) for each in outcomes) == 1
    assert count(superuser, "custom_fields") == 1


def test_a_failed_call_keeps_nothing(
    fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    fields.CreateCustomField(text_field("size"), metadata=admin.metadata())
    for _ in range(2):
        failure = failing(fields.CreateCustomField, text_field("size"), admin, idempotency_key="k")
        assert failure.reason == "ErrCustomFieldKeyTaken"
    assert count(superuser, "idempotency_keys") == 0
    fields.CreateCustomField(text_field("colour"), metadata=admin.metadata(idempotency_key="k"))


def test_a_key_belongs_to_an_organisation_a_user_and_an_rpc(
    houses: Houses, fields: CrmCustomFieldServiceStub, admin: Someone
) -> None:
    keyed = {"idempotency_key": "k"}
    own = fields.CreateCustomField(text_field("size"), metadata=admin.metadata(**keyed))
    colleague = houses.someone(user_id=2)
    other = fields.CreateCustomField(text_field("colour"), metadata=colleague.metadata(**keyed))
    assert other.data.id != own.data.id
    stranger = houses.someone(organization_id=2)
    theirs = fields.CreateCustomField(text_field("size"), metadata=stranger.metadata(**keyed))
    assert theirs.data.organization_id == 2
    request = pb.UpdateCustomFieldRequest(id=own.data.id, label="New")
    assert fields.UpdateCustomField(request, metadata=admin.metadata(**keyed)).data.label == "New"


def test_a_users_key_is_never_a_services(houses: Houses, fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    """Else a person could take the key of an event that is yet to be delivered in their name."""
    fields.CreateCustomField(text_field("size"), metadata=admin.metadata(idempotency_key="pipelines:1"))
    service = houses.service(user_id=admin.user_id)
    made = fields.CreateCustomField(text_field("colour"), metadata=service.metadata(idempotency_key="pipelines:1"))
    assert made.data.key == "colour"


def test_an_expired_key_is_as_good_as_none(
    fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    keyed = admin.metadata(idempotency_key="k")
    fields.CreateCustomField(text_field("size"), metadata=keyed)
    superuser.execute("update fields.idempotency_keys set expires_at = now() - interval '1 second'")
    made = fields.CreateCustomField(text_field("colour"), metadata=keyed)
    assert fields.CreateCustomField(text_field("colour"), metadata=keyed) == made
    assert count(superuser, "idempotency_keys") == 1


def test_a_users_key_is_kept_a_day_and_a_services_a_month(
    houses: Houses, fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection
) -> None:
    fields.CreateCustomField(text_field("a"), metadata=admin.metadata(idempotency_key="k"))
    fields.CreateCustomField(text_field("b"), metadata=houses.service().metadata(idempotency_key="k"))
    rows = superuser.execute(
        "select user_id, expires_at - now() from fields.idempotency_keys order by expires_at"
    ).fetchall()
    kept = [(user, round(left / timedelta(hours=1))) for user, left in rows]
    assert kept == [(1, 24), (0, 30 * 24)]


def test_expired_keys_are_cleared_away(
    fields: CrmCustomFieldServiceStub,
    admin: Someone,
    superuser: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields.CreateCustomField(text_field("a"), metadata=admin.metadata(idempotency_key="old"))
    superuser.execute("update fields.idempotency_keys set expires_at = now() - interval '1 second'")
    monkeypatch.setattr(random, "random", lambda: 0.0)
    fields.CreateCustomField(text_field("b"), metadata=admin.metadata(idempotency_key="new"))
    assert count(superuser, "idempotency_keys") == 1


def test_a_key_is_at_most_255_characters(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    fields.CreateCustomField(text_field("size"), metadata=admin.metadata(idempotency_key="k" * 255))
    failure = failing(fields.CreateCustomField, text_field("colour"), admin, idempotency_key="k" * 256)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["Idempotency-Key"])


def test_an_empty_key_is_none(fields: CrmCustomFieldServiceStub, admin: Someone) -> None:
    keyed = admin.metadata(idempotency_key="")
    fields.CreateCustomField(text_field("size"), metadata=keyed)
    assert failing(fields.CreateCustomField, text_field("size"), admin, idempotency_key="").reason.endswith("KeyTaken")


def test_reads_take_no_key(fields: CrmCustomFieldServiceStub, admin: Someone, superuser: psycopg.Connection) -> None:
    fields.ListCustomFields(pb.ListCustomFieldsRequest(), metadata=admin.metadata(idempotency_key="k"))
    assert count(superuser, "idempotency_keys") == 0


def test_a_call_that_keeps_no_answer_has_no_effect(
    houses: Houses, db: Database, admin: Someone, superuser: psycopg.Connection
) -> None:
    """A servicer that forgets `tx.reply` fails in its first test, not at the first repeat."""

    def forget(who: Any, _text: str) -> str:
        with db.transaction(who) as tx:
            tx.new_id("toy")
        return "done"

    with toy.serving(houses.settings("forms"), forget) as served:
        assert served.rpc()(StringValue(), metadata=admin.metadata(), timeout=20).value == "done"
        assert failing(served.rpc(), StringValue(), admin, idempotency_key="k").code == grpc.StatusCode.INTERNAL
    assert count(superuser, "idempotency_keys") == 0


def test_a_repeat_that_its_own_first_effect_would_refuse_is_answered(
    houses: Houses, db: Database, admin: Someone
) -> None:
    """What is checked before the transaction may fail because of the first time (`Database.checks`)."""
    done: list[str] = []

    def once(who: Any, text: str) -> str:
        with db.checks(who):
            if done:
                raise Refused()
        with db.transaction(who) as tx:
            done.append(text)
            return tx.reply(StringValue(value=text)).value

    with toy.serving(houses.settings("forms"), once) as served:
        request = StringValue(value="done")
        first = served.rpc()(request, metadata=admin.metadata(idempotency_key="k"), timeout=20)
        assert served.rpc()(request, metadata=admin.metadata(idempotency_key="k"), timeout=20) == first
        assert failing(served.rpc(), request, admin, idempotency_key="other").reason == "FAILED_PRECONDITION"
        other = failing(served.rpc(), StringValue(value="else"), admin, idempotency_key="k")
        assert (other.code, other.reason) == REUSED
