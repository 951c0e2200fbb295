"""A service of tests: one rpc per access, each doing what the test at hand wants."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import grpc
from crm.runtime.v1 import access_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from google.protobuf.wrappers_pb2 import StringValue

from services.runtime.auth import Verifier
from services.runtime.callers import Caller, caller
from services.runtime.server import Wiring, start
from services.runtime.settings import Settings

NAME = "toy.v1.Toy"
UNGUARDED = "toy.v1.Unguarded"
RPCS = {
    "Public": access_pb2.ACCESS_PUBLIC,
    "Any": access_pb2.ACCESS_ANY,
    "Agent": access_pb2.ACCESS_AGENT,
    "Settings": access_pb2.ACCESS_SETTINGS,
    "Service": access_pb2.ACCESS_SERVICE,
}

Behavior: TypeAlias = Callable[[Caller, str], str]
"""What an rpc does: the caller and the text sent, and the text answered."""


def _described() -> None:
    file = descriptor_pb2.FileDescriptorProto(
        name="toy/v1/toy.proto",
        package="toy.v1",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto", access_pb2.DESCRIPTOR.name],
    )
    assert wrappers_pb2.DESCRIPTOR.name == file.dependency[0]
    toy, unguarded = file.service.add(name="Toy"), file.service.add(name="Unguarded")
    text = ".google.protobuf.StringValue"
    for name, access in RPCS.items():
        method = toy.method.add(name=name, input_type=text, output_type=text)
        method.options.Extensions[access_pb2.access] = access
    unguarded.method.add(name="Open", input_type=text, output_type=text)
    descriptor_pool.Default().Add(file)


_described()


class Toy:
    """A running toy, and a way to call it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def rpc(self, name: str = "Any") -> "grpc.UnaryUnaryMultiCallable[StringValue, StringValue]":
        """The stub of one rpc."""
        return self._channel.unary_unary(
            f"/{NAME}/{name}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )


def wiring(behavior: Behavior) -> Wiring:
    """A service of which every rpc does this."""

    def serve(request: StringValue, context: grpc.ServicerContext) -> StringValue:
        return StringValue(value=behavior(caller(context), request.value))

    def register(server: grpc.Server) -> list[str]:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                serve, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
            )
            for name in RPCS
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
        return [NAME]

    return Wiring(register)


@contextmanager
def serving(settings: Settings, behavior: Behavior, *, verifier: Verifier | None = None) -> Iterator[Toy]:
    """The toy, served as any service is."""
    server, _, _ = start(settings, wiring(behavior), verifier=verifier)
    channel = grpc.insecure_channel(settings.listen)
    try:
        yield Toy(channel)
    finally:
        channel.close()
        server.stop(None).wait()
