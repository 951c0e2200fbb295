"""Choosing ports. gRPC and Envoy bind with SO_REUSEPORT and would share a port in silence, so it is probed before."""

import errno
import random
import socket

import psutil

from deploy.local.errors import DeployError

LOOPBACK = "127.0.0.1"
_BELOW_THE_EPHEMERAL = range(20000, 32000)  # the kernel hands the ports above to outgoing connections, at any moment


def require_free(port: int) -> int:
    """Returns the port if nobody listens on it on loopback; raises DeployError that names who does."""
    try:
        _bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DeployError(f"port {port} is taken{_holder(port)}; choose another with --port, or 0") from error
        raise DeployError(f"port {port} cannot be used: {error.strerror}") from error
    return port


def free_ports(count: int) -> list[int]:
    """Different ports on loopback that nobody listens on."""
    found: list[int] = []
    for port in random.sample(_BELOW_THE_EPHEMERAL, len(_BELOW_THE_EPHEMERAL)):
        if len(found) == count:
            return found
        try:
            _bind(port)
        except OSError:
            continue
        found.append(port)
    raise DeployError("this machine has no free port between 20000 and 32000")


def _bind(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
        probe.bind((LOOPBACK, port))
        probe.listen()


def _holder(port: int) -> str:
    try:
        listening = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid
        ]
        return f" by {psutil.Process(listening[0]).name()} (pid {listening[0]})"
    except (psutil.Error, IndexError, OSError):
        return ""
