"""The ceilings: an echo on our own server without anything around it, and a relay, an echo that asks another echo.

python -m bench.ceilings echo ADDRESS
python -m bench.ceilings relay ADDRESS ECHO_ADDRESS
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from crm.contacts.v1 import contact_service_pb2 as pb

THREADS = 16
METHOD = "/bench.Ceiling/Call"


def serve(address: str, behind: str | None) -> None:
    """Serves GetContact-shaped answers: what a call costs when nothing is done for it."""
    answer = pb.GetContactResponse()
    answer.data.id, answer.data.first_name, answer.data.last_name = 1, "Ada", "Lovelace"
    answer.data.custom_fields.update({"kyc_status": "approved", "score": 7})
    answer.meta.request_id = "req_0123456789abcdef01234567"
    ask = (
        grpc.insecure_channel(behind).unary_unary(METHOD, _request, pb.GetContactResponse.FromString)
        if behind
        else None
    )

    def call(request: pb.GetContactRequest, _context: grpc.ServicerContext) -> pb.GetContactResponse:
        return ask(request, timeout=5) if ask else answer

    handler = grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=pb.GetContactRequest.FromString,
        response_serializer=pb.GetContactResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Ceiling", {"Call": handler}),))
    server.add_insecure_port(address)
    server.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    server.stop(1).wait()


def _request(message: pb.GetContactRequest) -> bytes:
    return message.SerializeToString()


if __name__ == "__main__":
    serve(sys.argv[2], sys.argv[3] if sys.argv[1] == "relay" else None)
