"""Calls to other services: channels with explicit limits, and errors that arrive as they were raised."""

import math
from typing import Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.runtime.callers import Caller
from services.runtime.errors import DeadlineExceeded, Foreign, Internal, ServiceError, Unavailable, Violation
from services.runtime.settings import Settings

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes; above the gateway's body limit, so that the gateway is what refuses."""

LIMITS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # An error travels in metadata, with all its violations: gRPC's own 8 KiB would turn a long one into
    # RESOURCE_EXHAUSTED.
    ("grpc.max_metadata_size", 128 * 1024),
    ("grpc.absolute_max_metadata_size", 256 * 1024),
]
"""What a message and its metadata may weigh, the same at both ends of every connection."""
_OPTIONS = [
    *LIMITS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A receiver that came back is found within a second, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

Request = TypeVar("Request", bound=Message, contravariant=True)
Response = TypeVar("Response", covariant=True)


class Method(Protocol[Request, Response]):
    """One rpc of a generated stub."""

    def __call__(
        self, request: Request, timeout: float | None = None, metadata: tuple[tuple[str, str], ...] | None = None
    ) -> Response:
        """Makes the call."""


def connect(settings: Settings, service: str) -> grpc.Channel:
    """A channel to another service; it connects by itself, now or once the service is there."""
    return grpc.insecure_channel(settings.addresses[service], options=_OPTIONS)


def ask(method: Method[Request, Response], who: Caller, request: Request, *, patience: float = math.inf) -> Response:
    """Calls another service for the caller: with the caller's token, request id and deadline, or `patience` seconds.

    Raises what the other service raised; Unavailable or DeadlineExceeded when it did not answer.
    """
    metadata = (("authorization", f"Bearer {who.token}"), ("x-request-id", who.request_id))
    try:
        return method(request, timeout=min(who.time_left(), patience), metadata=metadata)
    except grpc.RpcError as error:
        raise told(error) from error


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status a call ended with. A stub raises errors that are calls too; typing cannot say so."""
    return cast("grpc.Call", error).code()


def told(error: grpc.RpcError) -> ServiceError:
    """The error of another service as ours to pass on. Anything unexpected over there is internal here."""
    code, call = code_of(error), cast("grpc.Call", error)
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unavailable()
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded()
    found = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin")
    if not isinstance(found, bytes):
        return Internal()
    reason, violations = code.name, list[Violation]()
    for detail in status_pb2.Status.FromString(found).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            fields = error_details_pb2.BadRequest.FromString(detail.value).field_violations
            violations = [Violation(each.field, each.description) for each in fields]
    return Foreign(code.name, reason, call.details() or "", violations)
