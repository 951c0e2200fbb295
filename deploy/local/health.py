"""Whether a process takes requests already. Each probe asks once, answers soon and keeps nothing open."""

import socket
from http.client import HTTPConnection, HTTPException
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_PATIENCE = 1.0


def serves_grpc(address: str) -> bool:
    """Whether a gRPC server says SERVING (``grpc.health.v1``)."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError:
        return False  # a channel to a closed port would wait before it tries again
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs do not know its rpcs
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def envoy_is_ready(admin_port: int) -> bool:
    """Whether Envoy has its clusters and listens (``/ready`` of its admin port on loopback)."""
    connection = HTTPConnection("127.0.0.1", admin_port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
