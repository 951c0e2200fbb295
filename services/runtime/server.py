"""The gRPC server every service runs, and the one interceptor that owns what is not domain.

Around each rpc, in this order (spec v1 D16): token, role, shape of the request; then the servicer's method; then its
error or answer on the wire, and one line in the log. Health and reflection stand outside.
"""

import json
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import grpc
import structlog
from crm.runtime.v1 import access_pb2, meta_pb2
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from protovalidate import FieldPathPb as FieldPath
from protovalidate import Validator
from protovalidate import Violation as Found

from services.runtime.auth import Identity, Verifier
from services.runtime.callers import SETTINGS_ROLES, WRITING_ROLES, Caller, calling
from services.runtime.channels import LIMITS
from services.runtime.db import Replay
from services.runtime.errors import Forbidden, Internal, Invalid, ServiceError, Unauthenticated, Violation, report
from services.runtime.logs import access_log, configure_logs
from services.runtime.settings import Settings

log = structlog.get_logger()

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter while others want it."""
DOMAIN = "millrace"
"""The `domain` of every ErrorInfo."""
NO_DEADLINE = 1e9
"""Seconds. gRPC says some 300 billion years when a call came without a deadline."""
GRACE = 15.0
"""Seconds that calls under way get to end after SIGTERM; longer than the gateway's own timeout."""
MESSAGE_ROOM = 500
"""Characters, as JSON, that an error's message may take."""
VIOLATIONS_ROOM, TRANSCODED_ROOM = 2_400, 24_000
"""Characters, as JSON, that all violations of an error may take. They travel in metadata, twice: of more than 8 KiB
of it a gRPC caller learns nothing but RESOURCE_EXHAUSTED. The gateway, for its HTTP callers, takes 64 KiB."""
TRANSCODED = "x-envoy-original-path"
"""Metadata of a call that the gateway made of an HTTP request."""
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP status by gRPC code, as the gateway transcodes it (spec v1 D2); anything else is 500."""

_ACCEPTED: dict[int, frozenset[str]] = {
    access_pb2.ACCESS_AGENT: WRITING_ROLES,
    access_pb2.ACCESS_SETTINGS: SETTINGS_ROLES,
}

_OUR_FAULT = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN"})
_VISIBLE = re.compile(r"[!-~]{1,128}")
_OPEN = (f"/{health.SERVICE_NAME}/", f"/{reflection.SERVICE_NAME}/")
"""What anyone may ask a server: whether it is well and what it serves."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Message]


class Guard(grpc.ServerInterceptor):
    """Wraps every rpc of the service once and keeps the wrapped handlers."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._validator = Validator()
        self._log = access_log()
        self._access: dict[str, int] = {}
        self._handlers: dict[str, Handler] = {}

    def watch(self, services: Iterable[str]) -> None:
        """Guards every rpc of these services. Raises when one declares no access."""
        for service in services:
            self._access.update(declared_access(service))

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler of a call, guarded unless it is health or reflection; an rpc that is not watched has none."""
        rpc = handler_call_details.method
        known = self._handlers.get(rpc)
        if known is not None:
            return known
        handler = continuation(handler_call_details)
        if handler is None or rpc.startswith(_OPEN):
            return handler
        if rpc not in self._access:
            return None
        if handler.unary_unary is None:
            raise NotImplementedError(f"{rpc}: the guard wraps unary rpcs only")
        guarded = grpc.unary_unary_rpc_method_handler(
            self._guarded(rpc, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=_serialize,
        )
        self._handlers[rpc] = guarded
        return guarded

    def _guarded(self, rpc: str, behavior: Behavior) -> Behavior:
        access = self._access[rpc]
        accepted = _ACCEPTED.get(access)

        def serve(request: Message, context: grpc.ServicerContext) -> Any:
            began = time.perf_counter()
            metadata = dict(context.invocation_metadata())
            request_id = _request_id(metadata.get("x-request-id"))
            who = Caller(0, 0, rpc=rpc, request_id=request_id)
            failure: ServiceError | None = None
            try:
                who = self._admit(who, access, accepted, metadata, context, request)
                self._check(request)
                with calling(who):
                    return behavior(request, context)
            except Replay as replay:
                return replay.response
            except ServiceError as error:
                failure = error
                if error.code in _OUR_FAULT:
                    log.error("rpc.failed", rpc=rpc, request_id=request_id, exc_info=error)
            except Exception:
                failure = Internal()
                log.exception("rpc.failed", rpc=rpc, request_id=request_id)
            finally:
                self._log(
                    rpc=rpc,
                    code="OK" if failure is None else failure.code,
                    reason="" if failure is None else failure.reason,
                    ms=round((time.perf_counter() - began) * 1000, 2),
                    organization_id=who.organization_id,
                    user_id=who.user_id,
                    statements=who.statements,
                    request_id=request_id,
                )
            _abort(context, failure, request_id, TRANSCODED_ROOM if TRANSCODED in metadata else VIOLATIONS_ROOM)
            return None

        return serve

    def _admit(
        self,
        who: Caller,
        access: int,
        accepted: frozenset[str] | None,
        metadata: dict[str, Any],
        context: grpc.ServicerContext,
        request: Message,
    ) -> Caller:
        if access == access_pb2.ACCESS_PUBLIC:
            return who
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated()
        identity = self._verifier.verify(token)
        left = context.time_remaining()
        who = Caller(
            identity.organization_id,
            identity.user_id,
            identity.roles,
            is_service=identity.is_service,
            token=token,
            rpc=who.rpc,
            request_id=who.request_id,
            deadline=time.monotonic() + left if left < NO_DEADLINE else None,
        )
        _authorize(identity, access, accepted)
        key = metadata.get("idempotency-key") or metadata.get("x-idempotency-key")
        if key:
            who.idempotency_key = _idempotency_key(key, identity)
            who.request = request.SerializeToString(deterministic=True)
        return who

    def _check(self, request: Message) -> None:
        found = self._validator.collect_violations(request)
        if found:
            report(_violation(each) for each in found)


class Wiring(NamedTuple):
    """A service put together: what it serves, what runs beside its rpcs, and what it closes at the end."""

    register: Callable[[grpc.Server], Sequence[str]]
    """Adds the servicers to a server and answers their full names."""
    starting: Sequence[Callable[[], None]] = ()
    closing: Sequence[Callable[[], None]] = ()


def run(service: str, wire: Callable[[Settings], Wiring]) -> None:
    """A service process from its settings to SIGTERM or SIGINT: then NOT_SERVING, drain, close, return."""
    # A call is short between two waits; in two paired runs of GetContact the slowest one percent was faster this way
    # than at the default of 5 ms (27 for 31 ms, 30 for 62 ms). Two pairs tell the direction and not the size.
    sys.setswitchinterval(SWITCH_INTERVAL)
    settings = Settings.model_validate({})
    configure_logs(service, settings.log_level)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    wiring = wire(settings)
    server, port, readiness = start(settings, wiring)
    log.info("service.ready", port=port)
    stopping.wait()
    readiness.enter_graceful_shutdown()
    server.stop(GRACE).wait()
    for close in wiring.closing:
        close()
    log.info("service.stopped")


def start(
    settings: Settings, wiring: Wiring, *, verifier: Verifier | None = None
) -> tuple[grpc.Server, int, health.HealthServicer]:
    """A started server, its port, and its health."""
    guard = Guard(verifier or Verifier(settings))
    server = grpc.server(
        ThreadPoolExecutor(settings.threads, thread_name_prefix="rpc"),
        interceptors=[guard],
        options=[
            ("grpc.so_reuseport", int(settings.reuse_port)),
            *LIMITS,
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    names = wiring.register(server)
    guard.watch(names)
    readiness = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(readiness, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(settings.listen)
    for begin in wiring.starting:
        begin()
    server.start()
    for name in ("", *names):
        readiness.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, port, readiness


def declared_access(service: str) -> list[tuple[str, int]]:
    """Every rpc of a service with its declared access. Raises when one declares none: it must not be served."""
    descriptor = descriptor_pool.Default().FindServiceByName(service)
    declared: list[tuple[str, int]] = []
    for method in descriptor.methods:
        access = method.GetOptions().Extensions[access_pb2.access]
        if access == access_pb2.ACCESS_UNSPECIFIED:
            raise TypeError(f"{service}/{method.name} declares no access")
        declared.append((f"/{service}/{method.name}", access))
    return declared


def meta(who: Caller) -> meta_pb2.ResponseMeta:
    """What an answer says about itself."""
    return meta_pb2.ResponseMeta(request_id=who.request_id)


def _serialize(answer: Message | bytes) -> bytes:
    """A replayed answer is already on the wire's form."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _request_id(given: Any) -> str:
    """The caller's id when it is 1–128 visible ASCII characters, else a fresh one (spec v1 D13)."""
    if (
        isinstance(given, str)
        and 1 <= len(given) <= 128
        and given.isascii()
        and given.isprintable()
        and " " not in given
    ):
        return given
    return f"req_{secrets.token_hex(12)}"


def _idempotency_key(given: Any, identity: Identity) -> str:
    """The key as it is kept: a person's is never a service's, or an event could be lost to somebody's choice of key."""
    if not isinstance(given, str) or not 1 <= len(given) <= 255:
        raise Invalid(field="Idempotency-Key", message="must be 1–255 characters")
    return f"{'service' if identity.is_service else 'user'}:{given}"


def _authorize(identity: Identity, access: int, accepted: frozenset[str] | None) -> None:
    """Whether the token's roles reach the rpc's access (spec v1 D11). Millrace's own services reach everything."""
    if identity.is_service:
        return
    if access == access_pb2.ACCESS_SERVICE or not identity.roles:
        raise Forbidden()
    if accepted is not None and accepted.isdisjoint(identity.roles):
        raise Forbidden()


def _violation(found: Found) -> Violation:
    """protovalidate's finding with the field's path as text: `fields[2].key`."""
    proto = found.proto
    path = ""
    for element in (proto.field or FieldPath()).elements:
        path += f".{element.field_name}" if path else str(element.field_name)
        if element.subscript:
            path += f"[{element.subscript.value}]"
    return Violation(path, proto.message or "is not valid")


def _abort(context: grpc.ServicerContext, error: ServiceError, request_id: str, room: int) -> None:
    """Puts an error on the wire: google.rpc.Status for gRPC callers, the finished HTTP body for the gateway."""
    message, violations = _short(error.message, MESSAGE_ROOM), _that_fit(error.violations, room)
    status = status_pb2.Status(code=grpc.StatusCode[error.code].value[0], message=message)
    status.details.append(_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)))
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.message) for v in violations]
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=fields)))
    body = {
        "code": HTTP_STATUS.get(error.code, 500),
        "message": message,
        "error_code": error.reason,
        "details": [each._asdict() for each in violations],
        "request_id": request_id,
    }
    context.set_trailing_metadata(
        (
            ("grpc-status-details-bin", status.SerializeToString()),
            ("x-millrace-error", json.dumps(body, separators=(",", ":"))),
            ("x-request-id", request_id),
        )
    )
    context.abort(grpc.StatusCode[error.code], message)


def _that_fit(violations: Sequence[Violation], room: int) -> list[Violation]:
    """The violations that an answer has room for; of the others, how many there are."""
    told: list[Violation] = []
    for index, each in enumerate(violations):
        short = Violation(_short(each.field, 300), _short(each.message, 500))
        room -= len(json.dumps(short._asdict()))
        if room < 0:
            return [*told, Violation("", f"{len(violations) - index} more")]
        told.append(short)
    return told


def _short(text: str, room: int) -> str:
    """The text, cut where it has no more room."""
    while (size := len(json.dumps(text))) > room:
        text = text[: len(text) * (room - 8) // size] + "…"
    return text


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
