"""Calls to other services (design: runtime shape): in the caller's name, within the caller's time."""

import threading
import time

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from services.runtime.callers import DEFAULT_TIMEOUT, Caller
from services.runtime.channels import ask, connect
from services.runtime.errors import DeadlineExceeded, Internal, Unavailable
from tests.harness import Houses, Someone, eventually
from tests.runtime import toy


def test_a_call_carries_the_callers_token_request_id_and_deadline(houses: Houses, admin: Someone) -> None:
    heard: list[Caller] = []

    def hear(who: Caller, _text: str) -> str:
        heard.append(who)
        return "heard"

    near, far = houses.settings("forms"), houses.settings("pipelines")
    with connect(near, "pipelines") as channel, toy.serving(far, hear):

        def relay(who: Caller, _text: str) -> str:
            return ask(toy.Toy(channel).rpc(), who, StringValue()).value

        with toy.serving(near, relay) as served:
            for timeout in (3.0, None):
                served.rpc()(StringValue(), metadata=admin.metadata(x_request_id="req-9"), timeout=timeout)
    limited, unlimited = heard
    assert (limited.token, limited.request_id) == (admin.token, "req-9")
    assert (limited.organization_id, limited.user_id, limited.roles) == (1, 1, frozenset({"admin"}))
    assert limited.idempotency_key == ""
    now = time.monotonic()
    assert limited.deadline is not None
    assert limited.deadline - now < 3.5
    assert unlimited.deadline is not None, "what has no deadline gets one"
    assert unlimited.deadline - now < DEFAULT_TIMEOUT + 0.5  # gRPC rounds a timeout up on its way


def test_a_service_that_does_not_answer_is_not_waited_for(houses: Houses) -> None:
    release = threading.Event()

    def hang(_who: Caller, _text: str) -> str:
        release.wait(20)
        return ""

    who = Caller(1, 1, token=houses.someone().token, deadline=time.monotonic() + 0.2)
    with toy.serving(houses.settings("forms"), hang) as served:
        with pytest.raises(DeadlineExceeded):
            ask(served.rpc(), who, StringValue())
        release.set()


def test_a_service_that_is_away_is_unavailable_and_found_again(houses: Houses) -> None:
    settings = houses.settings("forms")
    who = Caller(1, 1, token=houses.someone().token)
    with connect(settings, "forms") as channel:
        with pytest.raises(Unavailable):
            ask(toy.Toy(channel).rpc(), who, StringValue())
        with toy.serving(settings, lambda _who, _text: "back"), eventually(5) as until:

            def answers() -> bool:
                try:
                    return ask(toy.Toy(channel).rpc(), who, StringValue()).value == "back"
                except Unavailable:
                    return False

            until(answers)


def test_what_is_no_error_of_ours_is_internal(houses: Houses) -> None:
    """A method that the other side does not know: a mistake of ours, of which the caller learns nothing."""
    with toy.serving(houses.settings("forms"), lambda _who, _text: ""):
        channel = grpc.insecure_channel(houses.settings("forms").listen)
        unknown = channel.unary_unary(f"/{toy.NAME}/Unknown", StringValue.SerializeToString, StringValue.FromString)
        with pytest.raises(Internal):
            ask(unknown, Caller(1, 1), StringValue())
        channel.close()
