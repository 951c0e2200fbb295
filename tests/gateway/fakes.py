"""Services without rules on real gRPC servers: they keep what reached them and answer what a test tells them to."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import grpc
from crm.contacts.v1 import contact_service_pb2
from crm.fields.v1 import custom_field_service_pb2, field_rules_service_pb2
from crm.identity.v1 import identity_service_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

FIELDS = custom_field_service_pb2.DESCRIPTOR.services_by_name["CrmCustomFieldService"]
FIELD_RULES = field_rules_service_pb2.DESCRIPTOR.services_by_name["FieldRulesService"]
IDENTITY = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
CONTACTS = contact_service_pb2.DESCRIPTOR.services_by_name["CrmContactService"]

MAX_MESSAGE = 8 * 1024 * 1024  # as in services.runtime

Answer = Callable[[Any, grpc.ServicerContext], Message]


class Call(NamedTuple):
    """What reached a service."""

    request: Any
    metadata: Mapping[str, str | bytes]
    remaining: float
    """Seconds until the deadline."""


class Stage:
    """Where a test stands: what was called, and what is answered instead of the echo of the request."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the last test."""
        self.calls: list[Call] = []
        self.answer: Answer | None = None

    @property
    def call(self) -> Call:
        """The only call there was."""
        (call,) = self.calls
        return call

    @contextmanager
    def serving(self, address: str, *services: ServiceDescriptor) -> Iterator[int]:
        """One process that has these services, and its port."""
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", MAX_MESSAGE)])
        for service in services:
            handlers = {method.name: self._handler(method) for method in service.methods}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        port = server.add_insecure_port(address)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        def play(request: Message, context: grpc.ServicerContext) -> Message:
            metadata = dict(context.invocation_metadata())
            self.calls.append(Call(request, metadata, context.time_remaining() or float("inf")))
            return self.answer(request, context) if self.answer else _echo(request, GetMessageClass(method.output_type))

        return grpc.unary_unary_rpc_method_handler(
            play,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )


def _echo(request: Message, answer: type[Message]) -> Message:
    """An answer whose data has those members of the request that it knows."""
    data = answer.DESCRIPTOR.fields_by_name.get("data")
    members = json_format.MessageToDict(request, preserving_proto_field_name=True)
    said = {"data": members} if data and not data.is_repeated else {}
    return json_format.ParseDict(said, answer(), ignore_unknown_fields=True)


def failing(
    code: grpc.StatusCode, body: Mapping[str, object] | None = None, *, message: str = "", headers_first: bool = False
) -> Answer:
    """Fails as our services do: a status, and the finished HTTP body, ASCII only, in the trailing metadata."""

    def answer(_request: object, context: grpc.ServicerContext) -> NoReturn:
        if headers_first:
            context.send_initial_metadata((("x-from", "service"),))
        if body:
            said = json.dumps(body)
            # As large as the body, as the real details are.
            context.set_trailing_metadata((("x-millrace-error", said), ("grpc-status-details-bin", said.encode())))
        context.abort(code, message)

    return answer
